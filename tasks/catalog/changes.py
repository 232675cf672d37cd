"""The change set: what differs between two manifests, with a reason per row.

Inside a window the work is done by Arrow and numpy, column by column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.pairs import Flags, Ints, Pairs, differing
from tasks.catalog.windows import Window, windows
from tasks.formats.manifest import (
    RESTLESS,
    SCHEMA,
    SHA256,
    WORD,
    TableWriter,
    batches,
    keys,
    shown,
    words,
)
from tasks.media import durable

_FACTS = [field for field in SCHEMA if field.name not in ("sha256", "parts")]
# Rows of the pack list in a group: a packer reads those whole that its bundle begins and ends in.
_PACK_GROUP = 1 << 13
_TAGS = [("change", WORD), ("reason", WORD), ("row", pa.int64()), ("old_row", pa.int64())]
_NAMED = ("source", "path", "raw_path", "type", "size", "mtime", "ctime", "inode")
CHANGES = pa.schema([*(SCHEMA.field(name) for name in _NAMED), *_TAGS])
PACK = pa.schema([*_FACTS, *_TAGS, ("old_sha256", SHA256)])
CARRY = pa.schema([("carry", pa.int64())])
KEPT = pa.schema([("old_row", pa.int64()), ("row", pa.int64())])

# What a comparison needs of the old side.
OLD_COLUMNS = [field.name for field in SCHEMA if field.name != "parts"]


@dataclass(slots=True)
class Found:
    """What the merge has found besides the rows it wrote."""

    counts: Counter[str] = field(default_factory=Counter)
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a change set, for people; `path` is `<source>/<path>`, `size` in bytes."""

    path: str
    change: str
    reason: str
    size: int


def listed(path: str) -> Iterator[Change]:
    """Read a change set."""
    for batch in batches(path):
        change, reason = (words(batch.column(n)).to_pylist() for n in ("change", "reason"))
        sizes = batch.column("size").to_pylist()
        for facts in zip(shown(batch), change, reason, sizes, strict=True):
            yield Change(*facts)


def compare(
    new: Iterable[pa.RecordBatch],
    old: Iterable[pa.RecordBatch],
    judge: Judge,
    writer: ChangeWriter,
) -> Found:
    """Merge two manifests: write every change with its reason, and where each row's content was."""
    found = Found()
    for window in windows(new, old):
        match = window.match()
        rows, labels, reasons = judge.changed(window, match)
        gone = window.gone(match)
        kept = judge.kept(window.old, gone)
        writer.new_rows(window, match, rows, labels, reasons)
        writer.old_rows(window, gone & ~kept, kept)
        found.entries += window.new.num_rows
        found.counts.update(labels[labels != ""].tolist())
        found.counts["deleted"] += int((gone & ~kept).sum())
    return found


@dataclass(frozen=True, slots=True)
class Judge:
    """The rules by which a row counts as changed.

    `lenient` are sources judged by size and mtime alone; `unread` are keys that could not be looked
    at: what lies at or below them is not gone; `forced` stores unchanged files again. `lost` are
    the old rows, by rising number, whose content lies nowhere any more.
    """

    lenient: frozenset[str]
    unread: Sequence[bytes]
    forced: bool
    lost: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def changed(self, window: Window, match: Ints) -> tuple[Ints, Any, Any]:
        """Return the new rows that changed or go in again, in order, with change and reason."""
        added, pairs = np.flatnonzero(match < 0), np.flatnonzero(match >= 0)
        if not self.forced and not len(self.lost):  # else rows may count that differ in nothing
            pairs = pairs[differing(window.new, window.old, pairs, match[pairs])]
        change, reason = self._pairs(window, pairs, match[pairs])
        told = reason != ""
        rows = np.concatenate([added, pairs[told]])
        order = np.argsort(rows)
        changes = np.concatenate([np.full(len(added), "added", object), change[told]])
        reasons = np.concatenate([np.full(len(added), "new", object), reason[told]])
        return rows[order], changes[order], reasons[order]

    def _pairs(self, window: Window, left: Ints, right: Ints) -> tuple[Any, Any]:
        """Return (change, reason) for every pair of rows, as object arrays."""
        sides = Pairs(window.new, window.old, left, right)
        is_file, is_hardlink = sides.kinds == "file", sides.kinds == "hardlink"
        strict = ~np.isin(sides.sources, list(self.lenient)) if self.lenient else True
        whole = is_file & strict
        plain = ~is_file & ~is_hardlink
        modified = {
            "type": sides.kinds != sides.old_kinds,
            "size": is_file & sides.differ("size"),
            "mtime": is_file & sides.differ("mtime"),
            "ctime": whole & sides.differ("ctime") | is_file & sides.were("ctime", RESTLESS),
            "inode": whole & sides.differ("inode"),
            "target": ~is_file & sides.targets_differ(),
            "device": plain & sides.differ("rdev"),
        }
        metadata = {
            "mtime": plain & sides.differ("mtime"),
            "mode": ~is_hardlink & sides.differ("mode"),
            "owner": ~is_hardlink & (sides.differ("uid") | sides.differ("gid")),
            "xattrs": ~is_hardlink & sides.xattrs_differ(),
        }
        change = np.full(len(left), "", dtype=object)
        reason = np.full(len(left), "", dtype=object)
        for kind, rules in (("modified", modified), ("metadata", metadata)):
            for name, flags in rules.items():
                fresh = flags & (change == "")
                change[fresh], reason[fresh] = kind, name
        again = (change == "") | (is_file & (change == "metadata"))
        if self.forced:
            reason[again] = "forced"
        elif len(self.lost):
            reason[again & np.isin(right + window.old_base, self.lost)] = "lost"
        return change, reason

    def kept(self, old: pa.RecordBatch, gone: Flags) -> Flags:
        """Return which vanished rows lie at or below something that could not be looked at."""
        kept = np.zeros(len(gone), dtype=bool)
        if not self.unread or not gone.any():
            return kept
        old_keys = keys(old)
        for place in self.unread:
            key = place.rstrip(b"/")  # a source as a whole has an empty path
            below = pc.starts_with(old_keys, key + b"/")
            here = pc.equal(old_keys, key)
            kept |= pc.or_(below, here).to_numpy(zero_copy_only=False)
        return kept & gone


