"""`cartridge label`: make an empty volume the next cartridge of a set."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile, profiles
from tasks.catalog import members
from tasks.catalog.runs import Place
from tasks.model.errors import ProfileInvalid, UsageError, VolumeUnusable
from tasks.model.profile import NAME
from tasks.model.units import parse_size


@app.command(epilog="Example: cartridge label /media/me/disk2 --set home")
def label(
    volume: Annotated[str, typer.Argument(metavar="DIR", help="An empty, mounted volume.")],
    set_name: Annotated[str, typer.Option("--set", metavar="SET", help="The set it joins.")],
    capacity: Annotated[
        str | None, typer.Option("--capacity", metavar="SIZE", help="Use at most so much of it.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Label one volume as the next cartridge of a set."""
    voice = Voice(json)
    folder = find_workspace(workspace)

    def action() -> None:
        if not NAME.fullmatch(set_name):
            raise UsageError(reason=f"'{set_name}' is no name for a set; use letters and digits.")
        path = os.path.abspath(volume)
        if not os.path.isdir(path):
            raise VolumeUnusable(path=path, reason="there is no such folder")
        profile, cap = profile_of_set(folder, set_name) or (set_name, None)
        store, size = Place(folder, profile).store, readable_size(capacity) or cap
        row = members.label(store, path, set_name=set_name, profile=profile, capacity=size)
        facts = {"serial": row.serial, "label": row.label, "uuid": row.uuid, "path": path}
        voice.result(facts, [f"Labelled {path} as cartridge {row.label}."])

    finish(voice, action)


def readable_size(text: str | None) -> int | None:
    """Read a size from the command line; UsageError where it is none."""
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(reason=f"--capacity: {error}.") from error
    if size < 1:
        raise UsageError(reason="--capacity: a cartridge needs room.")
    return size


def profile_of_set(workspace: str, set_name: str) -> tuple[str, int | None] | None:
    """Return the profile that writes to a set, and how many bytes of a cartridge it takes."""
    for name in profiles(workspace):
        try:
            cartridges = load_profile(workspace, name).cartridges
        except ProfileInvalid:
            continue  # another profile's mistakes do not concern this set
        if cartridges.set == set_name:
            return name, cartridges.capacity
    return None
