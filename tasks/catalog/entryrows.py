"""What a walk has found, as manifest rows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.manifest import (
    SCHEMA,
    WORD,
    XATTRS,
    attribute_key,
    integers,
    moments,
    raw_paths,
    words,
)
from tasks.media.source import Found

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_SIZED = {"file", "symlink"}
_INT64 = np.iinfo(np.int64)


@dataclass(slots=True)
class EntryRows:
    """Turns the entries of one source into rows; `clamped` counts the times out of range."""

    source: str
    clamped: int = 0

    def batch(self, found: Found) -> pa.RecordBatch:
        """Build the rows of some thousand entries; names of one file are all files here."""
        stats, count = found.stats, len(found.stats)
        kinds = [_KINDS[s.st_mode & 0o170000] for s in stats]
        sizes = [s.st_size if k in _SIZED else 0 for s, k in zip(stats, kinds, strict=True)]
        path, raw_path = _names(found.paths)
        uids = [s.st_uid for s in stats]
        gids = [s.st_gid for s in stats]
        columns = {
            "source": _constant(self.source, count),
            "path": path,
            "raw_path": raw_path,
            "type": pa.array(kinds, pa.string()).dictionary_encode(),
            "size": pa.array(sizes, pa.int64()),
            "mtime": self._moments([s.st_mtime_ns for s in stats]),
            "ctime": self._moments([s.st_ctime_ns for s in stats]),
            "mode": pa.array([s.st_mode & 0o7777 for s in stats], pa.uint32()),
            "uid": pa.array(uids, pa.uint32()),
            "gid": pa.array(gids, pa.uint32()),
            "user": _owner_names(uids, user_name),
            "group": _owner_names(gids, group_name),
            "inode": pa.array([s.st_ino for s in stats], pa.uint64()),
            "dev": pa.array([s.st_dev for s in stats], pa.uint64()),
            "nlink": pa.array([s.st_nlink for s in stats], pa.uint32()),
            "link_target": pa.array(found.targets, pa.binary()),
            "rdev": _devices(stats, kinds),
            "xattrs": _xattrs(found.xattrs),
            "sha256": pa.nulls(count, SCHEMA.field("sha256").type),
            "parts": pa.nulls(count, SCHEMA.field("parts").type),
        }
        return pa.record_batch([columns[f.name] for f in SCHEMA], schema=SCHEMA)

    def _moments(self, nanoseconds: list[int]) -> pa.Array:
        try:
            return moments(np.array(nanoseconds, np.int64))
        except OverflowError:
            clamped = [min(max(n, _INT64.min + 1), _INT64.max) for n in nanoseconds]
            self.clamped += sum(a != b for a, b in zip(nanoseconds, clamped, strict=True))
            return moments(np.array(clamped, np.int64))


@dataclass(slots=True)
class HardLinks:
    """Knows which files already had a name; batches have to come in manifest order."""

    _first: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def told_apart(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows, further names of anything but a folder being links to the first."""
        is_folder = pc.equal(words(batch.column("type")), "dir").to_numpy(zero_copy_only=False)
        several = np.flatnonzero((integers(batch.column("nlink")) > 1) & ~is_folder)
        if not len(several):
            return batch
        kinds = words(batch.column("type")).to_pylist()  # decoded, or each takes microseconds
        targets = batch.column("link_target").to_pylist()
        rows = batch.take(pa.array(several))
        names = (rows.column("dev"), rows.column("inode"), raw_paths(rows))
        for i, *inode, path in zip(several.tolist(), *(n.to_pylist() for n in names), strict=True):
            if self._first.setdefault(tuple(inode), path) != path:
                kinds[i], targets[i] = "hardlink", self._first[tuple(inode)]
        columns = dict(zip(SCHEMA.names, batch.columns, strict=True))
        columns["type"] = pa.array(kinds, pa.string()).dictionary_encode()
        columns["link_target"] = pa.array(targets, pa.binary())
        return pa.record_batch(list(columns.values()), schema=SCHEMA)


def _names(paths: Sequence[bytes]) -> tuple[pa.Array, pa.Array]:
    """Return the shown and, where it differs, the exact path of every entry."""
    raw = pa.array(paths, pa.binary())
    try:
        return raw.cast(pa.string()), pa.nulls(len(paths), pa.binary())
    except pa.ArrowInvalid:
        shown = [path.decode("utf-8", "replace") for path in paths]
        exact = [
            None if text.encode() == path else path for path, text in zip(paths, shown, strict=True)
        ]
        return pa.array(shown, pa.string()), pa.array(exact, pa.binary())


def _constant(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([text]))


def _owner_names(numbers: list[int], name: Callable[[int], str]) -> pa.Array:
    values, codes = np.unique(np.array(numbers, np.int64), return_inverse=True)
    names = pa.array([name(int(number)) for number in values], pa.string())
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), names).cast(WORD)


@cache
def user_name(uid: int) -> str:
    """Return a user's name, "" where the system knows none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@cache
def group_name(gid: int) -> str:
    """Return a group's name, "" where the system knows none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _devices(stats: Sequence[os.stat_result], kinds: list[str]) -> pa.Array:
    if "char" not in kinds and "block" not in kinds:
        return pa.nulls(len(stats), pa.uint64())
    numbers = [
        s.st_rdev if k in ("char", "block") else None for s, k in zip(stats, kinds, strict=True)
    ]
    return pa.array(numbers, pa.uint64())


def _xattrs(xattrs: Iterable[Any]) -> pa.Array:
    rows = list(xattrs)
    if not any(rows):
        return pa.nulls(len(rows), XATTRS)
    named = [row and [(attribute_key(name), value) for name, value in row] for row in rows]
    return pa.array(named, XATTRS)
