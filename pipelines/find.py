"""`cartridge find`: where files lie, in any snapshot, without a cartridge."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog import queries


@app.command(epilog="Example: cartridge find home '*.jpg' 'docs/taxes*'")
def find(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    mask: Annotated[list[str], typer.Argument(metavar="MASK...", help="Names with * and ?.")],
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="Only this one, not all.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find files in all snapshots, and the cartridges that hold them."""
    voice = Voice(json)

    def action() -> None:
        store = open_place(find_workspace(workspace), name).store
        chosen = [store.require(name, snapshot)] if snapshot else store.snapshots()
        facts, told = [], []
        for each in chosen:
            for entry, serials in queries.find(store, each, mask):
                facts.append({**entry.facts(), "snapshot": each, "cartridges": serials})
                where = ", ".join(map(str, serials)) or "-"
                told.append(f"{each} {entry.size:>14} [{where}] {entry.source}/{entry.path}")
        voice.result({"matches": facts}, told or ["Nothing matches."])

    finish(voice, action)
