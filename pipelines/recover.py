"""`cartridge recover`: rebuild a lost workspace from cartridges alone."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, complain
from pipelines.workspace import find_workspace, load_profile, profile_path
from tasks.catalog.runs import Place
from tasks.media.processes import bounded_memory
from tasks.model.errors import CartridgeError, DamageFound
from tasks.model.profile import Profile
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
        conclude(voice, facts, lines, damage_in(facts))

    finish(voice, action, lambda error: facts)


def conclude(
    voice: Voice, facts: dict[str, Any], lines: Iterable[str], trouble: CartridgeError | None
) -> None:
    """Say what was done, and raise the trouble that was met on the way."""
    if trouble is None or not voice.json:
        voice.result(facts, lines)
    if trouble is not None:
        raise trouble


def damage_in(recovered: dict[str, Any]) -> DamageFound | None:
    """Return the damage that a recover has met, from what machines are told of it."""
    damaged = recovered.get("damaged")
    return DamageFound(damage=", ".join(damaged)) if damaged else None


@contextlib.contextmanager
def passing_place(volumes: list[str]) -> Iterator[tuple[Place, Profile, Recovered]]:
    """Give what a restore needs, made from cartridges; it is gone after the block.

    No cartridge is looked for where the profile or the catalog says: only those given count.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cartridge-") as folder,
        bounded_memory("a catalog on these cartridges"),
    ):
        found = recover_workspace(
            folder, volumes, lambda name: profile_path(folder, name), complain, lists=False
        )
        place = Place(folder, found.profile)
        given = {os.path.realpath(volume) for volume in volumes}
        place.store.update_cartridges(
            lambda rows: [r if r.location in given else replace(r, location="") for r in rows]
        )
        profile = load_profile(folder, found.profile)
        search = {"search": [glob.escape(path) for path in given]}
        cartridges = profile.cartridges.model_copy(update=search)
        yield place, profile.model_copy(update={"cartridges": cartridges}), found


def facts_of(found: Recovered) -> dict[str, Any]:
    """Return what machines are told of a recover."""
    return {
        "profile": found.profile,
        "snapshots": found.snapshots,
        "missing": {
            "snapshots": found.missing_snapshots,
            "cartridges": found.missing_cartridges,
        },
        "damaged": found.damaged,
        "from_archives": found.is_unearthed,
        "fill_in": found.paths,
    }


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


def told(found: Recovered) -> Iterator[str]:
    """Say in sentences what is not as it was."""
    if found.is_unearthed:
        yield (
            "No manifest could be read: the one snapshot is made from the archives. It has the "
            "newest version of every file that lies in one, deleted files too; files that were "
            "stored under another name are not in it, and large files may be of an older version."
        )
    elif set(found.partial) & set(found.snapshots):
        yield "No snapshot is complete on these cartridges: each has only what was written here."
    for snapshot in found.missing_snapshots:
        why = "it was unfinished, or its last cartridge was not given"
        reason = why if snapshot in found.partial else "its manifest is on no cartridge given"
        yield f"Snapshot {snapshot} is missing: {reason}."
    for label in found.missing_cartridges:
        yield f"Cartridge {label} was not given: what lies on it is known, and needs it to restore."
