"""`cartridge log`: all versions of a file, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, table
from pipelines.workspace import find_workspace, open_place
from tasks.catalog.history import Version, history

_HEADS = ("first", "last", "change", "mtime", "size", "sha256", "cartridges")
_DIGITS = 16


@app.command(epilog="Example: cartridge log home docs/thesis.tex")
def log(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="<source>/<path>, or a path below a source.")
    ],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the versions of a file in all snapshots, oldest first."""
    voice = Voice(json)

    def action() -> None:
        store = open_place(find_workspace(workspace), name).store
        store.require(name, None)
        versions, deleted = history(store, path)
        facts = {"versions": [version.facts() for version in versions], "deleted": deleted}
        voice.result(facts, _lines(versions, deleted))

    finish(voice, action)


def _lines(versions: list[Version], deleted: str | None) -> Iterator[str]:
    yield f"{versions[-1].source}/{versions[-1].path}"
    yield from table(_HEADS, map(_row, versions))
    if deleted:
        yield f"Deleted: snapshot {deleted} has it no longer."


def _row(version: Version) -> tuple[object, ...]:
    held = ", ".join(map(str, version.cartridges)) or "-"
    digest = (version.sha256 or "-")[:_DIGITS]
    first, last = version.snapshot, version.last
    return (first, last, version.change, version.mtime, version.size, digest, held)
