"""`cartridge recover`: rebuild a lost workspace from cartridges alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.passing import facts_of, told
from pipelines.report import Voice, complain, damage_in
from pipelines.workspace import find_workspace, profile_path
from tasks.media.memory import bounded_memory
from tasks.recover import Recovered
from tasks.recover import recover as recover_workspace


@app.command(epilog="Example: cartridge recover /media/me/disk1 /media/me/disk2")
def recover(
    volumes: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Cartridges of one set, all that are left."),
    ],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild profile, catalog and history of a lost workspace from its cartridges."""
    voice = Voice(json)
    facts: dict[str, Any] = {}

    def action() -> None:
        folder = find_workspace(workspace)
        with bounded_memory("a catalog on these cartridges"):
            found = recover_workspace(
                folder, volumes, lambda name: profile_path(folder, name), complain
            )
        facts.update(facts_of(found))
        lines = list(_lines(found, profile_path(folder, found.profile)))
        voice.conclude(facts, lines, damage_in(found.damaged))

    finish(voice, action, lambda error: facts)


def _lines(found: Recovered, profile: str) -> Iterator[str]:
    yield f"Recovered '{found.profile}' with {len(found.snapshots)} snapshots; wrote {profile}."
    yield from told(found)
    if found.nowhere:
        yield f"{found.nowhere} archives are on no cartridge that is known: they are stored again."
    for source, path in found.paths.items():
        yield f"Fill in the folder of the source '{source}' in place of {path}."
    for section in found.left_out:
        yield f"The profile had a section [{section}], which is on no cartridge: write it again."
    if found.snapshots:
        yield f"To restore: cartridge restore {found.profile} DEST"
    yield f"To go on: check the profile, then cartridge backup {found.profile}"
