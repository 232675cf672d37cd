"""Rows of the previous manifest whose content, or which themselves, are taken over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.located import name_members
from tasks.catalog.runs import Run
from tasks.formats.manifest import PARTS, SCHEMA, batches, keys, read_table, words


class Carried:
    """Rows of the previous manifest whose content, or which themselves, are taken over."""

    def __init__(self, run: Run, previous: str | None) -> None:
        self._path = run.store.manifest_path(previous) if previous else None
        self._moved = self._gather(list(_moved_rows(run)))
        kept = read_table(run.path("kept.parquet")).to_pylist()
        self._kept_at = [row["row"] for row in kept]
        self._kept = self._rows([row["old_row"] for row in kept])
        self._next_kept = 0
        self._window = _Window(self._path)

    def _gather(self, old_rows: list[int]) -> dict[int, pa.RecordBatch]:
        rows = sorted(set(old_rows))
        return dict(zip(rows, self._rows(rows), strict=True))

    def _rows(self, old_rows: Iterable[int]) -> list[pa.RecordBatch]:
        """Read some rows of the previous manifest, given in rising order, one batch each."""
        wanted, base = list(old_rows), 0
        found: list[pa.RecordBatch] = []
        if self._path and wanted:
            for batch in batches(self._path):
                while len(found) < len(wanted) and wanted[len(found)] < base + batch.num_rows:
                    found.append(batch.slice(wanted[len(found)] - base, 1))
                base += batch.num_rows
        return found

    def contents(self, carry: Any) -> pa.RecordBatch:
        """Return digest and parts for every row of `carry`: an old row number, or -1."""
        pieces = [_no_content()]
        index = np.zeros(len(carry), np.int64)
        straight = np.array([c >= 0 and c not in self._moved for c in carry.tolist()], bool)
        if straight.any():
            table, base = self._window.rows(int(carry[straight].min()), int(carry[straight].max()))
            index[straight] = carry[straight] - base + 1
            pieces += table
        total = sum(piece.num_rows for piece in pieces)
        for place in np.flatnonzero((carry >= 0) & ~straight):
            pieces.append(_renamed(self._moved[int(carry[place])]))
            index[place] = total
            total += 1
        table = pa.Table.from_batches([_content(piece) for piece in pieces]).combine_chunks()
        return table.take(pa.array(index)).to_batches()[0]

    def between(self, rows: pa.RecordBatch, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield a batch of rows with the kept ones that belong between them."""
        done = 0
        while self._next_kept < len(self._kept) and self._kept_at[self._next_kept] < stop:
            place = self._kept_at[self._next_kept] - start
            if place > done:
                yield rows.slice(done, place - done)
                done = place
            yield self._kept[self._next_kept]
            self._next_kept += 1
        if done < rows.num_rows:
            yield rows.slice(done)

    def after(self, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the kept rows that come last."""
        yield from self._kept[self._next_kept :]
        self._next_kept = len(self._kept)


class _Window:
    """A stretch of the previous manifest, which only moves forward."""

    def __init__(self, path: str | None) -> None:
        self._stream = batches(path, ["sha256", "parts"]) if path else iter(())
        self._held: list[pa.RecordBatch] = []
        self._base = 0
        self._end = 0

    def rows(self, first: int, last: int) -> tuple[list[pa.RecordBatch], int]:
        """Return batches that cover the rows first..last, and the number of their first row."""
        while self._end <= last:
            batch = next(self._stream)
            self._held.append(batch)
            self._end += batch.num_rows
        while self._held and self._base + self._held[0].num_rows <= first:
            self._base += self._held.pop(0).num_rows
        return self._held, self._base


_CONTENT = pa.schema([SCHEMA.field("sha256"), SCHEMA.field("parts")])


def _no_content() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"sha256": None, "parts": None}], schema=_CONTENT)


def _content(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [rows.column("sha256"), rows.column("parts")]
    return pa.record_batch(columns, schema=_CONTENT)


def _renamed(old: pa.RecordBatch) -> pa.RecordBatch:
    """Name the members of a moved file: they still have the old path."""
    parts = old.column("parts")[0].as_py()
    named = parts if parts is None else name_members(parts, keys(old)[0].as_py())
    columns = [old.column("sha256"), pa.array([named], PARTS)]
    return pa.record_batch(columns, schema=_CONTENT)


def _moved_rows(run: Run) -> Iterator[int]:
    for batch in batches(run.path("changes.parquet"), ["change", "old_row"]):
        moved = batch.filter(pc.equal(words(batch.column("change")), "moved"))
        yield from moved.column("old_row").to_pylist()
