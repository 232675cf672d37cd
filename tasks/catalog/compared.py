"""Two snapshots compared by the rules of a backup.

Both manifests are merged window by window. Only rows in which any number differs are judged, and
what changed is spooled to a file: so memory does not grow with the entries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog import moves
from tasks.catalog.changes import CHANGES, Change, Judge, Window
from tasks.catalog.pairs import DIR, NUMBERS, OBJECTS, Ints, aligned, differing, types_of
from tasks.catalog.queries import pages
from tasks.catalog.rowgroups import ahead, row_groups
from tasks.formats.manifest import (
    SCHEMA,
    TableWriter,
    batches,
    keys,
    raw_paths,
    shown,
    words,
)

KINDS = ("added", "modified", "moved", "metadata", "deleted")

# What the judge looks at, and what names a row.
_COLUMNS = ["source", "path", "raw_path", "type", *NUMBERS, *OBJECTS]
_TAGS = ("change", "reason", "row", "old_row")
_NO_KEYS = pa.array([], pa.binary())


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two manifests: rows in `file`; `moved` maps new rows to old ones."""

    file: str
    moved: dict[int, int]

    def changes(self) -> Iterator[list[Change]]:
        """Yield pages of changes, in path order."""
        for rows in self._rows():
            columns = [words(rows.column(name)).to_pylist() for name in ("change", "reason")]
            facts = zip(shown(rows), *columns, rows.column("size").to_pylist(), strict=True)
            yield [Change(*fact) for fact in facts]

    def paths(self, kind: str) -> Iterator[list[str]]:
        """Yield pages of `<source>/<path>` of one kind of change, in path order."""
        for rows in self._rows():
            yield shown(rows.filter(pc.equal(rows.column("change"), kind)))

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """Yield pages of rows, moves being one row each instead of two."""
        arrived = pa.array(self.moved.keys(), pa.int64())
        left = pa.array(self.moved.values(), pa.int64())
        for batch in batches(self.file):
            change, reason = words(batch.column("change")), words(batch.column("reason"))
            moved = pc.is_in(batch.column("row"), arrived)
            gone = pc.and_(pc.equal(change, "deleted"), pc.is_in(batch.column("old_row"), left))
            rows = batch.set_column(
                batch.schema.get_field_index("change"),
                "change",
                pc.if_else(moved, "moved", change),
            ).set_column(
                batch.schema.get_field_index("reason"), "reason", pc.if_else(moved, "name", reason)
            )
            yield from pages(rows.filter(pc.invert(gone)))


def compare_snapshots(new: str, old: str, lenient: Collection[str], file: str) -> Comparison:
    """Compare two manifests; the rows that changed go to `file`, which stays needed.

    `lenient` are the sources that are judged by size and mtime alone.
    """
    judge = Judge(lenient=frozenset(lenient), unread=(), forced=False)
    with TableWriter(file, CHANGES) as writer:
        windows = _windows(_Side(new), _Side(old))
        for changed in ahead(lambda window: _changed(window, judge), windows, threads=1):
            if changed is not None:
                writer.write(changed)
        writer.close()
    return Comparison(file, moves.find(file, lenient))


class _Side:
    """The rows of one manifest, cut anew at every window's end.

    Keys are made only of the rows where a cut may be: those of all rows cost more than all else.
    """

    def __init__(self, manifest: str) -> None:
        self._stream = ahead(lambda group: group.read(_COLUMNS), row_groups(manifest), threads=1)
        self.base = 0
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
        source, path, exact, kind = (self.rows.column(i)[row].as_py() for i in range(4))
        name: bytes = path.encode() if exact is None else exact
        slash = b"/" if kind == "dir" else b""
        return b"%s/%s%s" % (source.encode(), name, slash)

    def take(self, bound: bytes) -> tuple[pa.RecordBatch, int]:
        """Cut off the rows whose key is not beyond `bound`."""
        count = bisect_right(range(self.rows.num_rows), bound, key=self.key)
        taken = self.rows.slice(0, count), self.base
        self.rows = self.rows.slice(count)
        self.base += count
        self._fill()
        return taken


def _windows(new: _Side, old: _Side) -> Iterator[Window]:
    """Pair the rows of two manifests, window by window; the keys are left out."""
    while new.rows.num_rows or old.rows.num_rows:
        bound = min(side.key(side.rows.num_rows - 1) for side in (new, old) if side.rows.num_rows)
        (rows, base), (old_rows, old_base) = new.take(bound), old.take(bound)
        yield Window(rows, _NO_KEYS, base, old_rows, _NO_KEYS, old_base)


def _changed(window: Window, judge: Judge) -> pa.RecordBatch | None:
    """Return the rows of a window that changed, from both sides, in path order."""
    match = _match(window)
    left = np.flatnonzero(match >= 0)
    right = match[left]
    suspect = np.flatnonzero(differing(window.new, window.old, left, right))
    left, right = left[suspect], right[suspect]
    change, reason = judge.pairs(window, left, right)
    found = np.flatnonzero(change != "")
    added = np.flatnonzero(match < 0)
    gone = np.ones(window.old.num_rows, bool)
    gone[match[match >= 0]] = False
    deleted = np.flatnonzero(gone)
    pieces = [
        _tagged(window.new, added, "added", "new", added + window.new_base, -1),
        _tagged(
            window.new,
            left[found],
            change[found],
            reason[found],
            left[found] + window.new_base,
            right[found] + window.old_base,
        ),
        _tagged(window.old, deleted, "deleted", "gone", -1, deleted + window.old_base),
    ]
    rows = pa.Table.from_batches(pieces).combine_chunks()
    if not rows.num_rows:
        return None
    whole = rows.to_batches()[0]
    return whole.take(pc.array_sort_indices(keys(whole)))


def _match(window: Window) -> Ints:
    types, old_types = types_of(window.new, window.old)
    return aligned(*_names(window), types == DIR, old_types == DIR)


def _names(window: Window) -> tuple[pa.Array, pa.Array]:
    """Return what tells the rows of each side apart: within one source that is the path alone."""
    new, old = window.new, window.old
    sources = {word for rows in (new, old) for word in pc.unique(rows.column("source")).to_pylist()}
    if len(sources) > 1:
        return keys(new), keys(old)
    if any(rows.column("raw_path").null_count < rows.num_rows for rows in (new, old)):
        return raw_paths(new), raw_paths(old)
    return new.column("path"), old.column("path")


def _tagged(
    rows: pa.RecordBatch, index: Any, change: Any, reason: Any, new_rows: Any, old_rows: Any
) -> pa.RecordBatch:
    """Take rows of one side, with what became of them and their numbers on both sides."""
    named = [name for name in CHANGES.names if name not in _TAGS]
    taken = rows.select(named).take(pa.array(index))
    columns = [words(column) for column in taken.columns]
    columns += [pa.array(np.full(len(index), tag, object), pa.string()) for tag in (change, reason)]
    columns += [pa.array(np.full(len(index), row), pa.int64()) for row in (new_rows, old_rows)]
    return pa.record_batch(columns, names=[*named, *_TAGS])
