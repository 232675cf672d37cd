"""Scan: walk a source and leave its entries as manifest rows, in path order."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from tempfile import TemporaryFile
from typing import IO

import luigi
import pyarrow as pa
import pyarrow.compute as pc

from tasks._base import Stage
from tasks.catalog.entryrows import EntryRows, HardLinks
from tasks.catalog.progress import ignore
from tasks.catalog.request import Request
from tasks.catalog.runs import Run
from tasks.formats.manifest import SCHEMA, TableWriter, attribute_key, words
from tasks.media import durable
from tasks.media.processes import in_processes
from tasks.media.source import Child, Unread, Walk, root_xattrs
from tasks.model.errors import SourceMissing, SourceNotMounted
from tasks.model.profile import Source
from tasks.model.words import ScanSummary, SourceRoot, Trouble

# The tree is listed until it has so many folders to go into, or so many entries are known.
_PIECES = 64
_OUTLINE = 1 << 14


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
        scan(source, request.workspace, self.output().path, meter.add, self.here.workers)
        meter.report()


def _expected(run: Run, source: str) -> int:
    """Return how many entries the source had the last time, 0 where nobody knows."""
    previous = run.request.previous
    roots = run.store.info(previous).roots if previous else []
    return sum(root.entries for root in roots if root.source == source)


def scan(
    source: Source,
    workspace: str,
    path: str,
    seen: Callable[[int], None] = ignore,
    workers: int = 1,
) -> ScanSummary:
    """Write the rows of one source to `path`; `workers` processes walk at a time.

    Raises SourceMissing and SourceNotMounted. What cannot be read below it is in the summary.
    """
    root = os.fsencode(source_path(source, workspace))
    walk = _open(source, root, workspace)
    pieces = _pieces(walk.outline(_PIECES, _OUTLINE))
    links, totals, folder = HardLinks(), _Totals(), os.path.dirname(path)
    with contextlib.ExitStack() as stack:
        spools = [stack.enter_context(TemporaryFile(dir=folder)) for _ in pieces]
        jobs = [
            partial(_walk, walk, source.name, *each) for each in zip(pieces, spools, strict=True)
        ]
        draft = stack.enter_context(durable.replacing(path))
        writer = stack.enter_context(TableWriter(draft, SCHEMA))
        for found, spool in zip(in_processes(jobs, workers), spools, strict=True):
            walk.unread += found.unread
            walk.sockets += found.sockets
            totals.clamped += found.clamped
            for batch in _spooled(spool):
                rows = links.told_apart(batch)
                totals.add(rows)
                writer.write(rows)
                seen(rows.num_rows)
            spool.close()
        require_root(source.name, root, walk.facts.st_ino)
        summary = _summary(source, root, walk, totals)
        writer.close(summary)
    return summary


@dataclass(slots=True)
class _Totals:
    """What the rows of a source come to; `bytes` are those of its files."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    clamped: int = 0

    def add(self, rows: pa.RecordBatch) -> None:
        is_file = pc.equal(words(rows.column("type")), "file")
        self.entries += rows.num_rows
        self.files += is_file.true_count
        self.bytes += pc.sum(rows.column("size").filter(is_file)).as_py() or 0


@dataclass(frozen=True, slots=True)
class _Walked:
    """What came of a piece of the walk besides its rows."""

    unread: list[Unread]
    sockets: list[bytes]
    clamped: int


def _pieces(outline: list[Child]) -> list[list[Child]]:
    """Cut an outline into stretches with about as many folders to go into each."""
    share = 1 + sum(child[-1] for child in outline) // _PIECES
    folders = itertools.accumulate(child[-1] for child in outline)
    numbered = zip((count // share for count in folders), outline, strict=True)
    return [
        [child for _, child in piece] for _, piece in itertools.groupby(numbered, itemgetter(0))
    ]


def _walk(walk: Walk, source: str, outline: list[Child], spool: IO[bytes]) -> _Walked:
    """Go on from an outline, and leave the rows in the spool; runs in a process of its own."""
    branch, rows = walk.branch(), EntryRows(source)
    with pa.ipc.new_stream(spool, SCHEMA) as stream:
        for found in branch.entries(outline):
            stream.write_batch(rows.batch(found))
    spool.flush()
    return _Walked(branch.unread, branch.sockets, rows.clamped)


def _spooled(spool: IO[bytes]) -> Iterator[pa.RecordBatch]:
    spool.seek(0)
    with pa.ipc.open_stream(spool) as stream:
        yield from stream


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


def source_paths(request: Request) -> dict[str, str]:
    """Return where each source of a run lies, by name."""
    return {s.name: source_path(s, request.workspace) for s in request.profile.source}


def _open(source: Source, root: bytes, workspace: str) -> Walk:
    shown = os.fsdecode(root)
    state = os.path.join(workspace, "state")
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        with os.scandir(root):
            pass
        there = [state] if os.path.isdir(state) else []  # a dry run may be the first
        own = [(facts.st_dev, facts.st_ino) for facts in map(os.stat, there)]
        walk = Walk(source, root, own)
    except OSError as error:
        raise SourceMissing(source=source.name, path=shown, reason=error.strerror) from error
    if source.must_be_mount and not os.path.ismount(root):
        raise SourceNotMounted(source=source.name, path=shown)
    return walk


def _summary(source: Source, root: bytes, walk: Walk, totals: _Totals) -> ScanSummary:
    facts = walk.facts
    return ScanSummary(
        root=SourceRoot(
            source=source.name,
            mode=facts.st_mode & 0o7777,
            uid=facts.st_uid,
            gid=facts.st_gid,
            mtime_ns=facts.st_mtime_ns,
            xattrs={attribute_key(name): value.hex() for name, value in root_xattrs(root)},
            entries=totals.entries,
            files=totals.files,
        ),
        bytes=totals.bytes,
        troubles=[_trouble(source.name, u.path, u.reason) for u in walk.unread],
        unread=[(source.name.encode() + b"/" + u.path).hex() for u in walk.unread],
        sockets=[_trouble(source.name, path, "").path for path in walk.sockets],
        clamped=totals.clamped,
        root_inode=facts.st_ino,
    )


def _trouble(source: str, path: bytes, reason: str) -> Trouble:
    return Trouble(path=f"{source}/{path.decode('utf-8', 'replace')}", reason=reason)
