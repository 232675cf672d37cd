"""`cartridge diff`: what changed between two snapshots."""

from __future__ import annotations

import os
import tempfile
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog import moves
from tasks.catalog.changes import OLD_COLUMNS, ChangeWriter, Judge, compare, listed
from tasks.catalog.store import Store
from tasks.formats.manifest import batches
from tasks.model.errors import SnapshotMissing

_KINDS = ("added", "modified", "moved", "metadata", "deleted")


@app.command(epilog="Example: cartridge diff home")
def diff(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    a: Annotated[str | None, typer.Argument(metavar="[A]", help="The older snapshot.")] = None,
    b: Annotated[str | None, typer.Argument(metavar="[B]", help="The newer one.")] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List what changed between two snapshots, the last two by default."""
    voice = Voice(json)

    def action() -> None:
        store = open_place(find_workspace(workspace), name).store
        older, newer = _pair(store, name, a, b)
        found: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        told = []
        for change in changes_between(store, older, newer):
            found[change.change].append(change.path)
            told.append(f"{change.change:9} {change.reason:7} {change.path}")
        facts = {"older": older, "newer": newer, **found}
        voice.result(facts, told or [f"Nothing changed from {older} to {newer}."])

    finish(voice, action)


def _pair(store: Store, name: str, a: str | None, b: str | None) -> tuple[str, str]:
    newer = store.require(name, b)
    if a is not None:
        return store.require(name, a), newer
    earlier = [snapshot for snapshot in store.snapshots() if snapshot < newer]
    if not earlier:
        raise SnapshotMissing(profile=name, wanted=f"before {newer}")
    return earlier[-1], newer


def changes_between(store: Store, older: str, newer: str) -> list:  # type: ignore[type-arg]
    """Compare two manifests by the rules of a backup."""
    with tempfile.TemporaryDirectory(prefix="cartridge-") as folder:
        paths = [os.path.join(folder, n) for n in ("changes", "pack", "carry", "kept")]
        writer = ChangeWriter(*paths)
        sides = [batches(store.manifest_path(s), OLD_COLUMNS) for s in (newer, older)]
        judge = Judge(lenient=frozenset(), unread=(), forced=False)
        compare(sides[0], sides[1], judge, writer)
        writer.close()
        moved = moves.find(paths[0])
        if moved:
            moves.apply(moved, *paths[:3])
        return list(listed(paths[0]))
