"""`cartridge snapshots`: which states can be restored."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, table
from pipelines.workspace import find_workspace, open_place
from tasks.model.units import format_size


@app.command(epilog="Example: cartridge snapshots home")
def snapshots(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the snapshots of a profile, oldest first."""
    voice = Voice(json)

    def action() -> None:
        store = open_place(find_workspace(workspace), name).store
        infos = [store.info(snapshot) for snapshot in store.snapshots()]
        facts = [
            {
                "id": info.snapshot,
                "time": info.time,
                "entries": info.entries,
                "files": info.files,
                "bytes": info.bytes,
                "unreadable": len(info.troubles),
            }
            for info in infos
        ]
        rows = [(i.snapshot, i.time, i.entries, i.files, format_size(i.bytes)) for i in infos]
        told = table(("id", "time", "entries", "files", "size"), rows)
        voice.result({"snapshots": facts}, told or ["There is no snapshot yet."])

    finish(voice, action)
