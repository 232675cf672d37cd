"""Which files a drill restores: some of every cartridge, old and new, large and small."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.store import STORED, Store
from tasks.formats.manifest import batches, integers, keys, words

# A file that may be drawn for a cartridge; of each `kind` some are, as far as the limits go.
# `cost` is what it takes in bytes where it is restored. Serial 0: what needs no cartridge.
_CANDIDATE = np.dtype(
    [("snapshot", "<i4"), ("row", "<i8"), ("serial", "<i8"), ("kind", "<i8"), ("cost", "<i8")]
)
_COLUMNS = ["type", "size", "nlink", "parts.list.element.archive"]
_NAMED = ["source", "path", "raw_path", "type"]
_BLOCK = 4096
# Sizes are alike within a factor of 16.
_BITS = 4
_SIZES = 16
_LOW = (1 << 20) - 1
# One file in so many has no content to be read.
_HOLLOW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is drawn in all: at most so many bytes, and about so many files."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Holdings:
    """The archives on the cartridges present, with their serials and the age of their snapshots."""

    serials: Mapping[str, int]
    ages: Mapping[str, int]

    def of(self, archives: pa.Array) -> tuple[Any, Any]:
        """Return serials and ages of a dictionary column; 0 and -1 where an archive is not here."""
        names = archives.dictionary.to_pylist()
        index = pc.fill_null(archives.indices, 0).to_numpy(zero_copy_only=False)
        serials = np.array([self.serials.get(name, 0) for name in names] or [0], np.int64)
        ages = np.array([self.ages.get(name, -1) for name in names] or [-1], np.int64)
        return serials[index], ages[index]


def draw(
    store: Store, present: Collection[int], limits: Limits, seed: int
) -> dict[str, list[bytes]]:
    """Draw files whose content lies on cartridges present, by the snapshots to restore them from.

    Each cartridge has an equal share of the limits, and at least one file where one fits at all.
    The same catalog, cartridges, limits and seed give the same sample.
    """
    stored = {row.archive: row.cartridge for row in store.archives() if row.state == STORED}
    here = {archive: serial for archive, serial in stored.items() if serial in present}
    homes = _homes(store, here)
    found = [np.empty(0, _CANDIDATE)]
    for number, (snapshot, archives) in enumerate(homes.items()):
        holdings = _Holdings(here, _ages(archives))
        found += _candidates(store.manifest_path(snapshot), number, holdings)
    drawn = _drawn(np.concatenate(found), limits, np.random.default_rng(seed))
    return {
        snapshot: _names(store.manifest_path(snapshot), rows)
        for number, snapshot in enumerate(homes)
        if len(rows := np.unique(drawn["row"][drawn["snapshot"] == number]))
    }


def _homes(store: Store, archives: Collection[str]) -> dict[str, list[str]]:
    """Give each archive to the newest snapshot that refers to it; newest first."""
    left, homes = set(archives), {}
    for snapshot in reversed(store.snapshots()):
        if mine := left.intersection(store.info(snapshot).archives):
            homes[snapshot] = sorted(mine)
            left -= mine
    return homes


def _ages(archives: Collection[str]) -> dict[str, int]:
    """Number archives by the snapshots that stored them."""
    snapshots = sorted({name.split("/")[1] for name in archives})
    return {name: snapshots.index(name.split("/")[1]) for name in archives}


def _candidates(manifest: str, snapshot: int, holdings: _Holdings) -> Iterator[Any]:
    base = 0
    for batch in batches(manifest, _COLUMNS):
        found = _batch_candidates(batch, holdings)
        found["snapshot"] = snapshot
        found["row"] += base
        yield found
        base += batch.num_rows


def _batch_candidates(batch: pa.RecordBatch, holdings: _Holdings) -> Any:
    """Find the files of which all content is present, and some of it in archives of ours."""
    column, count = batch.column("parts"), batch.num_rows
    rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    archives = pc.list_flatten(column).field("archive").dictionary_encode()
    data = archives.is_valid().to_numpy(zero_copy_only=False)
    serials, ages = holdings.of(archives)
    absent = np.bincount(rows[data & (serials == 0)], minlength=count) > 0
    whole = pc.equal(words(batch.column("type")), "file").to_numpy(zero_copy_only=False) & ~absent
    hollow = np.flatnonzero(whole & (np.bincount(rows[data], minlength=count) == 0))
    mine = data & (ages >= 0) & whole[rows]
    # One number for row, serial and age, none of which comes near 2**20.
    pairs = np.unique((rows[mine] << 40) | (serials[mine] << 20) | (ages[mine] + 1))
    pairs = np.concatenate([pairs, hollow << 40])
    row, serial, age = pairs >> 40, pairs >> 20 & _LOW, pairs & _LOW
    sizes = integers(batch.column("size")).astype(np.int64)[row]
    shape = 2 * (np.bincount(rows, minlength=count)[row] > 1)
    shape += integers(batch.column("nlink"))[row] > 1
    found = np.empty(len(row), _CANDIDATE)
    found["row"], found["serial"] = row, serial
    found["kind"] = (age * _SIZES + _magnitude(sizes)) * 4 + shape
    found["cost"] = -(-sizes // _BLOCK) * _BLOCK + _BLOCK
    return found


def _magnitude(sizes: Any) -> Any:
    return np.log2(np.maximum(sizes, 1)).astype(np.int64) // _BITS


def _drawn(found: Any, limits: Limits, chance: np.random.Generator) -> Any:
    """Draw for each cartridge in turn, then what needs none; nothing where that would be all."""
    luck = chance.random(len(found))
    serials = np.unique(found["serial"])[::-1].tolist()
    cartridges = len(serials) - (0 in serials)
    drawn = [found[:0]]
    left = limits.bytes
    for turn, serial in enumerate(serials):
        mine = np.flatnonzero(found["serial"] == serial)
        order = found[mine[_in_turn(found["kind"][mine], luck[mine])]]
        files = -(-limits.files // (cartridges if serial else _HOLLOW))
        drawn.append(_within(order, Limits(files=files, bytes=left // (len(serials) - turn)), left))
        left -= int(drawn[-1]["cost"].sum())
    whole = np.concatenate(drawn)
    return whole if whole["serial"].any() else found[:0]


def _in_turn(kinds: Any, luck: Any) -> Any:
    """Order candidates so that kinds take turns: one of each, then a second one of each."""
    order = np.lexsort((luck, kinds))
    starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))
    ranks = np.arange(len(kinds)) - np.repeat(starts, np.diff(np.r_[starts, len(kinds)]))
    return order[np.lexsort((luck[order], ranks))]


def _within(order: Any, share: Limits, most: int) -> Any:
    """Take candidates one by one as far as they fit; else the smallest, if it fits at all."""
    taken, left = [], share.bytes
    for number, cost in enumerate(order["cost"].tolist()):
        if cost <= left:
            taken.append(number)
            left -= cost
        if len(taken) == share.files:
            break
    smallest = int(np.argmin(order["cost"]))
    if not taken and order["cost"][smallest] <= most:
        taken = [smallest]
    return order[taken]


def _names(manifest: str, rows: Any) -> list[bytes]:
    """Return `<source>/<path>` of rows, whose numbers rise."""
    found: list[bytes] = []
    base = 0
    for batch in batches(manifest, _NAMED):
        low, high = np.searchsorted(rows, [base, base + batch.num_rows])
        found += keys(batch.take(pa.array(rows[low:high] - base))).to_pylist()
        base += batch.num_rows
    return found
