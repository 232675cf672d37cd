"""Which files of a snapshot lie in a destination already, byte for byte."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tasks.catalog.metadata import facts_of
from tasks.media.destination import Destination
from tasks.media.metadata import Facts, has_attributes
from tasks.media.processes import in_processes

_CHUNK = 256


@dataclass(slots=True)
class Present:
    """The rows whose content is there; `freed` is what the others' old files take, in bytes.

    `not_kept` has the rows whose metadata the place could not keep, by kind; `linked` tells of the
    rows whose files have other names which file that is.
    """

    rows: set[int] = field(default_factory=set)
    freed: int = 0
    linked: dict[int, tuple[int, int]] = field(default_factory=dict)
    not_kept: dict[str, list[int]] = field(default_factory=dict)


def find_present(
    place: Destination,
    rows: pa.Table,
    paths: Sequence[bytes],
    there: Mapping[bytes, frozenset[bytes]],
    workers: int,
) -> Present:
    """Read the files that are there under the names of rows, and give those that are right their
    metadata.

    `paths` are those of the rows, `there` has the names in the folders that were there before.
    """
    found = Present()
    if not there:
        return found
    numbers = [number for number, path in enumerate(paths) if is_there(path, there)]
    files = rows.take(pa.array(numbers, pa.int64()))
    kinds = files.column("type").cast(pa.string()).to_pylist()
    numbers = [number for number, kind in zip(numbers, kinds, strict=True) if kind == "file"]
    chunks = [numbers[i : i + _CHUNK] for i in range(0, len(numbers), _CHUNK)]
    jobs = [functools.partial(_look, place, rows, paths, chunk) for chunk in chunks]
    for part in in_processes(jobs, workers):
        found.rows |= part.rows
        found.freed += part.freed
        found.linked |= part.linked
        for kind, noted in part.not_kept.items():
            found.not_kept.setdefault(kind, []).extend(noted)
    found.rows -= _second_names(found.linked)
    return found


def _second_names(linked: Mapping[int, tuple[int, int]]) -> set[int]:
    """Return the rows whose file is that of a row before: in the snapshot, they are two files."""
    firsts: dict[tuple[int, int], int] = {}
    return {row for row, file in sorted(linked.items()) if firsts.setdefault(file, row) != row}


def is_there(path: bytes, there: Mapping[bytes, frozenset[bytes]]) -> bool:
    """Whether an entry was there before, by the names in the folders that were."""
    folder, _, name = path.rpartition(b"/")
    return name in there.get(folder, ())


def _look(place: Destination, rows: pa.Table, paths: Sequence[bytes], chunk: list[int]) -> Present:
    """Look at some files; runs in a process of its own."""
    place.forget_parent()
    found = Present()
    mine = rows.take(pa.array(chunk, pa.int64()))
    sizes, digests = mine.column("size").to_pylist(), mine.column("sha256").to_pylist()
    for number, size, digest, facts in zip(chunk, sizes, digests, facts_of(mine), strict=True):
        fd = place.open_file(paths[number])
        if fd is None:
            continue
        try:
            status = os.fstat(fd)
            is_right = status.st_size == size and _digest(fd) == digest
            if is_right and (status.st_nlink == 1 or _is_settled(fd, status, facts)):
                found.rows.add(number)
                if status.st_nlink == 1:
                    place.settle(fd, facts)
                else:
                    found.linked[number] = status.st_dev, status.st_ino
                for kind in place.take_not_kept():
                    found.not_kept.setdefault(kind, []).append(number)
            elif status.st_nlink == 1:
                found.freed += status.st_blocks * 512
        finally:
            os.close(fd)
    return found


def _is_settled(fd: int, status: os.stat_result, facts: Facts) -> bool:
    """Whether a file that has names elsewhere has the right metadata: it would change there too."""
    found = status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_mtime_ns
    wanted = facts.uid, facts.gid, facts.mode, facts.mtime_ns
    return found == wanted and has_attributes(fd, facts)


def _digest(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
