"""Restore: bring entries of a snapshot back, checking every byte on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.catalog.selection import Selected, table_keys, words_of
from tasks.formats.archive import ContentReader
from tasks.formats.manifest import attribute_name, integers, named_attributes
from tasks.media.cartridge import Cartridge
from tasks.media.destination import Destination, Draft, Facts, UnsafePathError
from tasks.media.processes import in_processes
from tasks.model.errors import DestinationUnusable, FormatDamaged
from tasks.model.words import SourceRoot


@dataclass(slots=True)
class Restored:
    """What a restore did: counts, bytes, and what could not be brought back."""

    files: int = 0
    bytes: int = 0
    cartridges: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_kept: Counter[str] = field(default_factory=Counter)


# Gives a cartridge that is present, or None where it is not to be had.
Fetch = Callable[[int], Cartridge | None]


def restore(
    selected: Selected, roots: list[SourceRoot], folder: str, fetch: Fetch, workers: int
) -> Restored:
    """Restore the selected rows below `folder`, cartridge by cartridge.

    Files that lie on a cartridge which `fetch` does not give are listed as missing, files whose
    bytes are not what was stored as damaged; neither appears. Raises DestinationUnusable.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        place = Destination(os.fsencode(os.path.abspath(folder)))
        return _Restoring(selected, roots, place, workers).run(fetch)
    except UnsafePathError as error:
        name = f"the catalog has the unsafe name {error}"
        raise DestinationUnusable(path=folder, reason=name) from error
    except OSError as error:
        raise DestinationUnusable(path=folder, reason=error.strerror or error) from error


class _Restoring:
    """One restore: folders, then contents, then what refers to them, then the folders' times."""

    def __init__(
        self, selected: Selected, roots: list[SourceRoot], place: Destination, workers: int
    ) -> None:
        self._selected = selected
        self._roots = {root.source: root for root in roots}
        self._place = place
        self._workers = workers
        self._rows = selected.rows
        self._keys = table_keys(selected.rows)
        self._kinds = np.array(words_of(selected.rows, "type"), dtype=object)
        self._result = Restored()
        self._bad: set[int] = set()
        self._absent: set[int] = set()
        self._sizes = selected.rows.column("size").to_numpy()

    def run(self, fetch: Fetch) -> Restored:
        try:
            return self._run(fetch)
        except BaseException:
            self._sweep()
            raise

    def _sweep(self) -> None:
        """Leave no drafts where a restore was stopped."""
        self._place.forget_parent()
        for row in np.flatnonzero(self._kinds == "dir"):
            with contextlib.suppress(OSError):
                self._place.sweep(self._keys[row])
        for source in set(words_of(self._rows, "source")):
            with contextlib.suppress(OSError):
                self._place.sweep(source.encode())

    def _run(self, fetch: Fetch) -> Restored:
        self._make_folders()
        self._place.forget_parent()
        for serial, archives in sorted(self._selected.by_cartridge().items()):
            self._from_cartridge(serial, archives, fetch)
        self._finish_files()
        self._make_others()
        self._settle_folders()
        os.sync()
        result = self._result
        result.not_kept += self._place.not_kept
        result.damaged = self._shown(self._bad)
        result.missing = self._shown(self._absent - self._bad)
        return result

    def _shown(self, rows: set[int]) -> list[str]:
        return [self._keys[row].decode("utf-8", "replace") for row in sorted(rows)]

    def _make_folders(self) -> None:
        for source in sorted(set(words_of(self._rows, "source")) or self._roots):
            self._place.make_folder(source.encode())
        for row in np.flatnonzero(self._kinds == "dir"):
            self._place.make_folder(self._keys[row])

    def _from_cartridge(self, serial: int, archives: list[int], fetch: Fetch) -> None:
        """Restore all contents that one cartridge has."""
        needs = self._selected.needs
        cartridge = fetch(serial)
        if cartridge is None:
            self._absent.update(needs["row"][np.isin(needs["archive"], archives)].tolist())
            return
        self._result.cartridges.append(serial)
        jobs = [partial(self._from_archive, cartridge.path, number) for number in archives]
        for done in in_processes(jobs, self._workers):
            self._result.files += done.files
            self._result.bytes += done.bytes
            self._result.not_kept += done.not_kept
            self._bad.update(done.damaged)

    def _from_archive(self, cartridge: str, number: int) -> _Done:
        """Restore what one archive has; runs in a process of its own."""
        needs = self._selected.needs
        self._place.forget_parent()
        low, high = np.searchsorted(needs["archive"], [number, number + 1])
        mine = needs[low:high]
        done = _Done()
        name = self._selected.archives[number]
        facts = facts_of(self._rows.take(pa.array(mine["row"])))
        try:
            file = _open_archive(os.path.join(cartridge, name))
        except OSError:
            done.damaged.update(mine["row"].tolist())
            return done
        with file:
            reader = ContentReader(file, name)
            for need, entry in zip(mine, facts, strict=True):
                self._one_content(need, entry, reader, done)
        done.not_kept = self._place.not_kept
        return done

    def _one_content(self, need: Any, entry: Facts, reader: ContentReader, done: _Done) -> None:
        row, length = int(need["row"]), int(need["length"])
        whole = length == self._sizes[row]
        digest = hashlib.sha256()
        try:
            pieces = _hashed(reader.read(int(need["frame"]), int(need["skip"]), length), digest)
            if not whole:
                self._write_part(row, int(need["offset"]), pieces)
                if digest.digest() != _sha256(need):
                    done.damaged.add(row)
                return
            draft = self._place.write_file(self._keys[row], pieces)
        except FormatDamaged:
            done.damaged.add(row)
            return
        if digest.digest() != _sha256(need):
            draft.discard()
            done.damaged.add(row)
            return
        draft.publish(entry)
        done.files += 1
        done.bytes += length

    def _write_part(self, row: int, offset: int, pieces: Iterator[memoryview]) -> None:
        """Write one stretch of a file that is put together from several archives."""
        fd = self._place.open_shared(self._keys[row], row)
        try:
            for piece in pieces:
                os.pwrite(fd, piece, offset)
                offset += len(piece)
        finally:
            os.close(fd)

    def _finish_files(self) -> None:
        """Publish the files that were put together, and make the empty ones."""
        needs = self._selected.needs
        whole = needs["row"][needs["length"] == self._sizes[needs["row"]]]
        left = np.setdiff1d(np.flatnonzero(self._kinds == "file"), whole)
        facts = facts_of(self._rows.take(pa.array(left)))
        for row, entry in zip(left.tolist(), facts, strict=True):
            if row in self._bad or row in self._absent:
                self._place.drop_shared(self._keys[row], row)
                continue
            size = int(self._sizes[row])
            draft: Draft = self._place.shared_draft(self._keys[row], row)
            os.ftruncate(draft.fd, size)
            draft.publish(entry)
            self._result.files += 1
            self._result.bytes += size

    def _make_others(self) -> None:
        """Make links, fifos and devices; hard links last, when what they name is there."""
        others = np.flatnonzero(np.isin(self._kinds, ["symlink", "fifo", "char", "block"]))
        rows = self._rows.take(pa.array(others))
        targets, devices = (rows.column(n).to_pylist() for n in ("link_target", "rdev"))
        for i, (row, entry) in enumerate(zip(others.tolist(), facts_of(rows), strict=True)):
            key, kind = self._keys[row], self._kinds[row]
            if kind == "symlink":
                self._place.make_symlink(key, targets[i], entry)
            else:
                self._place.make_special(key, kind, devices[i] or 0, entry)
        self._make_hardlinks()

    def _make_hardlinks(self) -> None:
        links = np.flatnonzero(self._kinds == "hardlink")
        rows = self._rows.take(pa.array(links))
        bad = {self._keys[row] for row in self._bad}
        absent = {self._keys[row] for row in self._absent}
        sources, targets = words_of(rows, "source"), rows.column("link_target").to_pylist()
        for row, source, target in zip(links.tolist(), sources, targets, strict=True):
            first = source.encode() + b"/" + target
            if first in bad:
                self._bad.add(row)
            elif first in absent:
                self._absent.add(row)
            elif not self._place.make_hardlink(self._keys[row], first):
                self._bad.add(row)

    def _settle_folders(self) -> None:
        """Give folders their metadata from the innermost out: writing into them is over."""
        folders = np.flatnonzero(self._kinds == "dir")
        facts = list(facts_of(self._rows.take(pa.array(folders))))
        for row, entry in zip(folders[::-1].tolist(), facts[::-1], strict=True):
            self._place.settle_folder(self._keys[row], entry)
        for source in sorted(set(words_of(self._rows, "source")) or self._roots):
            root = self._roots.get(source)
            if root is not None:
                self._place.settle_folder(source.encode(), _root_facts(root))


