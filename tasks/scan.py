"""Scan: walk a source and leave its entries as manifest rows, in path order."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import luigi
import numpy as np
import pyarrow as pa

from tasks._base import Stage
from tasks.catalog.progress import ignore
from tasks.catalog.runs import Run
from tasks.formats.manifest import SCHEMA, WORD, XATTRS, TableWriter, attribute_key, moments
from tasks.media import durable
from tasks.media.source import Found, Walk, root_xattrs
from tasks.model.errors import SourceMissing, SourceNotMounted
from tasks.model.profile import Source
from tasks.model.words import ScanSummary, SourceRoot, Trouble

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_INT64 = np.iinfo(np.int64)


class ScanSource(Stage):
    """One source of a run."""

    source = luigi.Parameter()

    @property
    def result(self) -> str:
        """The rows of the source; the footer has the summary."""
        return os.path.join("scan", f"{self.source}.parquet")

    def work(self) -> None:
        """Walk the source."""
        request = self.run_folder.request
        source = next(s for s in request.profile.source if s.name == self.source)
        meter = self.meter(_expected(self.run_folder, self.source), "entries")
        scan(source, request.workspace, self.output().path, meter.add)
        meter.report()


def _expected(run: Run, source: str) -> int:
    """Return how many entries the source had the last time, 0 where nobody knows."""
    previous = run.request.previous
    roots = run.store.info(previous).roots if previous else []
    return sum(root.entries for root in roots if root.source == source)


def scan(
    source: Source, workspace: str, path: str, seen: Callable[[int], None] = ignore
) -> ScanSummary:
    """Write the rows of one source to `path`.

    Raises SourceMissing and SourceNotMounted. What cannot be read below it is in the summary.
    """
    root = os.fsencode(source_path(source, workspace))
    walk = _open(source, root, workspace)
    rows = _Rows(source.name)
    with durable.replacing(path) as draft, TableWriter(draft, SCHEMA) as writer:
        for found in walk.entries():
            if found.paths:
                seen(len(found.paths))
                writer.write(rows.batch(found))
        require_root(source.name, root, walk.facts.st_ino)
        summary = _summary(source, root, walk, rows)
        writer.close(summary)
    return summary


def require_root(source: str, root: bytes, inode: int) -> None:
    """Raise SourceMissing where a source is gone, or something else lies in its place.

    A disk that was pulled leaves an empty mount point: that is not a folder without files.
    """
    shown = os.fsdecode(root)
    try:
        now = os.stat(root).st_ino
    except OSError as error:
        raise SourceMissing(source=source, path=shown, reason=error.strerror) from error
    if now != inode:
        reason = "it was taken away while it was read"
        raise SourceMissing(source=source, path=shown, reason=reason)


def source_path(source: Source, workspace: str) -> str:
    """Return where a source lies; a relative path starts in the workspace."""
    return os.path.join(workspace, os.path.expanduser(source.path))


def _open(source: Source, root: bytes, workspace: str) -> Walk:
    shown = os.fsdecode(root)
    state = os.path.join(workspace, "state")
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        with os.scandir(root):
            pass
        own = [(facts.st_dev, facts.st_ino) for facts in [os.stat(state)]]
        walk = Walk(source, root, own)
    except OSError as error:
        raise SourceMissing(source=source.name, path=shown, reason=error.strerror) from error
    if source.must_be_mount and not os.path.ismount(root):
        raise SourceNotMounted(source=source.name, path=shown)
    return walk


class _Rows:
    """Turn entries into manifest columns; remembers hard links from one batch to the next."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._links: dict[tuple[int, int], bytes] = {}
        self.clamped = 0
        self.entries = 0
        self.files = 0
        self.bytes = 0

    def batch(self, found: Found) -> pa.RecordBatch:
        """Build the rows of some thousand entries."""
        stats, count = found.stats, len(found.stats)
        kinds, targets = self._kinds(found)
        sizes = [s.st_size if k in _SIZED else 0 for s, k in zip(stats, kinds, strict=True)]
        path, raw_path = _names(found.paths)
        uids = [s.st_uid for s in stats]
        gids = [s.st_gid for s in stats]
        columns = {
            "source": _constant(self._source, count),
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
            "link_target": pa.array(targets, pa.binary()),
            "rdev": _devices(stats, kinds),
            "xattrs": _xattrs(found.xattrs),
            "sha256": pa.nulls(count, SCHEMA.field("sha256").type),
            "parts": pa.nulls(count, SCHEMA.field("parts").type),
        }
        self._count(kinds, sizes)
        return pa.record_batch([columns[f.name] for f in SCHEMA], schema=SCHEMA)

    def _count(self, kinds: list[str], sizes: list[int]) -> None:
        self.entries += len(kinds)
        self.files += kinds.count("file")
        self.bytes += sum(s for s, k in zip(sizes, kinds, strict=True) if k == "file")

    def _kinds(self, found: Found) -> tuple[list[str], list[bytes | None]]:
        """Name the types; further names of anything but a folder are hard links to its first."""
        targets = found.targets
        kinds = [_KINDS[s.st_mode & 0o170000] for s in found.stats]
        for i, facts in enumerate(found.stats):
            if facts.st_nlink > 1 and kinds[i] != "dir":
                first = self._links.setdefault((facts.st_dev, facts.st_ino), found.paths[i])
                if first is not found.paths[i]:
                    kinds[i], targets[i] = "hardlink", first
        return kinds, targets

    def _moments(self, nanoseconds: list[int]) -> pa.Array:
        try:
            return moments(np.array(nanoseconds, np.int64))
        except OverflowError:
            clamped = [min(max(n, _INT64.min + 1), _INT64.max) for n in nanoseconds]
            self.clamped += sum(a != b for a, b in zip(nanoseconds, clamped, strict=True))
            return moments(np.array(clamped, np.int64))


_SIZED = {"file", "hardlink", "symlink"}


def _names(paths: list[bytes]) -> tuple[pa.Array, pa.Array]:
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


def _owner_names(numbers: list[int], name: Any) -> pa.Array:
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


def _summary(source: Source, root: bytes, walk: Walk, rows: _Rows) -> ScanSummary:
    facts = walk.facts
    return ScanSummary(
        root=SourceRoot(
            source=source.name,
            mode=facts.st_mode & 0o7777,
            uid=facts.st_uid,
            gid=facts.st_gid,
            mtime_ns=facts.st_mtime_ns,
            xattrs={attribute_key(name): value.hex() for name, value in root_xattrs(root)},
            entries=rows.entries,
            files=rows.files,
        ),
        bytes=rows.bytes,
        troubles=[_trouble(source.name, u.path, u.reason) for u in walk.unread],
        unread=[(source.name.encode() + b"/" + u.path).hex() for u in walk.unread],
        sockets=[_trouble(source.name, path, "").path for path in walk.sockets],
        clamped=rows.clamped,
        root_inode=facts.st_ino,
    )


def _trouble(source: str, path: bytes, reason: str) -> Trouble:
    return Trouble(path=f"{source}/{path.decode('utf-8', 'replace')}", reason=reason)
