"""Contents that rows of a scan take over from the previous manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.kept import renamed
from tasks.catalog.rowgroups import stream
from tasks.catalog.runs import Run
from tasks.formats.manifest import SCHEMA, batches, words

_CONTENT = pa.schema([SCHEMA.field("sha256"), SCHEMA.field("parts")])
_NAMED = ["source", "path", "raw_path", "type", "sha256", "parts"]


class Carried:
    """Digests and parts of the previous manifest, by row: those at hand, and those that moved."""

    def __init__(self, run: Run, path: str | None) -> None:
        self._window = _Window(path)
        self._moved_rows = np.unique(np.fromiter(_moved_rows(run), np.int64))
        self._moved = _take(path, self._moved_rows)

    def contents(self, carry: Any) -> pa.RecordBatch:
        """Return digest and parts for every row of `carry`: an old row number, or -1."""
        place = np.searchsorted(self._moved_rows, carry)
        inside = np.minimum(place, max(len(self._moved_rows) - 1, 0))
        is_moved = np.zeros(len(carry), bool)
        if len(self._moved_rows):
            is_moved = (carry >= 0) & (self._moved_rows[inside] == carry)
        straight = (carry >= 0) & ~is_moved
        pieces = [pa.RecordBatch.from_pylist([{"sha256": None, "parts": None}], schema=_CONTENT)]
        index = np.zeros(len(carry), np.int64)
        if straight.any():
            rows, base = self._window.rows(int(carry[straight].min()), int(carry[straight].max()))
            index[straight] = carry[straight] - base + 1
            pieces += [_content(piece) for piece in rows]
        if is_moved.any():
            total = sum(piece.num_rows for piece in pieces)
            moved = self._moved.take(pa.array(place[is_moved])).combine_chunks().to_batches()[0]
            pieces.append(_content(renamed(moved)))
            index[is_moved] = np.arange(moved.num_rows) + total
        table = pa.Table.from_batches(pieces).combine_chunks()
        return table.take(pa.array(index)).to_batches()[0]


class _Window:
    """A stretch of the previous manifest, which only moves forward."""

    def __init__(self, path: str | None) -> None:
        self._stream = stream(path, ["sha256", "parts"]) if path else iter(())
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


def _content(rows: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch([rows.column("sha256"), rows.column("parts")], schema=_CONTENT)


def _take(path: str | None, rows: Any) -> pa.Table:
    """Read some rows of a manifest, given by numbers that rise."""
    schema = pa.schema([SCHEMA.field(name) for name in _NAMED])
    found, base = [schema.empty_table()], 0
    for batch in batches(path, _NAMED) if path and len(rows) else ():
        first, last = np.searchsorted(rows, [base, base + batch.num_rows])
        if last > first:
            taken = batch.take(pa.array(rows[first:last] - base))
            found.append(pa.Table.from_batches([taken]).cast(schema))
        base += batch.num_rows
    return pa.concat_tables(found)


def _moved_rows(run: Run) -> Iterator[int]:
    """Yield the old rows of files that have another name, or other metadata, than their member."""
    changed = pa.array(["moved", "metadata"])
    for batch in batches(run.path("changes.parquet"), ["change", "old_row", "type"]):
        moved = batch.filter(pc.is_in(words(batch.column("change")), changed))
        moved = moved.filter(pc.equal(words(moved.column("type")), "file"))
        yield from moved.column("old_row").to_pylist()
