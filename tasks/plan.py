"""Plan: cut the change set into bundles of work, each packed by one task."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc

from tasks._base import Stage
from tasks.catalog.contents import write_index
from tasks.catalog.placement import trusted_archives
from tasks.catalog.relisted import stored_by
from tasks.catalog.request import Request
from tasks.catalog.runs import Run
from tasks.diff import DiffManifest
from tasks.formats.chunks import cutting_for
from tasks.formats.manifest import batches, words
from tasks.model.words import ArchivesPlan, Bundle, CartridgeRow

# A member costs about this much tar besides its content.
HEADER = 1536
_SMALLEST_ARCHIVE, _LARGEST_ARCHIVE = 64 << 10, 1 << 30
_FAVOURITE_ARCHIVE = 32 << 20
# A task costs its process: few bundles, but enough that all packers have work to the end.
_FEW_BUNDLES, _MOST_BUNDLES = 6, 100
_SMALL_BUNDLE, _LARGE_BUNDLE = 16 << 20, 128 << 20
# On average half an archive of a cartridge stays free: far below 2 % of a large one; on a small one
# the cost of many small archives would be worse than that.
_LARGE_CARTRIDGE, _ARCHIVES_ON_LARGE, _ARCHIVES_ON_SMALL = 10**9, 160, 32


class PlanArchives(Stage):
    """The bundles of a run, and the index of what is stored already."""

    result = "plan.json"

    def requires(self) -> DiffManifest:
        """What is packed follows from what has changed."""
        return DiffManifest(**self.identity)

    def work(self) -> None:
        """Plan the bundles."""
        run = self.run_folder
        request = run.request
        smallest = smallest_capacity(run.store.cartridges(), request.profile.cartridges.capacity)
        planned = plan(run.path("pack.parquet"), request, smallest)
        if planned.bundles:
            _index_stored(run, request)
        run.save(self.result, planned)


def plan(pack_list: str, request: Request, smallest: int | None) -> ArchivesPlan:
    """Cut the pack list into bundles of about equal bytes; `smallest` is a capacity in bytes."""
    sizes = [np.zeros(0, np.int64)]
    for batch in batches(pack_list, ["type", "size"]):
        size = batch.column("size").to_numpy()
        is_file = pc.equal(words(batch.column("type")), "file").to_numpy(zero_copy_only=False)
        sizes.append(np.where(is_file, size, 0) + HEADER)
    weights = np.concatenate(sizes)
    total = int(weights.sum())
    archive_size = request.profile.archive.archive_size or archive_size_for(total, smallest)
    cutting = cutting_for(request.profile.archive.split_size, smallest, archive_size)
    target = min(max(_SMALL_BUNDLE, total // _FEW_BUNDLES), _LARGE_BUNDLE)
    target = max(target, total // _MOST_BUNDLES)
    return ArchivesPlan(
        archive_size=archive_size,
        cutting=cutting,
        bundles=list(_bundles(np.cumsum(weights), target)),
    )


def archive_size_for(total: int, smallest: int | None) -> int:
    """Choose how large an archive may grow: small against a cartridge, few in a run. Bytes."""
    size = min(max(_FAVOURITE_ARCHIVE, total // 1000), _LARGEST_ARCHIVE)
    if smallest is not None:
        large = smallest >= _LARGE_CARTRIDGE
        size = min(size, smallest // (_ARCHIVES_ON_LARGE if large else _ARCHIVES_ON_SMALL))
    return max(size, _SMALLEST_ARCHIVE)


def smallest_capacity(cartridges: Iterable[CartridgeRow], cap: int | None) -> int | None:
    """Return the capacity of the smallest cartridge known, in bytes; None where none is known."""
    known = [row.capacity for row in cartridges if row.capacity is not None]
    return min([*known, *([cap] if cap is not None else [])], default=None)


def largest_archive(plan: ArchivesPlan) -> int:
    """Return what an archive takes at most in the spool, in bytes."""
    return plan.archive_size + plan.archive_size // 64 + (1 << 16)


def spool_limit(request: Request, plan: ArchivesPlan, run: Run) -> int:
    """Return how many bytes the spool may hold: some archives ahead, never the whole disk."""
    if request.profile.run.spool_size is not None:
        return request.profile.run.spool_size
    facts = os.statvfs(run.spool)
    return min(max(4 << 30, 8 * plan.archive_size), facts.f_bavail * facts.f_frsize // 2)


def _bundles(ends: np.ndarray[tuple[int], np.dtype[np.int64]], target: int) -> Iterable[Bundle]:
    """Cut rows, given by where each ends in bytes, into runs of about `target` bytes."""
    start, number, done = 0, 1, 0
    while start < len(ends):
        stop = max(start + 1, int(np.searchsorted(ends, done + target, side="right")))
        yield Bundle(number=number, start=start, stop=stop, bytes=int(ends[stop - 1]) - done)
        start, number, done = stop, number + 1, int(ends[stop - 1])


def _index_stored(run: Run, request: Request) -> None:
    """Write the index of all contents that this run may refer to."""
    store = run.store
    alive = set() if request.full else trusted_archives(store)
    snapshots = store.stored_snapshots() if alive else []
    contents = (stored_by(store, snapshot, ["sha256", "archive"]) for snapshot in snapshots)
    write_index(run.path("stored.idx"), itertools.chain.from_iterable(contents), alive)
