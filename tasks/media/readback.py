"""Reading back what was written, from the medium and not from the page cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tasks.media import layout
from tasks.media.cartridge import Cartridge
from tasks.media.hashing import digests_on_medium
from tasks.media.layout import JOURNAL, LABEL, SUMS
from tasks.media.processes import beside
from tasks.model.errors import CartridgeError

# How often a cartridge is read that changes while it is read.
_LOOKS = 3


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
    # A flipped bit makes a name another's.
    if _is_cut(cartridge, journal, sums) or not all(map(layout.is_listed, sums)):
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


def _is_cut(cartridge: Cartridge, journal: Mapping[str, str], sums: Mapping[str, str]) -> bool:
    """Whether SHA256SUMS lacks what every seal puts there.

    A run that is not finished leaves its own archives, the newest, out of it; nothing else.
    """
    listed = filter(layout.is_listed, (name for name, _ in cartridge.files()))
    ours = {name for name in listed if not name.startswith("archives/")}
    if not any(name.startswith("catalog/") for name in ours):
        return False  # it was never sealed
    missing = journal.keys() - sums.keys()
    if not missing:
        return not ours <= sums.keys()
    newest = max(name.split("/")[1] for name in journal)
    return not sums.keys() >= {LABEL, JOURNAL} or any(n.split("/")[1] != newest for n in missing)


def _right(cartridge: Cartridge, name: str, candidates: list[str], damaged: set[str]) -> str | None:
    """Return which of several digests a file has, None where it has none of them."""
    if name not in damaged:
        return candidates[0]
    [(digest, _)] = digests_on_medium([cartridge.file(name)], lambda count: None)
    return digest if digest in candidates[1:] else None


def read_back(
    cartridge: Cartridge, sums: Mapping[str, str], seen: Callable[[int], None]
) -> Verdict:
    """Hash the named files as the medium has them, and compare; `seen` counts bytes read."""
    names = sorted(sums)
    found = list(digests_on_medium((cartridge.file(name) for name in names), seen))
    damaged = [name for name, (digest, _) in zip(names, found, strict=True) if digest != sums[name]]
    archives = sum(name.startswith("archives/") for name in names)
    return Verdict(archives, sum(size for _, size in found), damaged)


@contextlib.contextmanager
def reading_ahead(cartridge: Cartridge, sums: Mapping[str, str]) -> Iterator[list[tuple[str, int]]]:
    """Read files back for as long as the block lasts, which must not write to the cartridge.

    Afterwards the list names those that the medium has as they should be, and when each was written
    to last. What is damaged, or was not reached, it does not name: somebody else is to read that,
    and to say so.
    """
    names = list(sums)

    def read(tell: Callable[[tuple[str, int]], None]) -> None:
        times = [written_at(cartridge, name) for name in names]
        found = digests_on_medium((cartridge.file(name) for name in names), lambda count: None)
        for name, time, (digest, _) in zip(names, times, found, strict=True):
            if digest == sums[name]:
                tell((name, time))

    with beside(read) as done:
        yield done


def written_at(cartridge: Cartridge, name: str) -> int:
    """Return when a file was written to last, in nanoseconds since 1970; -1 where there is none."""
    try:
        return os.lstat(cartridge.file(name)).st_mtime_ns
    except OSError:
        return -1
