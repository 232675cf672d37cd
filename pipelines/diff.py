"""`cartridge diff`: what changed between two snapshots."""

from __future__ import annotations

import os
import tempfile
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.ls import print_lines, print_object
from pipelines.report import Voice
from pipelines.workspace import find_workspace, lenient_sources, open_place
from tasks.catalog.changes import Change
from tasks.catalog.compared import KINDS, compare_snapshots
from tasks.catalog.store import Store
from tasks.model.errors import SnapshotMissing


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

    def action() -> int:
        folder = find_workspace(workspace)
        store = open_place(folder, name).store
        older, newer = _pair(store, name, a, b)
        lenient = lenient_sources(folder, name)
        with tempfile.TemporaryDirectory(prefix="cartridge-") as spool:
            found = compare_snapshots(
                store.manifest_path(newer),
                store.manifest_path(older),
                lenient,
                os.path.join(spool, "changes.parquet"),
            )
            if json:
                head = {"older": older, "newer": newer}
                return print_object(head, {kind: found.paths(kind) for kind in KINDS})
            nothing = f"Nothing changed from {older} to {newer}."
            print_lines((map(_line, page) for page in found.changes()), nothing)
            return 0

    finish(voice, action)


def _line(change: Change) -> str:
    return f"{change.change:9} {change.reason:7} {change.path}"


def _pair(store: Store, name: str, a: str | None, b: str | None) -> tuple[str, str]:
    newer = store.require(name, b)
    if a is not None:
        return store.require(name, a), newer
    earlier = [snapshot for snapshot in store.snapshots() if snapshot < newer]
    if not earlier:
        raise SnapshotMissing(profile=name, wanted=f"before {newer}")
    return earlier[-1], newer
