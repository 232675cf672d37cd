"""Rows of the previous manifest that stay, because nobody could look where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.located import name_members
from tasks.catalog.request import sorted_sources
from tasks.catalog.runs import Run
from tasks.formats.manifest import PARTS, SCHEMA, batches, keys, raw_paths, read_table, words


class Kept:
    """The kept rows in order, to be put between those of the scan; streamed, not loaded."""

    def __init__(self, run: Run, previous: str | None) -> None:
        table = read_table(run.path("kept.parquet"))
        self._old_rows = table.column("old_row").to_numpy()
        self._at = table.column("row").to_numpy()
        self._done = 0
        self._links = _Links(run, previous, self._old_rows)
        self._stream = (self._links.settled(rows) for rows in _rows(previous, self._old_rows))
        self._held = pa.RecordBatch.from_pylist([], schema=SCHEMA)

    def between(self, rows: pa.RecordBatch, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the scan's rows [start, stop) with the kept ones that belong between them."""
        done = 0
        while self._done < len(self._at) and self._at[self._done] < stop:
            row = self._at[self._done]
            place = int(row) - start
            if place > done:
                yield rows.slice(done, place - done)
                done = place
            yield from self._take(int(np.searchsorted(self._at, row, side="right")) - self._done)
        if done < rows.num_rows:
            yield rows.slice(done)

    def after(self) -> Iterator[pa.RecordBatch]:
        """Yield the kept rows that come last."""
        yield from self._take(len(self._at) - self._done)

    def _take(self, count: int) -> Iterator[pa.RecordBatch]:
        self._done += count
        while count:
            if not self._held.num_rows:
                self._held = next(self._stream)
            piece = self._held.slice(0, count)
            self._held = self._held.slice(piece.num_rows)
            count -= piece.num_rows
            yield piece


class _Links:
    """Kept hard links: each stands alone where its first name is no more what it was."""

    def __init__(self, run: Run, previous: str | None, old_rows: Any) -> None:
        wanted: set[bytes] = set()
        for rows in _rows(previous, old_rows):
            links = rows.filter(pc.equal(words(rows.column("type")), "hardlink"))
            wanted.update(_target(links, i) for i in range(links.num_rows))
        scans = [run.scan_path(name) for name in sorted_sources(run.request)]
        now = {key: _inode(row) for key, row in _named(wanted, map(batches, scans))}
        now |= {key: _inode(row) for key, row in _named(wanted, [_rows(previous, old_rows)])}
        before = _named(wanted, [batches(previous)] if previous else [])
        # The first names that are gone, or are another file's by now.
        self._lost = {key: row for key, row in before if now.get(key) != _inode(row)}
        self._heirs: dict[bytes, bytes] = {}

    def settled(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows in which no link names a file that has its content no longer."""
        if not self._lost:
            return rows
        kinds = words(rows.column("type")).to_pylist()
        pieces = [
            self._alone(rows.slice(i, 1)) if kind == "hardlink" else rows.slice(i, 1)
            for i, kind in enumerate(kinds)
        ]
        return pa.Table.from_batches(pieces).combine_chunks().to_batches()[0]

    def _alone(self, link: pa.RecordBatch) -> pa.RecordBatch:
        first = _target(link, 0)
        if first not in self._lost:
            return link
        if first in self._heirs:
            target = pa.record_batch(
                [pa.array([self._heirs[first]], pa.binary())], names=["link_target"]
            )
            return _with_columns(link, target, ("link_target",))
        self._heirs[first] = raw_paths(link)[0].as_py()
        lost = self._lost[first]
        named = _with_columns(lost, renamed(lost), ("parts",))
        return _with_columns(named, link, ("path", "raw_path"))


def renamed(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Name the members in the parts of rows that get another path: these still have the old one."""
    parts, names = rows.column("parts").to_pylist(), keys(rows).to_pylist()
    named = [
        old if old is None else name_members(old, name)
        for old, name in zip(parts, names, strict=True)
    ]
    columns = [rows.column("sha256"), pa.array(named, PARTS)]
    return pa.record_batch(columns, names=["sha256", "parts"])


def _rows(path: str | None, old_rows: Any) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest with the given numbers, which rise."""
    base = done = 0
    for batch in batches(path) if path and len(old_rows) else ():
        stop = int(np.searchsorted(old_rows, base + batch.num_rows))
        if stop > done:
            yield batch.take(pa.array(old_rows[done:stop] - base))
        base, done = base + batch.num_rows, stop
        if done == len(old_rows):
            return


def _named(wanted: set[bytes], streams: Any) -> Iterator[tuple[bytes, pa.RecordBatch]]:
    """Yield the rows of files whose key is wanted."""
    names = pa.array(sorted(wanted), pa.binary())
    for batch in (batch for stream in streams for batch in stream) if wanted else ():
        keyed = keys(batch)
        hits = pc.and_(pc.is_in(keyed, names), pc.equal(words(batch.column("type")), "file"))
        for index in np.flatnonzero(hits.to_numpy(zero_copy_only=False)).tolist():
            yield keyed[index].as_py(), batch.slice(index, 1)


def _inode(row: pa.RecordBatch) -> int:
    return int(row.column("inode")[0].as_py())


def _target(links: pa.RecordBatch, index: int) -> bytes:
    target: bytes = links.column("link_target")[index].as_py()
    source: str = links.column("source")[index].as_py()
    return source.encode() + b"/" + target


def _with_columns(
    rows: pa.RecordBatch, other: pa.RecordBatch, names: tuple[str, ...]
) -> pa.RecordBatch:
    columns = [(other if f.name in names else rows).column(f.name) for f in SCHEMA]
    return pa.record_batch(columns, schema=SCHEMA)
