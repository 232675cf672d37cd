"""Commit: make the snapshot known, in the workspace and on every cartridge of the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow.compute as pc

from tasks._base import Stage
from tasks.catalog import export, guards, placement
from tasks.catalog.contents import CONTENTS
from tasks.catalog.relisted import is_repeated
from tasks.catalog.runs import Run
from tasks.catalog.store import Store
from tasks.diff import summaries
from tasks.formats.manifest import TableWriter, batches, read_info, words
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.model.errors import CartridgeError, CartridgeFailed
from tasks.model.units import iso
from tasks.model.words import (
    ArchivesPlan,
    DiffSummary,
    Outcome,
    ScanSummary,
    SnapshotInfo,
    WriteReceipt,
)
from tasks.pack import PackArchive
from tasks.plan import PlanArchives
from tasks.span import SpanCartridges


class CommitSnapshot(Stage):
    """The snapshot of a run, or the finding that nothing has changed."""

    result = "outcome.json"

    def requires(self) -> list[Stage]:
        """The plan tells what has to be packed, and whether there is anything to write."""
        run = self.run_folder
        if not run.has(PlanArchives.result):
            return [PlanArchives(**self.identity)]
        plan = run.load(PlanArchives.result, ArchivesPlan)
        packs = [PackArchive(**self.identity, number=b.number) for b in plan.bundles]
        if _may_come_to_nothing(run, plan):
            return [PlanArchives(**self.identity), *packs]
        return [SpanCartridges(**self.identity, participant=self.here.participant), *packs]

    def work(self) -> Iterator[Stage]:
        """Make the snapshot known, once it is written; a run that found nothing new makes none."""
        run = self.run_folder
        summary = run.load("diff.json", DiffSummary)
        plan = run.load(PlanArchives.result, ArchivesPlan)
        if _may_come_to_nothing(run, plan):
            if not any(run.packed()):  # no file was read, no entry added
                run.save(self.result, unchanged(run, summary))
                return
            yield SpanCartridges(**self.identity, participant=self.here.participant)
        run.save(self.result, commit(run, summary))


def _may_come_to_nothing(run: Run, plan: ArchivesPlan) -> bool:
    """Whether all that changed may be files that could not be read the last time either."""
    summary = run.load("diff.json", DiffSummary)
    if not summary.changed:
        return not plan.bundles
    before = run.request.previous
    if before is None or summary.moved or summary.metadata or summary.deleted:
        return False
    troubles = {trouble.path for trouble in run.store.info(before).troubles}
    return summary.added + summary.modified <= len(troubles) and _new_paths(run) <= troubles


def _new_paths(run: Run) -> set[str]:
    """Return what was added or modified, as `<source>/<path>`."""
    return {name for name, change in _changes(run) if change in ("added", "modified")}


def _changes(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what has changed, as `<source>/<path>`, and how."""
    for batch in batches(run.path("changes.parquet"), ["source", "path", "change"]):
        sources, changes = (words(batch.column(name)).to_pylist() for name in ("source", "change"))
        paths = batch.column("path").to_pylist()
        for source, path, change in zip(sources, paths, changes, strict=True):
            yield f"{source}/{path}", change


def unchanged(run: Run, summary: DiffSummary) -> Outcome:
    """Record that a look was taken and nothing had changed."""
    durable.write_whole(run.place.looked, b'{"looked": "%s"}\n' % iso(datetime.now(UTC)).encode())
    scans = summaries(run)
    troubles = _unreadable(run, scans)
    return Outcome(
        snapshot=None,
        status="partial" if troubles else "unchanged",
        entries=summary.entries,
        added=0,
        modified=0,
        moved=0,
        metadata=0,
        deleted=0,
        unreadable=troubles,
        skipped=[path for scan in scans for path in scan.sockets],
        clamped=sum(scan.clamped for scan in scans),
        bytes_read=0,
        bytes_stored=0,
        archives=0,
        cartridges=[],
        seconds=0.0,
    )


def so_far(run: Run) -> Outcome:
    """Describe a run that waits for a cartridge: what was found, and what is stored of it."""
    none = DiffSummary(entries=0, added=0, modified=0, moved=0, metadata=0, deleted=0)
    is_known = run.has("diff.json")
    found = run.load("diff.json", DiffSummary) if is_known else none
    scans = summaries(run) if is_known else []
    placed = run.placed()
    read, same = _packed_rows(run)
    return Outcome(
        snapshot=run.snapshot,
        status="waiting",
        entries=found.entries,
        added=found.added,
        modified=found.modified - same,
        moved=found.moved,
        metadata=found.metadata + same,
        deleted=found.deleted,
        unreadable=_unreadable(run, scans),
        skipped=[path for scan in scans for path in scan.sockets],
        clamped=sum(scan.clamped for scan in scans),
        bytes_read=read,
        bytes_stored=sum(p.bytes for p in run.packed() if p.number in placed),
        archives=len(placed),
        cartridges=sorted(set(placed.values())),
        seconds=0.0,
    )


