"""`cartridge cartridges`: what is where, how full, and when it was verified."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.overview import shelved
from pipelines.report import Voice, table
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.runs import Place
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
        found = shelved(Place(folder, name), profile)
        facts = [
            {**asdict(one.row), "archives": one.archives, "present": one.path is not None}
            for one in found
        ]
        shown = [
            (
                one.row.label,
                one.row.state,
                format_size(one.row.used),
                format_size(one.row.capacity) if one.row.capacity else "",
                one.archives,
                one.row.verified or "no",
                one.path or "not here",
            )
            for one in found
        ]
        heads = ("cartridge", "state", "used", "capacity", "archives", "verified", "place")
        told = table(heads, shown) or ["No cartridge is labelled yet."]
        voice.result({"cartridges": facts}, told)

    finish(voice, action)
