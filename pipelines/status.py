"""`cartridge status`: how a profile stands, and what the next run will do."""

from __future__ import annotations

import json as jsonlib
import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.notices import waiting
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog.drills import Proof, in_use, proofs
from tasks.catalog.runs import Place, Run
from tasks.media import durable, locks
from tasks.model.units import format_size, parse_moment, snapshot_time
from tasks.model.words import ArchivesPlan


@app.command(epilog="Example: cartridge status home")
def status(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how a profile stands and what is unfinished."""
    voice = Voice(json)

    def action() -> None:
        place = open_place(find_workspace(workspace), name)
        facts = standing(place)
        voice.result(facts, lines(name, facts))

    finish(voice, action)


def standing(place: Place) -> dict[str, Any]:
    """Gather how a profile stands, as JSON has it."""
    store = place.store
    newest, notice = store.newest(), waiting(place)
    run = place.unfinished()
    found = None
    if run is not None:
        packed = [p for p in run.packed() if p.bytes]
        placed = run.placed()
        plan = run.load("plan.json", ArchivesPlan) if run.has("plan.json") else None
        found = {
            "snapshot": run.snapshot,
            "stage": _stage(run),
            "bundles": len(plan.bundles) if plan else None,
            "bundles_packed": sum(n.endswith(".json") for n in os.listdir(run.path("bundles"))),
            "archives_packed": len(packed),
            "archives_written": len(placed),
            "bytes_in_spool": sum(p.bytes for p in packed if p.number not in placed),
        }
    return {
        "profile": place.profile_name,
        "snapshots": len(store.snapshots()),
        "newest": newest,
        "looked": _looked(place),
        "unfinished": found,
        "running": locks.is_held(place.lock),
        "waiting": notice.message if notice and locks.is_held(place.lock) else None,
        "cartridges": len(store.cartridges()),
        "bytes_stored": sum(row.bytes for row in store.archives()),
        "proven": _proven(place, datetime.now(UTC)),
    }


def _proven(place: Place, now: datetime) -> list[dict[str, Any]]:
    """Tell of every cartridge that is in use how many days ago a drill has restored from it."""
    known = proofs(place)
    found = []
    for row in in_use(place.store):
        proof = known.get(row.uuid, Proof())
        age = max((now - parse_moment(proof.proven)).days, 0) if proof.proven else None
        facts = {"serial": row.serial, "label": row.label, **proof._asdict(), "days": age}
        found.append(facts)
    return found


def _stage(run: Run) -> str:
    """Return the stage that the next run goes on with, in the words of the stages."""
    for done, stage in (("diff.json", "scan"), ("plan.json", "plan"), ("spanned.json", "write")):
        if not run.has(done):
            return stage
    return "prune" if run.has("outcome.json") else "commit"


def last_looked(place: Place) -> datetime | None:
    """Return when the sources were last seen to be backed up: a snapshot, or nothing new."""
    newest, looked = place.store.newest(), _looked(place)
    times = [snapshot_time(newest)] if newest else []
    return max([*times, *([parse_moment(looked)] if looked else [])], default=None)


def _looked(place: Place) -> str | None:
    if not os.path.exists(place.looked):
        return None
    looked: str = jsonlib.loads(durable.read_whole(place.looked))["looked"]
    return looked


def lines(name: str, facts: dict[str, Any]) -> list[str]:
    """Tell people how a profile stands."""
    told = [
        f"{facts['snapshots']} snapshots, the newest {facts['newest'] or 'none yet'}; "
        f"{format_size(facts['bytes_stored'])} on {facts['cartridges']} cartridges."
    ]
    if facts["looked"]:
        told.append(f"Last found unchanged at {facts['looked']}.")
    told += [f"{one['label']}: last proven restore {_age(one)}." for one in facts["proven"]]
    if facts["running"]:
        told.append(facts["waiting"] or "A run is at work on it.")
    rest = facts["unfinished"]
    if rest:
        of = f" of {rest['bundles']}" if rest["bundles"] is not None else ""
        told.append(
            f"Snapshot {rest['snapshot']} is unfinished: {rest['bundles_packed']}{of} bundles are "
            f"packed, {rest['archives_written']} of {rest['archives_packed']} archives are on "
            f"cartridges, {format_size(rest['bytes_in_spool'])} wait in the spool."
        )
        told.append(
            f"'cartridge backup {name}' goes on with it (next: {rest['stage']}); with --abandon "
            "it is given up."
        )
    elif not facts["running"]:
        told.append(f"'cartridge backup {name}' begins a new snapshot.")
    return told


def _age(one: dict[str, Any]) -> str:
    """Say when a cartridge was last proven, and whether a drill has found damage since."""
    days, failed = one["days"], one["failed"]
    words = {None: "never", 0: "today", 1: "yesterday"}.get(days, f"{days} days ago")
    if failed and failed >= (one["proven"] or ""):
        return f"{words}; a drill found damage on {failed[:10]}"
    return words
