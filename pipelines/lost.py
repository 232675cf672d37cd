"""`cartridge lost`: a cartridge will not come back; store again what lay only there."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog import placement
from tasks.catalog.store import LOST, STORED
from tasks.media import durable, locks
from tasks.model.errors import UsageError
from tasks.model.units import format_size


@app.command(epilog="Example: cartridge lost home 3")
def lost(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    serial: Annotated[int, typer.Argument(metavar="SERIAL", help="The cartridge's number.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a cartridge off: the next backup stores again what it held and still exists."""
    voice = Voice(json)

    def action() -> None:
        from tasks.verify import note_damage

        place = open_place(find_workspace(workspace), name)
        durable.make_folders(place.folder)
        with locks.ProfileLock(place.lock, name).alone():
            row = next((r for r in place.store.cartridges() if r.serial == serial), None)
            if row is None:
                raise UsageError(reason=f"The profile '{name}' has no cartridge {serial}.")
            gone = [a for a in place.store.archives() if a.cartridge == serial]
            names = {archive.archive for archive in gone}
            run = place.unfinished()
            if run is not None:  # it may have found that nothing of it has to be stored again
                note_damage(run, {a.archive for a in gone if a.state == STORED})
            # In this order: a cartridge that is lost need not be written off again.
            place.store.update_archives(
                lambda rows: [replace(r, state=LOST) if r.archive in names else r for r in rows]
            )
            place.store.alter_cartridge(row.uuid, state=placement.LOST)
            touched = [
                s for s in place.store.snapshots() if names & {*place.store.info(s).archives}
            ]
        size = sum(archive.bytes for archive in gone)
        told = [
            f"Cartridge {row.label} is written off: {len(gone)} archives, {format_size(size)}, "
            f"which {len(touched)} snapshots need.",
            f"'cartridge backup {name}' stores again what of it still exists.",
        ]
        facts = {"serial": serial, "archives": len(gone), "bytes": size, "snapshots": touched}
        voice.result(facts, told)

    finish(voice, action)
