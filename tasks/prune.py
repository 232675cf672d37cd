"""Prune: forget snapshots that no rule keeps, and remove the archives that only they needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tasks._base import Stage
from tasks.catalog import export, guards, members, placement, retention
from tasks.catalog.lastversions import REASON, holders_of_last_versions
from tasks.catalog.relisted import forget_manifest
from tasks.catalog.request import Request
from tasks.catalog.store import DEAD, Store
from tasks.commit import CommitSnapshot
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.model.errors import (
    CartridgeFailed,
    CartridgeFull,
    CartridgeWanted,
    RunActive,
    WrongCartridge,
)
from tasks.model.profile import Retention
from tasks.model.words import ArchiveRow, CartridgeRow


class PruneBackups(Stage):
    """Retention, applied once at the end of a run."""

    result = "pruned.json"

    def requires(self) -> CommitSnapshot:
        """The new snapshot is known before an old one is forgotten."""
        return CommitSnapshot(**self.identity)

    def work(self) -> None:
        """Plan and execute."""
        run = self.run_folder
        request = run.request
        plan = plan_prune(run.store, request.profile.retention)
        run.save(self.result, execute(plan, request, run.store))


# Errors of one cartridge for which its dead archives wait until it can be written again.
_WAITING = (WrongCartridge, CartridgeFull, CartridgeWanted, RunActive)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What retention asks for: snapshots with the reasons to keep them, and archives to drop."""

    kept: dict[str, list[str]]
    forgotten: list[str]
    dead: list[ArchiveRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune did: bytes freed on present cartridges, bytes noted on absent ones."""

    kept: dict[str, list[str]]
    forgotten: list[str]
    freed: int
    waiting: int


def plan_prune(store: Store, rules: Retention) -> PrunePlan:
    """Decide what goes; nothing is touched."""
    kept = retention.reasons(store.snapshots(), rules)
    for snapshot in holders_of_last_versions(store, kept):
        kept[snapshot].append(REASON)
    forgotten = [snapshot for snapshot, why in kept.items() if not why]
    staying = [snapshot for snapshot, why in kept.items() if why]
    needed = {archive for s in staying for archive in store.info(s).archives}
    # What a snapshot refers to that nobody knows here is older than it, or its own.
    last_unknown = max(store.unknown(), default="")
    dead = [
        row
        for row in store.archives()
        if row.snapshot > last_unknown and not _is_needed(row, needed, staying)
    ]
    return PrunePlan(
        kept={s: why for s, why in kept.items() if why}, forgotten=forgotten, dead=dead
    )


def _is_needed(row: ArchiveRow, needed: set[str], staying: Iterable[str]) -> bool:
    """An archive of headers alone belongs to its snapshot; any other to whoever refers to it."""
    if row.contents == 0:
        return row.snapshot in staying
    return row.archive in needed


def execute(plan: PrunePlan, request: Request, store: Store) -> PruneResult:
    """Forget the snapshots, mark the dead archives, then remove those that are present.

    The index goes before the data: killed at any point, the next prune finishes the work.
    """
    store.forget(plan.forgotten)
    for snapshot in plan.forgotten:
        forget_manifest(store, snapshot)
        durable.remove(store.recipe_path(snapshot))
    dead = {row.archive for row in plan.dead}
    if dead:
        store.update_archives(
            lambda rows: [replace(row, state=DEAD) if row.archive in dead else row for row in rows]
        )
    freed = sweep(request, store)
    _forget_contents(store)
    waiting = sum(row.bytes for row in store.archives() if row.state == DEAD)
    return PruneResult(kept=plan.kept, forgotten=plan.forgotten, freed=freed, waiting=waiting)


def sweep(request: Request, store: Store) -> int:
    """Remove dead archives from the cartridges that are present; return the bytes freed.

    A cartridge that cannot be written now, or that is there twice, waits for the next time; one
    that failed, or was written off, is never written again.
    """
    shelf = members.survey(request, store)
    freed = 0
    for row in store.cartridges():
        if row.state in placement.GIVEN_UP:
            continue
        try:
            cartridge = shelf.find(row.uuid)
            if cartridge is not None and _has_work(cartridge, row, store):
                freed += _sweep_one(cartridge, row, store, request)
        except CartridgeFailed:
            store.alter_cartridge(row.uuid, state=placement.SUSPECT)
        except _WAITING:
            continue
    return freed


def _has_work(cartridge: Cartridge, row: CartridgeRow, store: Store) -> bool:
    dead = any(a.state == DEAD and a.cartridge == row.serial for a in store.archives())
    return dead or bool(export.forgotten(cartridge, store))


def _sweep_one(cartridge: Cartridge, row: CartridgeRow, store: Store, request: Request) -> int:
    dead = {a.archive for a in store.archives() if a.state == DEAD and a.cartridge == row.serial}
    with cartridge.writing():
        guards.check_known(cartridge, store)
        freed = cartridge.drop(dead)
        cartridge.tidy({name.split("/")[1] for name in dead})
        export.refresh(cartridge, store, request.profile.cartridges.capacity)
        store.update_archives(lambda rows: [a for a in rows if a.archive not in dead])
    state = placement.OPEN if dead and row.state == placement.FULL else row.state
    store.alter_cartridge(row.uuid, used=cartridge.used(), state=state)
    return freed


def _forget_contents(store: Store) -> None:
    """Remove the lists of contents of which no archive is left."""
    alive = {row.snapshot for row in store.archives()}
    for snapshot in store.listed_snapshots():
        if snapshot not in alive and snapshot not in store.snapshots():
            durable.remove(store.contents_path(snapshot))