def _unreadable(run: Run, scans: list[ScanSummary]) -> list[str]:
    return [t.path for t in [*(t for s in scans for t in s.troubles), *run.troubles()]]


def commit(run: Run, summary: DiffSummary) -> Outcome:
    """Publish contents, archives and manifest in this order; the manifest makes the snapshot.

    Every step may be done again.
    """
    store, manifest = run.store, run.path("manifest.parquet")
    info: SnapshotInfo = read_info(manifest, SnapshotInfo)
    if not is_repeated(sum(packed.contents for packed in run.packed()), info.entries):
        _publish_contents(run, store)
    new = export.archive_rows(run)
    store.update_archives(lambda old: export.merged(old, new))
    if run.has("recipe.tar.lz4"):
        with durable.replacing(store.recipe_path(run.snapshot)) as draft:
            shutil.copyfile(run.path("recipe.tar.lz4"), draft)
    with durable.replacing(store.manifest_path(run.snapshot)) as draft:
        shutil.copyfile(manifest, draft)
    receipts = run.receipts()
    for receipt in receipts:
        if not receipt.last:
            _refresh(run, receipt)
    return _outcome(run, summary, info, receipts)


def _publish_contents(run: Run, store: Store) -> None:
    """Join the lists of contents that the packers left."""
    path = store.contents_path(run.snapshot)
    with durable.replacing(path) as draft, TableWriter(draft, CONTENTS) as writer:
        for packed in run.packed():
            for batch in batches(run.path("packed", f"{packed.number}.contents.parquet")):
                writer.write(batch)
        writer.close()


def _refresh(run: Run, receipt: WriteReceipt) -> None:
    """Bring an earlier cartridge of the run up to date where it is still present and has room.

    It is complete without: what lies on it, its partial manifest names.
    """
    try:
        cartridge = Cartridge.open(receipt.path)
        if cartridge.label.uuid != receipt.uuid:
            return
        with cartridge.writing():
            guards.check(cartridge, run)
            export.refresh(cartridge, run.store, run.request.profile.cartridges.capacity)
        run.store.alter_cartridge(receipt.uuid, used=cartridge.used())
    except CartridgeFailed:
        run.store.alter_cartridge(receipt.uuid, state=placement.SUSPECT)
    except (CartridgeError, OSError):
        return


def _outcome(
    run: Run, summary: DiffSummary, info: SnapshotInfo, receipts: list[WriteReceipt]
) -> Outcome:
    read, same = _packed_rows(run)
    lost = {trouble.path for trouble in info.troubles}
    added, modified = _failed(run, lost)
    scans = summaries(run)
    return Outcome(
        snapshot=run.snapshot,
        status="partial" if info.troubles else "complete",
        entries=info.entries,
        added=summary.added - added,
        modified=summary.modified - modified - same,
        moved=summary.moved,
        metadata=summary.metadata + same,
        deleted=summary.deleted,
        unreadable=[trouble.path for trouble in info.troubles],
        skipped=[path for scan in scans for path in scan.sockets],
        clamped=sum(scan.clamped for scan in scans),
        bytes_read=read,
        bytes_stored=sum(receipt.bytes for receipt in receipts),
        archives=sum(len(receipt.archives) for receipt in receipts),
        cartridges=sorted({receipt.serial for receipt in receipts}),
        seconds=0.0,
    )


def _packed_rows(run: Run) -> tuple[int, int]:
    """Return the bytes of all files that were read, and how many were as they had been."""
    size = same = 0
    for packed in run.packed():
        path = run.path("packed", f"{packed.number}.rows.parquet")
        for batch in batches(path, ["size", "same"]):
            size += pc.sum(batch.column("size")).as_py() or 0
            same += pc.sum(batch.column("same")).as_py() or 0
    return size, same


def _failed(run: Run, lost: set[str]) -> tuple[int, int]:
    """Return how many added and how many modified files could not be read."""
    if not lost:
        return 0, 0
    found = {"added": 0, "modified": 0}
    for path, change in _changes(run):
        if change in found and path in lost:
            found[change] += 1
    return found["added"], found["modified"]
