"""`cartridge cartridges`: what is where, how full, and when it was verified."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, table
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.runs import Place
from tasks.media.shelf import look
from tasks.model.units import format_size


@app.command(epilog="Example: cartridge cartridges home")
def cartridges(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the cartridges of a profile."""
    voice = Voice(json)

    def action() -> None:
        folder = find_workspace(workspace)
        profile = load_profile(folder, name)
        store = Place(folder, name).store
        rows = store.cartridges()
        archives = Counter(row.cartridge for row in store.archives())
        shelf = look(profile.cartridges.search, [row.location for row in rows], folder)
        here = {cartridge.label.uuid: cartridge.path for cartridge in shelf.cartridges}
        facts = [
            {**asdict(row), "archives": archives[row.serial], "present": row.uuid in here}
            for row in rows
        ]
        shown = [
            (
                row.label,
                row.state,
                format_size(row.used),
                format_size(row.capacity) if row.capacity else "",
                archives[row.serial],
                row.verified or "never",
                here.get(row.uuid, "not here"),
            )
            for row in rows
        ]
        heads = ("cartridge", "state", "used", "capacity", "archives", "verified", "place")
        told = table(heads, shown) or ["No cartridge is labelled yet."]
        voice.result({"cartridges": facts}, told)

    finish(voice, action)
