"""`cartridge init`: write a profile, and label empty directories as its cartridges."""

from __future__ import annotations

import glob
import os
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.label import profile_of_set, readable_size
from pipelines.report import Voice
from pipelines.workspace import find_workspace, profile_path
from tasks.catalog import members
from tasks.catalog.runs import Place
from tasks.media import durable
from tasks.media.labelling import require_empty
from tasks.model.errors import ProfileExists, UsageError, VolumeUnusable
from tasks.model.profile import NAME, free_name, parse_profile
from tasks.model.profile_text import quoted as toml_text
from tasks.model.units import format_size

_TEMPLATE = """\
# A profile of cartridge: one backup job. Run it with: cartridge backup {name}
{sources}
[cartridges]
set = {set}
search = {search}{capacity}

# [retention]                      # without it every snapshot is kept
# keep_last = 3
# keep_daily = 7
# keep_weekly = 4
# keep_monthly = 12
"""
_SOURCE = """
[[source]]
name = {name}
path = {path}
# exclude = ["*.tmp", "cache/"]     # gitignore syntax
"""


@app.command(epilog="Example: cartridge init home --source ~/Documents --cartridge /media/me/disk1")
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile to write.")],
    source: Annotated[
        list[str], typer.Option("--source", metavar="DIR", help="A folder to back up.")
    ],
    cartridge: Annotated[
        list[str] | None,
        typer.Option("--cartridge", metavar="DIR", help="An empty volume to label."),
    ] = None,
    capacity: Annotated[
        str | None, typer.Option("--capacity", metavar="SIZE", help="Use at most so much of each.")
    ] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", metavar="SET", help="The set's name (the profile's).")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a profile and label cartridges for it."""
    voice = Voice(json)
    folder = find_workspace(workspace)

    def action() -> None:
        if not NAME.fullmatch(name):
            raise UsageError(reason=f"'{name}' is no name for a profile; use letters and digits.")
        path = profile_path(folder, name)
        if os.path.exists(path):
            raise ProfileExists(profile=name, file=path)
        size = readable_size(capacity)
        volumes = [os.path.abspath(os.path.expanduser(volume)) for volume in cartridge or []]
        text = profile_text(name, source, volumes, size, set_name or name)
        joined = parse_profile(name, text, path).cartridges.set
        owner = profile_of_set(folder, joined)
        if owner is not None:
            reason = f"The set '{joined}' is that of the profile '{owner[0]}'; name another"
            raise UsageError(reason=f"{reason} with --set.")
        made = [volume for volume in volumes if make_volume(volume)]
        for volume in volumes:
            require_empty(volume)  # all of them, before one is labelled
        store = Place(folder, name).store
        rows = [
            members.label(store, volume, set_name=joined, profile=name, capacity=size)
            for volume in volumes
        ]
        durable.make_folders(os.path.dirname(path))
        durable.write_whole(path, text.encode())
        told = [f"Wrote {path}."]
        told += [f"Made the folder {each}; if a disk was meant, mount it." for each in made]
        told += [f"Labelled {row.location} as cartridge {row.label}." for row in rows]
        told += [f"To back up: cartridge backup {name}"]
        facts = {
            "profile": name,
            "file": path,
            "cartridges": [
                {"serial": r.serial, "label": r.label, "uuid": r.uuid, "path": r.location}
                for r in rows
            ],
        }
        voice.result(facts, told)

    finish(voice, action)


def profile_text(
    name: str, sources: list[str], volumes: list[str], capacity: int | None, set_name: str
) -> str:
    """Write a profile as TOML; JSON's strings and lists of strings are TOML's too."""
    taken: set[str] = set()
    parts = []
    for source in sources:
        path = os.path.abspath(os.path.expanduser(source))
        source_name = free_name(os.path.basename(path), taken)
        taken.add(source_name)
        parts.append(_SOURCE.format(name=quoted(source_name), path=quoted(path)))
    search = f"[{', '.join(quoted(glob.escape(volume)) for volume in volumes)}]"
    limit = f'\ncapacity = "{capacity}"  # {format_size(capacity)}' if capacity else ""
    return _TEMPLATE.format(
        name=name, sources="".join(parts), set=quoted(set_name), search=search, capacity=limit
    )


def quoted(text: str) -> str:
    """Write a text as a string of TOML; UsageError where it is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(reason=f"{text!a} is not UTF-8 and cannot stand in a profile.") from None
    return toml_text(text)


def make_volume(volume: str) -> bool:
    """Make a folder to be labelled where there is none; VolumeUnusable where that cannot be."""
    is_new = not os.path.isdir(volume)
    try:
        os.makedirs(volume, exist_ok=True)
        return is_new
    except OSError as error:
        raise VolumeUnusable(path=volume, reason=error.strerror) from error
