"""Assembling a manifest: the scan, corrected by what was really read, and where it lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.carried import Carried
from tasks.catalog.kept import Kept
from tasks.catalog.located import Packed
from tasks.catalog.request import sorted_sources
from tasks.catalog.rowgroups import stream
from tasks.catalog.runs import Run
from tasks.catalog.wholeness import torn
from tasks.formats.columns import one, pick
from tasks.formats.manifest import (
    SCHEMA,
    TableWriter,
    batches,
    keys,
    shown,
    words,
)
from tasks.media import durable
from tasks.model.words import ScanSummary, SnapshotInfo, Trouble

_REREAD = ("size", "mtime", "ctime", "mode", "uid", "gid", "inode", "dev", "nlink")


def assemble(run: Run, scans: list[ScanSummary], path: str, *, complete: bool) -> SnapshotInfo:
    """Write the manifest of a run from the archives that are packed so far.

    A file whose content is not packed has no row; in a complete manifest it is a trouble. Memory
    does not grow with the entries.
    """
    request = run.request
    troubles = [t for scan in scans for t in scan.troubles] + run.troubles()
    troubles += _out_of_sight(run, {trouble.path for trouble in troubles})
    packed = Packed(run)
    previous = run.store.manifest_path(request.previous) if request.previous else None
    carried, kept = Carried(run, previous), Kept(run, previous)
    totals = _Totals()
    with durable.replacing(path) as draft, TableWriter(draft, SCHEMA) as writer:
        for rows in _assembled(run, packed, carried, kept, totals):
            writer.write(rows)
        info = SnapshotInfo(
            snapshot=run.snapshot,
            profile=request.profile_name,
            time=request.started,
            previous=request.previous,
            complete=complete,
            entries=writer.count,
            files=totals.files,
            bytes=totals.bytes,
            roots=[scan.root for scan in scans],
            archives=sorted(totals.archives),
            troubles=troubles + (totals.lost(troubles) if complete else []),
        )
        writer.close(info)
    return info


def _out_of_sight(run: Run, unread: Set[str]) -> list[Trouble]:
    """Return what the previous snapshot could not read, in folders that cannot be looked into now.

    It is not backed up yet, so retention must still know of it.
    """
    before = run.request.previous
    known = run.store.info(before).troubles if before and unread else []
    folders = {path.rstrip("/") for path in unread}
    return [
        trouble
        for trouble in known
        if trouble.path not in unread and not folders.isdisjoint(_folders_above(trouble.path))
    ]


def _folders_above(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


class _Totals:
    """What is counted while the rows pass by."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.archives: set[str] = set()
        self.missing: list[str] = []
        self.failed: set[bytes] = set()

    def count(self, rows: pa.RecordBatch) -> None:
        is_file = pc.equal(words(rows.column("type")), "file")
        self.files += int(pc.sum(is_file).as_py() or 0)
        self.bytes += int(pc.sum(rows.column("size").filter(is_file)).as_py() or 0)
        parts = pc.list_flatten(rows.column("parts"))
        self.archives.update(a for a in pc.unique(parts.field("archive")).to_pylist() if a)

    def lost(self, known: list[Trouble]) -> list[Trouble]:
        """Return troubles for files without content that no packer has complained of."""
        paths = {trouble.path for trouble in known}
        reason = "Its content, or its first name, changed while it was packed"
        return [Trouble(path=p, reason=reason) for p in self.missing if p not in paths]


def _assembled(
    run: Run, packed: Packed, carried: Carried, kept: Kept, totals: _Totals
) -> Iterator[pa.RecordBatch]:
    base = 0
    carries = _rebatched(batches(run.path("carry.parquet")))
    for scan in _scans(run):
        carry = _filled(carries(scan.num_rows), -1)
        content = packed.rows(base, base + scan.num_rows)
        whole = _with_content(scan, base, carry, content, carried)
        for rows in kept.between(whole, base, base + scan.num_rows):
            present = _drop_missing(rows, totals)
            totals.count(present)
            yield present
        base += scan.num_rows
    for rows in kept.after():
        present = _drop_missing(rows, totals)
        totals.count(present)
        yield present


def _scans(run: Run) -> Iterator[pa.RecordBatch]:
    names = sorted_sources(run.request)
    return itertools.chain.from_iterable(stream(run.scan_path(n), SCHEMA.names) for n in names)


def _with_content(
    scan: pa.RecordBatch, base: int, carry: Any, content: pa.Table, carried: Carried
) -> pa.RecordBatch:
    """Fill in digests and parts, and what the packer found other than the scan had."""
    count = scan.num_rows
    columns = dict(zip(scan.schema.names, scan.columns, strict=True))
    read = np.full(count, -1, np.int64)
    read[content.column("row").to_numpy() - base] = np.arange(content.num_rows)
    is_read = read >= 0
    taken = content.take(pa.array(read, mask=~is_read)).combine_chunks()
    if is_read.any():
        flags = pa.array(is_read)
        for name in _REREAD:
            columns[name] = pc.if_else(flags, one(taken.column(name)), columns[name])
    old = carried.contents(np.where(is_read, -1, carry))
    for name in ("sha256", "parts"):
        columns[name] = pick(is_read, one(taken.column(name)), old.column(name))
    return pa.record_batch([columns[f.name] for f in SCHEMA], schema=SCHEMA)


def _drop_missing(rows: pa.RecordBatch, totals: _Totals) -> pa.RecordBatch:
    """Drop files whose content is nowhere, or not whole, and hard links to them."""
    kinds = words(rows.column("type"))
    missing = pc.and_(pc.equal(kinds, "file"), rows.column("sha256").is_null())
    missing = pc.or_(missing, pa.array(torn(rows)))
    if pc.any(missing).as_py():
        totals.failed.update(keys(rows.filter(missing)).to_pylist())
        totals.missing += shown(rows.filter(missing))
    if totals.failed:
        sources = words(rows.column("source")).cast(pa.binary())
        targets = pc.binary_join_element_wise(sources, rows.column("link_target"), b"/")
        dangling = pc.and_(
            pc.equal(kinds, "hardlink"), pc.is_in(targets, pa.array(list(totals.failed)))
        )
        totals.missing += shown(rows.filter(dangling))
        missing = pc.or_(missing, dangling)
    return rows.filter(pc.invert(missing)) if pc.any(missing).as_py() else rows


def _filled(column: pa.Array, default: int) -> Any:
    """Return a column of integers as numpy, with a value for nulls."""
    return pc.fill_null(column, default).to_numpy(zero_copy_only=False)


def _rebatched(stream: Iterator[pa.RecordBatch]) -> Any:
    """Return a function that takes the next n values of a one-column stream."""
    held: list[pa.Array] = []

    def take(count: int) -> pa.Array:
        while sum(map(len, held)) < count:
            held.append(next(stream).column(0))
        whole = pa.concat_arrays(held) if held else pa.array([], pa.int64())
        held[:] = [whole.slice(count)]
        return whole.slice(0, count)

    return take
