"""Files and folders that only changed their name: their content is not stored again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.changes import CARRY, CHANGES, PACK
from tasks.formats.manifest import TableWriter, batches, integers, words
from tasks.media import durable

_IDENTITY = ["source", "type", "size", "mtime", "inode", "change", "row", "old_row"]


def find(changes: str, lenient: Collection[str] = (), lost: Collection[int] = ()) -> dict[int, int]:
    """Find moves in a change set: new row -> old row.

    A move is a vanished path whose type, inode, size and mtime appear under another name. On
    `lenient` sources inodes mean nothing, and nothing is taken for a move; nor is an old row of
    `lost`, whose content is to be stored again.
    """
    gone = dict(_identities(changes, "deleted", "old_row", lenient))
    gone = {identity: row for identity, row in gone.items() if row not in lost}
    found: dict[int, int] = {}
    for identity, row in _identities(changes, "added", "row", lenient) if gone else ():
        if identity in gone:
            found[row] = gone.pop(identity)
    return found


def apply(found: dict[int, int], changes: str, pack: str, carry: str) -> None:
    """Rewrite the diff's files: moved rows carry their content over and are not packed.

    A file whose own ctime is new is packed all the same: it was renamed itself, or written to
    meanwhile and given its old mtime, and which of the two only its content tells. That is read,
    and stored where it is another.
    """
    touched = _touched(found, changes)
    places = np.array(sorted(found.keys() - touched), np.int64)
    origins = np.array([found[row] for row in places.tolist()], np.int64)
    untouched, rows = pa.array(places), pa.array(found.keys(), pa.int64())
    gone = pa.array(sorted(found.values()), pa.int64())

    def retag(batch: pa.RecordBatch, base: int) -> pa.RecordBatch:
        moved = pc.is_in(batch.column("row"), rows)
        left = pc.and_(
            pc.equal(words(batch.column("change")), "deleted"),
            pc.is_in(batch.column("old_row"), gone),
        )
        old_rows = [
            found.get(row, old)
            for row, old in zip(
                batch.column("row").to_pylist(), batch.column("old_row").to_pylist(), strict=True
            )
        ]
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns["change"] = pc.if_else(moved, "moved", words(batch.column("change")))
        columns["reason"] = pc.if_else(moved, "name", words(batch.column("reason")))
        columns["old_row"] = pa.array(old_rows, pa.int64())
        whole = pa.table(columns).cast(CHANGES).to_batches()[0] if batch.num_rows else batch
        return whole.filter(pc.invert(left))

    def unpack(batch: pa.RecordBatch, base: int) -> pa.RecordBatch:
        return batch.filter(pc.invert(pc.is_in(batch.column("row"), untouched)))

    def carry_over(batch: pa.RecordBatch, base: int) -> pa.RecordBatch:
        values = batch.column("carry").to_numpy(zero_copy_only=False)
        values = np.nan_to_num(values, nan=-1).astype(np.int64)
        first, last = np.searchsorted(places, [base, base + len(values)])
        values[places[first:last] - base] = origins[first:last]
        return pa.record_batch([pa.array(values, mask=values < 0)], schema=CARRY)

    rewrite(changes, CHANGES, retag)
    rewrite(pack, PACK, unpack)
    rewrite(carry, CARRY, carry_over)


def _touched(found: dict[int, int], changes: str) -> set[int]:
    """Return the new rows of moved files whose ctime is not what it was under the old name."""
    before, after = {}, {}
    for batch in batches(changes, ["change", "type", "ctime", "row", "old_row"]):
        files = batch.filter(pc.equal(words(batch.column("type")), "file"))
        kinds = words(files.column("change")).to_pylist()
        numbers = [integers(files.column(name)).tolist() for name in ("row", "old_row", "ctime")]
        for change, row, old_row, ctime in zip(kinds, *numbers, strict=True):
            if change == "deleted":
                before[old_row] = ctime
            elif row in found:
                after[row] = ctime
    return {row for row, ctime in after.items() if ctime != before[found[row]]}


def rewrite(
    path: str, schema: pa.Schema, change: Callable[[pa.RecordBatch, int], pa.RecordBatch]
) -> None:
    """Replace a table by what `change(batch, number of its first row)` makes of its batches."""
    with durable.replacing(path) as draft, TableWriter(draft, schema) as writer:
        base = 0
        for batch in batches(path):
            writer.write(change(batch, base))
            base += batch.num_rows
        writer.close()


def _identities(
    path: str, change: str, number: str, lenient: Collection[str]
) -> Iterator[tuple[tuple[Any, ...], int]]:
    excluded = pa.array(sorted(lenient), pa.string())
    for batch in batches(path, _IDENTITY):
        rows = batch.filter(pc.equal(words(batch.column("change")), change))
        rows = rows.filter(pc.invert(pc.is_in(words(rows.column("source")), excluded)))
        kinds = words(rows.column("type")).to_pylist()
        facts = [
            integers(rows.column(name)).tolist() for name in ("size", "mtime", "inode", number)
        ]
        for kind, size, mtime, inode, row in zip(kinds, *facts, strict=True):
            if kind != "hardlink":
                yield (kind, size, mtime, inode), row
