"""Diff: what has changed since the previous snapshot, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks._base import Stage
from tasks.catalog import moves
from tasks.catalog.changes import OLD_COLUMNS, ChangeWriter, Judge, compare
from tasks.catalog.request import Request, sorted_sources
from tasks.catalog.rowgroups import stream
from tasks.catalog.runs import Run
from tasks.catalog.store import LOST
from tasks.formats.manifest import batches, read_info, words
from tasks.model.errors import SourceEmpty, SourceShrunk
from tasks.model.words import DiffSummary, ScanSummary, SnapshotInfo, SourceRoot
from tasks.scan import ScanSource, source_paths

# Fewer lost files than this may be anybody's tidying up.
_FEW = 5


class DiffManifest(Stage):
    """The change set of a run."""

    result = "diff.json"

    def requires(self) -> list[ScanSource]:
        """Every source is scanned first."""
        sources = self.run_folder.request.profile.source
        return [ScanSource(**self.identity, source=source.name) for source in sources]

    def work(self) -> None:
        """Compare the scans with the previous manifest."""
        summary = diff(self.run_folder)
        self.meter(summary.entries, "entries").add(summary.entries)
        self.run_folder.save(self.result, summary)


def diff(run: Run) -> DiffSummary:
    """Write the run's changes, pack list, carry and kept rows; return the counts.

    Raises SourceEmpty and SourceShrunk where a source lost what nobody may have meant to lose.
    """
    request = run.request
    scans = summaries(run)
    before = _previous(run, request)
    if not request.allow_shrink:
        _brake(run, scans, before)
    paths = [run.path(f"{name}.parquet") for name in ("changes", "pack", "carry", "kept")]
    lenient = frozenset(s.name for s in request.profile.source if s.change_detection == "mtime")
    lost = _lost_rows(run, request)
    judge = Judge(
        lenient=lenient,
        unread=[bytes.fromhex(key) for scan in scans for key in scan.unread],
        forced=request.full,
        lost=lost,
    )
    with ChangeWriter(*paths) as writer:
        found = compare(_new_rows(run, request), _old_rows(run, request), judge, writer)
        writer.close()
    moved = (
        {}
        if request.full or not found.counts["deleted"]
        else moves.find(paths[0], lenient, set(lost.tolist()))
    )
    if moved:
        moves.apply(moved, *paths[:3])
    metadata = found.counts["metadata"]
    summary = DiffSummary(
        entries=found.entries,
        added=found.counts["added"] - len(moved),
        modified=found.counts["modified"],
        moved=len(moved),
        metadata=metadata,
        deleted=found.counts["deleted"] - len(moved),
    )
    if before and not summary.changed and _roots_differ(scans, before):
        summary = replace(summary, metadata=1)
    return summary


def summaries(run: Run) -> list[ScanSummary]:
    """Read what the scans met, in manifest order."""
    names = sorted_sources(run.request)
    return [read_info(run.scan_path(name), ScanSummary) for name in names]


def _new_rows(run: Run, request: Request) -> Iterator[Any]:
    scans = (stream(run.scan_path(name), OLD_COLUMNS) for name in sorted_sources(request))
    return itertools.chain.from_iterable(scans)


def _old_rows(run: Run, request: Request) -> Iterator[Any]:
    if request.previous is None:
        return iter(())
    return stream(run.store.manifest_path(request.previous), OLD_COLUMNS)


def _lost_rows(run: Run, request: Request) -> Any:
    """Return the numbers of the previous rows whose content lay on a cartridge that is lost."""
    names = pa.array(
        sorted(a.archive for a in run.store.archives() if a.state == LOST), pa.string()
    )
    found, base = [np.empty(0, np.int64)], 0
    manifest = run.store.manifest_path(request.previous) if request.previous else ""
    for batch in batches(manifest, ["parts"]) if len(names) and manifest else ():
        parts = batch.column("parts")
        hit = pc.is_in(pc.list_flatten(parts).field("archive"), names)
        rows = pc.list_parent_indices(parts).filter(hit)
        found.append(np.unique(rows.to_numpy(zero_copy_only=False)).astype(np.int64) + base)
        base += batch.num_rows
    return np.concatenate(found)


def _previous(run: Run, request: Request) -> SnapshotInfo | None:
    return run.store.info(request.previous) if request.previous else None


def _brake(run: Run, scans: list[ScanSummary], before: SnapshotInfo | None) -> None:
    paths = source_paths(run.request)
    earlier = {root.source: root for root in before.roots} if before else {}
    for scan in scans:
        name, files = scan.root.source, scan.root.files
        if not scan.root.entries:
            raise SourceEmpty(source=name, path=paths[name])
        known = earlier[name].files if name in earlier else 0
        if before and scan.unread and name in earlier:
            known = _in_sight(run.store.manifest_path(before.snapshot), scan)
        if known - files >= _FEW and known - files > files:
            raise SourceShrunk(source=name, path=paths[name], before=known, now=files)


def _in_sight(manifest: str, scan: ScanSummary) -> int:
    """Count the earlier files of a source but for those that nobody can look for now."""
    unread = [bytes.fromhex(key) for key in scan.unread]
    judge = Judge(lenient=frozenset(), unread=unread, forced=False)
    count = 0
    for rows in stream(manifest, OLD_COLUMNS):
        is_file = pc.equal(words(rows.column("type")), "file")
        is_ours = pc.equal(words(rows.column("source")), scan.root.source)
        files = rows.filter(pc.and_(is_file, is_ours))
        count += files.num_rows - int(judge.kept(files, np.ones(files.num_rows, bool)).sum())
    return count


def _roots_differ(scans: list[ScanSummary], before: SnapshotInfo) -> bool:
    def facts(root: SourceRoot) -> SourceRoot:
        return replace(root, entries=0, files=0)

    return [facts(s.root) for s in scans] != [facts(r) for r in before.roots]
