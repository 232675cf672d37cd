"""Windows: two manifests side by side, a stretch of each at a time, in constant memory.

Both come in the same order, so a window of each up to a common key holds all that can match.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.pairs import DIR, Flags, Ints, aligned, types_of
from tasks.formats.manifest import SCHEMA, keys, raw_paths


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of both sides that can match each other, with their first row numbers."""

    new: pa.RecordBatch
    new_base: int
    old: pa.RecordBatch
    old_base: int

    def match(self) -> Ints:
        """Return the old row of each new row, as an index into the window, or -1."""
        types, old_types = types_of(self.new, self.old)
        return aligned(*self._names(), types == DIR, old_types == DIR)

    def old_rows(self, match: Ints) -> Ints:
        """Return the number of the old row of each new row, or -1."""
        return np.where(match >= 0, match + self.old_base, -1)

    def gone(self, match: Ints) -> Flags:
        """Return which old rows have no new one."""
        gone = np.ones(self.old.num_rows, dtype=bool)
        gone[match[match >= 0]] = False
        return gone

    def _names(self) -> tuple[pa.Array, pa.Array]:
        """Return what tells the rows of each side apart: within one source the path alone."""
        sides = (self.new, self.old)
        sources = {word for rows in sides for word in pc.unique(rows.column("source")).to_pylist()}
        if len(sources) > 1:
            return keys(self.new), keys(self.old)
        if any(rows.column("raw_path").null_count < rows.num_rows for rows in sides):
            return raw_paths(self.new), raw_paths(self.old)
        return self.new.column("path"), self.old.column("path")


def windows(new: Iterable[pa.RecordBatch], old: Iterable[pa.RecordBatch]) -> Iterator[Window]:
    """Pair the rows of two sorted streams, window by window."""
    left, right = _Side(new), _Side(old)
    while left.rows.num_rows or right.rows.num_rows:
        bound = min(side.key(-1) for side in (left, right) if side.rows.num_rows)
        yield Window(*left.take(bound), *right.take(bound))


class _Side:
    """The rows of one stream, cut anew at every window's end.

    Keys are made only of the rows where a cut may be: those of all rows cost more than all else.
    """

    def __init__(self, stream: Iterable[pa.RecordBatch]) -> None:
        self._stream = iter(stream)
        self._base = 0
        self.rows = pa.RecordBatch.from_pylist([], schema=SCHEMA)
        self._fill()

    def _fill(self) -> None:
        while not self.rows.num_rows:
            batch = next(self._stream, None)
            if batch is None:
                return
            self.rows = batch

    def key(self, row: int) -> bytes:
        """Return the key of one row."""
        names = ("source", "path", "raw_path", "type")
        source, path, exact, kind = (self.rows.column(name)[row].as_py() for name in names)
        name: bytes = path.encode() if exact is None else exact
        return b"%s/%s%s" % (source.encode(), name, b"/" * (kind == "dir"))

    def take(self, bound: bytes) -> tuple[pa.RecordBatch, int]:
        """Cut off the rows whose key is not beyond `bound`."""
        count = bisect_right(range(self.rows.num_rows), bound, key=self.key)
        taken = self.rows.slice(0, count), self._base
        self.rows = self.rows.slice(count)
        self._base += count
        self._fill()
        return taken
