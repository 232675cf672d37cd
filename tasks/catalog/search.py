"""Searching snapshots for masks, sizes and times: whole columns at a time, only those it takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.masks import expression
from tasks.catalog.queries import COLUMNS, Entry, listed, pages
from tasks.catalog.rowgroups import RowGroup, ahead, row_groups, rows_at
from tasks.catalog.store import LOST, Store
from tasks.formats.manifest import integers, keys, raw_paths, read_table, words

_NAMED = ["source", "path", "raw_path", "type"]
_ARCHIVES = "parts.list.element.archive"
_SIZED = pa.array(["file", "hardlink"])


class Match(NamedTuple):
    """An entry that was found in a snapshot, and the serials of the cartridges that hold it."""

    snapshot: str
    entry: Entry
    cartridges: list[int]

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        found = self.entry.facts()
        return {**found, "snapshot": self.snapshot, "cartridges": self.cartridges}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is searched for: one of the masks, and every limit that is given.

    Sizes are in bytes and hold for files only; times are modification times in nanoseconds since
    1970. All limits exclude what is exactly equal. `gone` takes only what the newest snapshot has
    no longer.
    """

    masks: tuple[str, ...]
    larger: int | None = None
    smaller: int | None = None
    newer: int | None = None
    older: int | None = None
    gone: bool = False

    @cached_property
    def expression(self) -> str:
        """The masks as one regular expression; bytes that are not UTF-8 as they are shown."""
        return expression([os.fsencode(mask).decode("utf-8", "replace") for mask in self.masks])

    def search(self, group: RowGroup) -> Any:
        """Return which rows of a row group are wanted, as indices; `gone` is not looked at."""
        within = self._within_limits(group)
        if within is not None and not within.any():
            return np.empty(0, np.int64)
        rows = group.read(["source", "path"])
        full = pc.binary_join_element_wise(words(rows.column("source")), rows.column("path"), "/")
        fits = pc.match_substring_regex(full, self.expression).to_numpy(zero_copy_only=False)
        return np.flatnonzero(fits if within is None else fits & within)

    def _within_limits(self, group: RowGroup) -> Any:
        limits = (self.larger, self.smaller, self.newer, self.older)
        if all(limit is None for limit in limits):
            return None
        rows = group.read(["type", "size", "mtime"])
        sizes, moments = integers(rows.column("size")), integers(rows.column("mtime"))
        within = np.ones(rows.num_rows, bool)
        if self.larger is not None or self.smaller is not None:
            sized = pc.is_in(words(rows.column("type")), _SIZED)
            within &= sized.to_numpy(zero_copy_only=False)
        for values, low, high in (
            (sizes, self.larger, self.smaller),
            (moments, self.newer, self.older),
        ):
            within &= values > low if low is not None else True
            within &= values < high if high is not None else True
        return within


def find(store: Store, snapshots: Iterable[str], wanted: Wanted) -> Iterator[list[Match]]:
    """Yield pages of what is found, snapshot by snapshot in path order."""
    newest = store.newest() if wanted.gone else None
    present = store.manifest_path(newest) if newest else None
    where = cartridges_by_archive(store)
    places = (
        (snapshot, group)
        for snapshot in snapshots
        if snapshot != newest
        for group in _row_groups(store.manifest_path(snapshot))
    )

    def hits(place: tuple[str, RowGroup]) -> tuple[str, pa.RecordBatch | None]:
        with contextlib.suppress(FileNotFoundError):
            return place[0], _hits(place[1], wanted, present)
        return place[0], None

    for snapshot, rows in ahead(hits, places):
        for page in pages(rows) if rows is not None else ():
            serials = _serials(page.column("parts"), where)
            pairs = zip(listed(page), serials, strict=True)
            yield [Match(snapshot, entry, held) for entry, held in pairs]


def _row_groups(manifest: str) -> list[RowGroup]:
    """Return the row groups of a manifest; none where it was pruned since it was listed."""
    try:
        return row_groups(manifest)
    except FileNotFoundError:
        return []


def cartridges_by_archive(store: Store) -> dict[str, int]:
    """Return on which cartridge each archive lies, but for those on a cartridge that is lost."""
    try:
        table = read_table(store.archives_path, ["archive", "cartridge", "state"])
    except FileNotFoundError:
        return {}
    there = table.filter(pc.not_equal(table.column("state"), LOST))
    names, serials = (there.column(name).to_pylist() for name in ("archive", "cartridge"))
    return dict(zip(names, serials, strict=True))


def _hits(group: RowGroup, wanted: Wanted, present: str | None) -> pa.RecordBatch | None:
    """Return the rows that are found, with the parts of hard links filled in."""
    index = wanted.search(group)
    if present is not None and len(index):
        index = _gone(group, index, present)
    if not len(index):
        return None
    rows = group.rows(index, [*COLUMNS, "link_target", _ARCHIVES])
    return _with_parts_of_links(group.manifest, rows)


def _gone(group: RowGroup, index: Any, present: str) -> Any:
    """Return the numbers of those rows that another manifest does not have."""
    rows = group.rows(index, _NAMED)
    mine = keys(rows)
    for others in rows_at(present, rows.column("path"), _NAMED):
        left = pc.invert(pc.is_in(mine, keys(others))).to_numpy(zero_copy_only=False)
        index, mine = index[left], mine.filter(left)
    return index


def _with_parts_of_links(manifest: str, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Give hard links the parts of their first names, where their content lies."""
    is_link = pc.equal(words(rows.column("type")), "hardlink")
    if not pc.any(is_link).as_py():
        return rows
    targets = rows.column("link_target").filter(is_link)
    firsts = _names(rows.column("source").filter(is_link), targets)
    shown = pa.array([t.decode("utf-8", "replace") for t in targets.to_pylist()], pa.string())
    columns = ["source", "path", "raw_path", _ARCHIVES]
    found = [rows.slice(0, 0), *rows_at(manifest, pc.unique(shown), columns)]
    names = pa.concat_arrays([_names(r.column("source"), raw_paths(r)) for r in found])
    parts = pa.concat_arrays([rows.column("parts"), *(r.column("parts") for r in found)])
    index = np.arange(rows.num_rows)
    places = pc.fill_null(pc.index_in(firsts, names), -1).to_numpy(zero_copy_only=False)
    links = np.flatnonzero(is_link.to_numpy(zero_copy_only=False))
    index[links] = np.where(places >= 0, places + rows.num_rows, links)
    at = rows.schema.get_field_index("parts")
    return rows.set_column(at, rows.schema.field(at), parts.take(pa.array(index)))


def _names(sources: pa.Array, paths: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(words(sources).cast(pa.binary()), paths, b"/")


def _serials(parts: pa.Array, where: Mapping[str, int]) -> list[list[int]]:
    """Return for every row the cartridges that its parts lie on, sorted."""
    found: list[list[int]] = [[] for _ in range(len(parts))]
    rows = pc.list_parent_indices(parts).to_numpy(zero_copy_only=False)
    archives = pc.list_flatten(parts).field("archive").dictionary_encode()
    serials = np.array([0, *(where.get(a, 0) for a in archives.dictionary.to_pylist())], np.int64)
    codes = pc.fill_null(archives.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    pairs = np.unique(np.stack([rows, serials[codes + 1]]), axis=1)
    for row, serial in pairs.T.tolist():
        if serial:
            found[row].append(serial)
    return found
