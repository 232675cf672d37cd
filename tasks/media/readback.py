"""Reading back what was written, from the medium and not from the page cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from tasks.media import durable
from tasks.media.cartridge import JOURNAL, LABEL, SUMS, Cartridge
from tasks.model.errors import CartridgeError, FormatDamaged

_PIECE = 4 << 20
_THREADS = 2
# How often a cartridge is read that changes while it is read.
_LOOKS = 3
_LARGEST_FILE = 4 << 30
_LISTED = (LABEL, JOURNAL, "README.txt", "restore.sh")
_FOLDERS = ("archives/", "catalog/")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a read-back has found: files read, bytes read, and the names of damaged files."""

    archives: int
    bytes: int
    damaged: list[str]


def expected_sums(cartridge: Cartridge) -> dict[str, str]:
    """Return what every file should be: the journal's word for archives, SHA256SUMS for the rest.

    A cartridge that was written to and not sealed since, because its run goes on, has sums that are
    older than its catalog; its archives and its label are judged all the same.
    """
    archives = {line.archive: line.sha256 for line in cartridge.journal()}
    return {**judged(archives, cartridge.sums()), **archives}


def judged(archives: Mapping[str, str], sums: Mapping[str, str]) -> dict[str, str]:
    """Return the part of SHA256SUMS that counts at this time."""
    if archives.keys() <= sums.keys():
        return dict(sums)
    return {n: d for n, d in sums.items() if n == LABEL or n.startswith("archives/")}


def examine(
    cartridge: Cartridge, known: Callable[[], Mapping[str, str]], seen: Callable[[int], None]
) -> Verdict:
    """Read all of a cartridge back, and judge its lists by each other.

    `known` returns what the catalog has of its archives, {} where there is none; its word goes
    first. A cartridge that is written to meanwhile is looked at again; while somebody seals it, its
    archives and its label alone are judged, as the rest is partly new.
    """
    for _ in range(_LOOKS):
        lists, is_being_sealed = cartridge.lists(), cartridge.is_being_sealed()
        verdict = _examine(cartridge, known(), seen)
        if not verdict.damaged or cartridge.lists() == lists:
            break
    if is_being_sealed:
        lasting = [n for n in verdict.damaged if n == LABEL or n.startswith("archives/")]
        return replace(verdict, damaged=lasting)
    return verdict


def _examine(
    cartridge: Cartridge, known: Mapping[str, str], seen: Callable[[int], None]
) -> Verdict:
    broken = {LABEL} - _readable_label(cartridge)
    journal = _listed(broken, JOURNAL, lambda: {x.archive: x.sha256 for x in cartridge.journal()})
    sums = _listed(broken, SUMS, cartridge.sums)
    elsewhere = {name for name in sums if name.startswith("archives/")} - journal.keys()
    if known.keys() - journal.keys() or (elsewhere and journal.keys() - sums.keys()):
        broken.add(JOURNAL)  # it lacks one, or has one under another name
    if _is_cut(cartridge, journal, sums) or not all(map(_is_ours, sums)):
        broken.add(SUMS)
    expected = {**judged(journal, sums), **journal, **known}
    expected = {name: digest for name, digest in expected.items() if name not in broken}
    verdict = read_back(cartridge, expected, seen)
    damaged = {*verdict.damaged}
    for name in journal.keys() & sums.keys():
        right = _right(cartridge, name, [expected[name], journal[name], sums[name]], damaged)
        broken |= {JOURNAL} if right and journal[name] != right else set()
        broken |= {SUMS} if right and sums[name] != right else set()
        damaged -= {name} if right else set()
    return Verdict(verdict.archives, verdict.bytes, sorted(damaged | broken))


def _readable_label(cartridge: Cartridge) -> set[str]:
    try:
        Cartridge.open(cartridge.path)
    except (CartridgeError, OSError):
        return set()
    return {LABEL}


def _listed(broken: set[str], name: str, read: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Read a list; one that cannot be read is broken, and says nothing."""
    try:
        return read()
    except (CartridgeError, OSError):
        broken.add(name)
        return {}


def _is_ours(name: str) -> bool:
    """Whether a seal lists a file of this name; a flipped bit makes it another's."""
    return name in _LISTED or name.startswith(_FOLDERS)


def _is_cut(cartridge: Cartridge, journal: Mapping[str, str], sums: Mapping[str, str]) -> bool:
    """Whether SHA256SUMS lacks what every seal puts there.

    A run that is not finished leaves its own archives, the newest, out of it; nothing else.
    """
    ours = {n for n, _ in cartridge.files() if n in _LISTED or n.startswith("catalog/")}
    if not any(name.startswith("catalog/") for name in ours):
        return False  # it was never sealed
    missing = journal.keys() - sums.keys()
    if not missing:
        return not {n for n in ours if not n.endswith(durable.DRAFT)} <= sums.keys()
    newest = max(name.split("/")[1] for name in journal)
    return not sums.keys() >= {LABEL, JOURNAL} or any(n.split("/")[1] != newest for n in missing)


def _right(cartridge: Cartridge, name: str, candidates: list[str], damaged: set[str]) -> str | None:
    """Return which of several digests a file has, None where it has none of them."""
    if name not in damaged:
        return candidates[0]
    for digest in {*candidates[1:]} - {candidates[0]}:
        if _digest(cartridge.file(name), lambda count: None)[0] == digest:
            return digest
    return None


def read_back(
    cartridge: Cartridge, sums: Mapping[str, str], seen: Callable[[int], None]
) -> Verdict:
    """Hash the named files as the medium has them, and compare; `seen` counts bytes read."""
    names = sorted(sums)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _digest(cartridge.file(name), seen), names))
    damaged = [name for name, (digest, _) in zip(names, found, strict=True) if digest != sums[name]]
    archives = sum(name.startswith("archives/") for name in names)
    return Verdict(archives, sum(size for _, size in found), damaged)


def _digest(path: str, seen: Callable[[int], None]) -> tuple[str, int]:
    """Return a file's SHA-256 and size; no digest at all where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return "", 0
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "", 0
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := os.read(fd, _PIECE):
            digest.update(piece)
            size += len(piece)
            seen(len(piece))
    except OSError:
        return "", size
    finally:
        os.close(fd)
    return digest.hexdigest(), size


def drop_cached(path: str) -> None:
    """Forget what memory has of a file on a cartridge, so that the medium is read next.

    One that cannot be opened is left to whoever reads it.
    """
    with contextlib.suppress(OSError, FormatDamaged), open_untrusted(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_out(source: str, target: str) -> str:
    """Copy a file off a cartridge; return its SHA-256 as the medium has it.

    Raises FileNotFoundError, and FormatDamaged where it cannot be read or is no file of ours; other
    errors of the operating system are those of the target.
    """
    digest, size = hashlib.sha256(), 0
    with open_untrusted(source) as reader, open(target, "wb") as writer:
        for piece in _pieces(reader, source):
            size += len(piece)
            if size > _LARGEST_FILE:
                raise FormatDamaged(file=source, reason="it is larger than any file of ours")
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def open_untrusted(path: str) -> io.FileIO:
    """Open a regular file that no link leads to; FormatDamaged for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatDamaged(file=path, reason=error.strerror or error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatDamaged(file=path, reason="it is no regular file")
    return io.FileIO(fd)


def _pieces(file: io.FileIO, path: str) -> Iterator[bytes]:
    """Read a file to its end; what cannot be read is damage."""
    try:
        while piece := file.read(_PIECE):
            yield piece
    except OSError as error:
        raise FormatDamaged(file=path, reason=error.strerror or error) from error
