"""`cartridge ls`: what a snapshot has."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.restore import choose_snapshot
from pipelines.workspace import find_workspace, open_place
from tasks.catalog import queries


@app.command(epilog="Example: cartridge ls home docs/2026")
def ls(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Only what is at and below it.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="Not the newest one.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The newest one not later.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the entries of a snapshot."""
    voice = Voice(json)

    def action() -> None:
        store = open_place(find_workspace(workspace), name).store
        chosen = choose_snapshot(store, name, snapshot, at)
        found = queries.entries(store, chosen, path)
        if json:
            voice.result({"snapshot": chosen, "entries": [e.facts() for e in found]}, ())
        else:
            voice.result(
                {}, (f"{e.size:>14} {e.mtime} {e.type:8} {e.source}/{e.path}" for e in found)
            )

    finish(voice, action)
