"""A passing place: what a restore needs of a workspace, made from cartridges alone."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipelines.report import complain
from pipelines.workspace import load_profile, profile_path
from tasks.catalog.runs import Place
from tasks.media.memory import bounded_memory
from tasks.model.profile import Profile
from tasks.recover import Recovered
from tasks.recover import recover as recover_workspace


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