@dataclass(slots=True)
class _Done:
    """What came of one archive."""

    files: int = 0
    bytes: int = 0
    damaged: set[int] = field(default_factory=set)
    not_kept: Counter[str] = field(default_factory=Counter)


def _open_archive(path: str) -> io.FileIO:
    """Open an archive for reading: nothing but a regular file, by no link."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return io.FileIO(fd)


def is_right(path: str, need: Any) -> bool:
    """Whether an archive still has a stretch of content as it was written."""
    digest = hashlib.sha256()
    try:
        with _open_archive(path) as file:
            place = int(need["frame"]), int(need["skip"]), int(need["length"])
            for piece in ContentReader(file, path).read(*place):
                digest.update(piece)
    except (OSError, FormatDamaged):
        return False
    return digest.digest() == _sha256(need)


def facts_of(rows: pa.Table) -> Iterator[Facts]:
    """Yield the metadata of rows."""
    names = ("mode", "uid", "gid")
    mode, uid, gid = (rows.column(name).to_pylist() for name in names)
    times = [t for chunk in rows.column("mtime").chunks for t in integers(chunk).tolist()]
    xattrs = rows.column("xattrs")
    plain = xattrs.null_count == len(xattrs)
    pairs = itertools.repeat(None) if plain else map(named_attributes, xattrs.to_pylist())
    for i, attributes in zip(range(rows.num_rows), pairs, strict=False):
        yield Facts(
            mode=mode[i], uid=uid[i], gid=gid[i], mtime_ns=times[i], xattrs=attributes or []
        )


def _root_facts(root: SourceRoot) -> Facts:
    xattrs = [(attribute_name(k), bytes.fromhex(value)) for k, value in root.xattrs.items()]
    return Facts(mode=root.mode, uid=root.uid, gid=root.gid, mtime_ns=root.mtime_ns, xattrs=xattrs)


def _hashed(pieces: Iterator[memoryview], digest: Any) -> Iterator[memoryview]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _sha256(need: Any) -> bytes:
    """Return the digest; numpy's fixed strings lose their trailing zero bytes."""
    return bytes(need["sha256"]).ljust(32, b"\0")
