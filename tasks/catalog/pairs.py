"""Rows of two manifests side by side, and whether anything in them differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.manifest import integers

Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

NUMBERS = ["size", "mtime", "ctime", "mode", "uid", "gid", "inode", "rdev"]
OBJECTS = ["link_target", "xattrs"]
# What `types_of` makes of a folder.
DIR = 0
# Rows that are compared at a time where two sides agree, and that are looked up where they part.
_STRIDE = 1 << 10
_LOOK = 1 << 6


def aligned(new: pa.Array, old: pa.Array, is_dir: Flags, was_dir: Flags) -> Ints:
    """Return the old row of each new row, or -1; both sides are in the order of a manifest.

    Rows belong together if their names are equal and both are folders, or neither is. Snapshots
    agree for long stretches, which costs a tenth of looking every name up. Where they part, some
    rows are looked up; ever more of them where they part often, or have nothing in common.
    """
    match = np.full(len(new), -1)
    at, old_at, look = 0, 0, _LOOK
    while at < len(new) and old_at < len(old):
        count = min(_STRIDE, len(new) - at, len(old) - old_at)
        alike = pc.equal(new.slice(at, count), old.slice(old_at, count))
        flags = alike.to_numpy(zero_copy_only=False)
        flags &= is_dir[at : at + count] == was_dir[old_at : old_at + count]
        run = count if flags.all() else int(flags.argmin())
        match[at : at + run] = np.arange(old_at, old_at + run)
        at, old_at = at + run, old_at + run
        if run == count:
            look = max(look // 2, _LOOK)
            continue
        place = _looked_up(new.slice(at, look), old.slice(old_at, look))
        hits = np.flatnonzero(place >= 0)
        hits = hits[is_dir[at + hits] == was_dir[old_at + place[hits]]]
        if len(hits):
            match[at + hits] = old_at + place[hits]
            at, old_at = at + int(hits[-1]) + 1, old_at + int(place[hits[-1]]) + 1
        elif look > max(len(new) - at, len(old) - old_at):
            break
        look *= 2
    return match


def _looked_up(names: pa.Array, among: pa.Array) -> Ints:
    index = pc.fill_null(pc.index_in(names, value_set=among), -1)
    place: Ints = index.to_numpy(zero_copy_only=False).astype(np.int64)
    return place


def differing(new: pa.RecordBatch, old: pa.RecordBatch, left: Ints, right: Ints) -> Flags:
    """Return which pairs differ in a number or a type, or have anything else to be compared.

    `left` and `right` are the rows of each pair; all others are alike in every respect.
    """
    flags = np.zeros(len(left), bool)
    mine, theirs = _run_of(left), _run_of(right)
    for name in NUMBERS:
        flags |= integers(new.column(name))[mine] != integers(old.column(name))[theirs]
    types, old_types = types_of(new, old)
    flags |= types[mine] != old_types[theirs]
    for name in OBJECTS:
        for side, index in ((new, mine), (old, theirs)):
            column = side.column(name)
            if column.null_count < len(column):
                flags |= column.is_valid().to_numpy(zero_copy_only=False)[index]
    return flags


def _run_of(index: Ints) -> Any:
    """Return an index without gaps as a slice: what it picks need not be copied."""
    if len(index) and np.all(np.diff(index) == 1):
        return slice(index[0], index[-1] + 1)
    return index


def types_of(*sides: pa.RecordBatch) -> list[Ints]:
    """Return the types of the rows on each side as numbers that compare; a folder is DIR."""
    codes = {"dir": DIR}
    found = []
    for rows in sides:
        column = rows.column("type")
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        known = [codes.setdefault(word, len(codes)) for word in column.dictionary.to_pylist()]
        found.append(np.array([*known, -1])[column.indices.to_numpy(zero_copy_only=False)])
    return found


class Pairs:
    """The columns of matching rows, side by side."""

    def __init__(self, new: pa.RecordBatch, old: pa.RecordBatch, left: Ints, right: Ints) -> None:
        self._new, self._old = new, old
        self._left, self._right = left, right
        self.kinds = self._text(self._new, "type", left)
        self.old_kinds = self._text(self._old, "type", right)
        self.sources = self._text(self._new, "source", left)

    @staticmethod
    def _text(rows: pa.RecordBatch, name: str, index: Ints) -> Any:
        column = rows.column(name)
        if not pa.types.is_dictionary(column.type):
            return column.to_numpy(zero_copy_only=False)[index]
        values = np.asarray(column.dictionary.to_pylist(), dtype=object)
        codes = column.indices.to_numpy(zero_copy_only=False)
        return values[codes[index]] if len(index) else np.empty(0, dtype=object)

    def differ(self, name: str) -> Flags:
        """Return which pairs differ in a number."""
        new, old = integers(self._new.column(name)), integers(self._old.column(name))
        flags: Flags = new[self._left] != old[self._right]
        return flags

    def were(self, name: str, value: int) -> Flags:
        """Return which pairs had this number before."""
        flags: Flags = integers(self._old.column(name))[self._right] == value
        return flags

    def targets_differ(self) -> Flags:
        """Return which pairs are links to something else."""
        return self._objects_differ("link_target")

    def xattrs_differ(self) -> Flags:
        """Return which pairs have other extended attributes."""
        return self._objects_differ("xattrs")

    def _objects_differ(self, name: str) -> Flags:
        new, old = self._new.column(name), self._old.column(name)
        flags = np.zeros(len(self._left), dtype=bool)
        if new.null_count == len(new) and old.null_count == len(old):
            return flags
        some_new = new.is_valid().to_numpy(zero_copy_only=False)[self._left]
        some_old = old.is_valid().to_numpy(zero_copy_only=False)[self._right]
        for i in np.flatnonzero(some_new | some_old):
            left, right = new[int(self._left[i])].as_py(), old[int(self._right[i])].as_py()
            flags[i] = left != right
        return flags
