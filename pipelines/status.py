"""`cartridge status`: how a profile stands, and what the next run will do."""

from __future__ import annotations

import json as jsonlib
import os
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog.runs import Place
from tasks.media import durable
from tasks.model.units import format_size


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
        facts = _facts(place)
        voice.result(facts, _lines(name, facts))

    finish(voice, action)


def _facts(place: Place) -> dict[str, Any]:
    store = place.store
    newest = store.newest()
    unfinished = [run for run in place.runs() if run.has("request.json")]
    waiting = None
    if unfinished:
        run = unfinished[0]
        packed = [p for p in run.packed() if p.bytes]
        placed = run.placed()
        waiting = {
            "snapshot": run.snapshot,
            "archives_packed": len(packed),
            "archives_written": len(placed),
            "bytes_in_spool": sum(p.bytes for p in packed if p.number not in placed),
        }
    return {
        "profile": place.profile_name,
        "snapshots": len(store.snapshots()),
        "newest": newest,
        "looked": _looked(place),
        "unfinished": waiting,
        "cartridges": len(store.cartridges()),
        "bytes_stored": sum(row.bytes for row in store.archives()),
    }


def _looked(place: Place) -> str | None:
    if not os.path.exists(place.looked):
        return None
    looked: str = jsonlib.loads(durable.read_whole(place.looked))["looked"]
    return looked


def _lines(name: str, facts: dict[str, Any]) -> list[str]:
    told = [
        f"{facts['snapshots']} snapshots, the newest {facts['newest'] or 'none yet'}; "
        f"{format_size(facts['bytes_stored'])} on {facts['cartridges']} cartridges."
    ]
    if facts["looked"]:
        told.append(f"Last found unchanged at {facts['looked']}.")
    waiting = facts["unfinished"]
    if waiting:
        told.append(
            f"Snapshot {waiting['snapshot']} is unfinished: {waiting['archives_written']} of "
            f"{waiting['archives_packed']} packed archives are on cartridges. "
            f"'cartridge backup {name}' goes on with it."
        )
    return told