class ChangeWriter:
    """Write the four files that a diff leaves.

    `changes` names every change; `pack` has all facts of the rows to be packed; `carry` tells for
    every new row which old row has its content; `kept` are old rows that stay though not seen.
    """

    def __init__(self, changes: str, pack: str, carry: str, kept: str) -> None:
        self._changes = TableWriter(changes + durable.DRAFT, CHANGES)
        self._pack = TableWriter(pack + durable.DRAFT, PACK, _PACK_GROUP)
        self._carry = TableWriter(carry + durable.DRAFT, CARRY)
        self._kept = TableWriter(kept + durable.DRAFT, KEPT)
        self._writers = {
            changes: self._changes,
            pack: self._pack,
            carry: self._carry,
            kept: self._kept,
        }

    def new_rows(self, window: Window, match: Ints, rows: Ints, labels: Any, reasons: Any) -> None:
        """Write the new side of a window: `rows` changed, or go in again, in this way."""
        old_rows = window.old_rows(match)
        again = (reasons == "forced") | (reasons == "lost")
        goes_in = (labels == "added") | (labels == "modified") | again
        is_packed = np.zeros(len(match), bool)
        is_packed[rows[goes_in]] = True
        self._carry.write(pa.record_batch([pa.array(old_rows, mask=is_packed)], schema=CARRY))

        def tagged(chosen: Flags) -> tuple[Ints, dict[str, Any]]:
            index = rows[chosen]
            numbers = index + window.new_base, old_rows[index]
            return index, _tags(labels[chosen], reasons[chosen], *numbers)

        index, tags = tagged(labels != "")
        if len(index):
            self._changes.write(_select(window.new, index, CHANGES, tags))
        index, tags = tagged(goes_in)
        if len(index):
            changed_from = np.where(labels[goes_in] == "modified", match[index], -1)
            tags["old_sha256"] = _old_digests(window.old, changed_from)
            self._pack.write(_select(window.new, index, PACK, tags))

    def old_rows(self, window: Window, deleted: Flags, kept: Flags) -> None:
        """Write the old side of a window: what is gone, and what is kept though not seen."""
        gone = np.flatnonzero(deleted)
        if len(gone):
            labels, reasons = (np.full(len(gone), word, object) for word in ("deleted", "gone"))
            tags = _tags(labels, reasons, np.full(len(gone), -1), gone + window.old_base)
            self._changes.write(_select(window.old, gone, CHANGES, tags))
        stays = np.flatnonzero(kept)
        if len(stays):
            old_keys = keys(window.old).take(pa.array(stays))
            places = np.searchsorted(_objects(keys(window.new)), _objects(old_keys))
            numbers = [pa.array(stays + window.old_base), pa.array(places + window.new_base)]
            self._kept.write(pa.record_batch(numbers, schema=KEPT))

    def close(self) -> None:
        """Finish all four files, and give them their names."""
        for path, writer in self._writers.items():
            writer.close()
            durable.publish(path + durable.DRAFT, path)

    def __enter__(self) -> ChangeWriter:
        """Let go of the files when the block ends badly."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close what `close` has not, and leave no drafts."""
        for path, writer in self._writers.items():
            writer.__exit__(kind, error, at)
            durable.remove(path + durable.DRAFT)


def _objects(texts: pa.Array) -> Any:
    """Return an array of Python's own bytes, which compare to their end."""
    return np.array([*texts.to_pylist(), None], dtype=object)[:-1]


def _tags(labels: Any, reasons: Any, rows: Ints, old_rows: Ints) -> dict[str, Any]:
    return {
        "change": pa.array(labels, pa.string()).dictionary_encode(),
        "reason": pa.array(reasons, pa.string()).dictionary_encode(),
        "row": pa.array(rows, pa.int64()),
        "old_row": pa.array(old_rows, pa.int64()),
    }


def _select(
    rows: pa.RecordBatch, index: Ints, schema: pa.Schema, tags: dict[str, Any]
) -> pa.RecordBatch:
    whole = len(index) == rows.num_rows
    taken = rows if whole else rows.take(pa.array(index))
    columns = [tags[f.name] if f.name in tags else taken.column(f.name) for f in schema]
    return pa.record_batch(columns, schema=schema)


def _old_digests(old: pa.RecordBatch, match: Ints) -> pa.Array:
    if not old.num_rows:
        return pa.nulls(len(match), SHA256)
    return old.column("sha256").take(pa.array(match, mask=match < 0))
