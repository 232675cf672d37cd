"""`cartridge cat`: the content of one file, on standard output."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pipelines.cli import At, Debug, Snapshot, Workspace, app, finish
from pipelines.loading import Loader
from pipelines.report import Voice
from pipelines.workspace import choose_snapshot, find_workspace, load_profile
from tasks.catalog.runs import Place
from tasks.catalog.selection import select_file
from tasks.media.outlet import Pipe
from tasks.model.errors import DamageFound, DestinationUnusable, FormatDamaged


@app.command(epilog="Example: cartridge cat home docs/letter.txt --at 2026-11-01 > letter.txt")
def cat(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="<source>/<path>, or a path below a source.")
    ],
    snapshot: Snapshot = None,
    at: At = None,
    workspace: Workspace = None,
    json: Annotated[
        bool, typer.Option("--json", help="Tell errors as a JSON object on standard error.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write a file's content to standard output; every byte is checked before it leaves."""
    voice = Voice(json, aside=True)

    def action() -> None:
        folder = find_workspace(workspace)
        place, profile = Place(folder, name), load_profile(folder, name)
        chosen = choose_snapshot(place.store, name, snapshot, at)
        selected = select_file(place.store, chosen, path)
        folders = Loader(profile, place, ask=False).every(selected)
        from tasks.cat import cat as write_out

        try:
            write_out(selected, folders, Pipe(sys.stdout.fileno()))
        except FormatDamaged as error:
            raise DamageFound(damage=f"{path} in snapshot {chosen}: {error}".rstrip(".")) from error
        except BrokenPipeError:  # whoever reads has had enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise DestinationUnusable(path="standard output", reason=reason) from error

    finish(voice, action)
