"""Two snapshots compared by the rules of a backup.

Both manifests are merged window by window. Only rows in which any number differs are judged, and
what changed is spooled to a file: so memory does not grow with the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog import moves
from tasks.catalog.changes import CHANGES, Change, Judge
from tasks.catalog.pairs import NUMBERS, OBJECTS
from tasks.catalog.queries import pages
from tasks.catalog.rowgroups import ahead, stream
from tasks.catalog.windows import Window, windows
from tasks.formats.manifest import (
    SHA256,
    TableWriter,
    batches,
    keys,
    shown,
    words,
)

KINDS = ("added", "modified", "moved", "metadata", "deleted")

# What the judge looks at, and what names a row.
_COLUMNS = ["source", "path", "raw_path", "type", *NUMBERS, *OBJECTS]
_TAGS = ("change", "reason", "row", "old_row")


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
        pairs = windows(stream(new, _COLUMNS), stream(old, _COLUMNS))
        for changed in ahead(lambda window: _changed(window, judge), pairs, threads=1):
            if changed is not None:
                writer.write(changed)
        writer.close()
    _tell_contents(file, new, old)
    return Comparison(file, moves.find(file, lenient))


def _tell_contents(file: str, new: str, old: str) -> None:
    """Call files `metadata` that look modified and have the content that they had, as backups do.

    Only here both contents are known.
    """
    seen = batches(file, ["change", "type"])
    if not any(pc.any(_look_modified(rows)).as_py() for rows in seen):
        return
    digest, former = (_digests(path) for path in (new, old))

    def retold(rows: pa.RecordBatch, _base: int) -> pa.RecordBatch:
        modified = _look_modified(rows)
        doubtful = rows.filter(modified)
        same = pc.equal(digest(doubtful.column("row")), former(doubtful.column("old_row")))
        kinds = pc.if_else(pc.fill_null(same, False), "metadata", "modified")
        change = pc.replace_with_mask(words(rows.column("change")), modified, kinds)
        field = CHANGES.field("change")
        encoded = change.dictionary_encode().cast(field.type)
        return rows.set_column(rows.schema.get_field_index("change"), field, encoded)

    moves.rewrite(file, CHANGES, retold)


def _look_modified(rows: pa.RecordBatch) -> pa.BooleanArray:
    modified = pc.equal(words(rows.column("change")), "modified")
    return pc.and_(modified, pc.equal(words(rows.column("type")), "file"))


def _digests(manifest: str) -> Callable[[pa.Array], pa.Array]:
    """Return a function that gives the digests of rows; their numbers rise from call to call."""
    groups = stream(manifest, ["sha256"])
    column, base = pa.array([], SHA256), 0

    def at(rows: pa.Array) -> pa.Array:
        nonlocal column, base
        numbers, found = rows.to_numpy(), [pa.array([], SHA256)]
        while len(numbers):
            here = int(np.searchsorted(numbers, base + len(column)))
            found.append(column.take(pa.array(numbers[:here] - base)))
            numbers = numbers[here:]
            if len(numbers):
                base, column = base + len(column), next(groups).column(0)
        return pa.concat_arrays(found)

    return at


def _changed(window: Window, judge: Judge) -> pa.RecordBatch | None:
    """Return the rows of a window that changed, from both sides, in path order."""
    match = window.match()
    changed, change, reason = judge.changed(window, match)
    old_rows = window.old_rows(match)[changed]
    deleted = np.flatnonzero(window.gone(match))
    pieces = [
        _tagged(window.new, changed, change, reason, changed + window.new_base, old_rows),
        _tagged(window.old, deleted, "deleted", "gone", -1, deleted + window.old_base),
    ]
    rows = pa.Table.from_batches(pieces).combine_chunks()
    if not rows.num_rows:
        return None
    whole = rows.to_batches()[0]
    return whole.take(pc.array_sort_indices(keys(whole)))


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
