"""`cartridge find`: where files lie, in any snapshot, without a cartridge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.ls import print_lines, print_object
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.catalog import search
from tasks.catalog.search import Match, Wanted
from tasks.model.errors import UsageError
from tasks.model.units import parse_moment, parse_size

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@app.command(epilog="Example: cartridge find home '*.jpg' --larger 5MB --deleted")
def find(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    mask: Annotated[
        list[str],
        typer.Argument(metavar="MASK...", help="With *, ? and [a-z]: a name, or a path."),
    ],
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="Only this one, not all.")
    ] = None,
    larger: Annotated[
        str | None, typer.Option("--larger", metavar="SIZE", help="Only files of more than SIZE.")
    ] = None,
    smaller: Annotated[
        str | None, typer.Option("--smaller", metavar="SIZE", help="Only files of less than SIZE.")
    ] = None,
    newer: Annotated[
        str | None, typer.Option("--newer", metavar="TIME", help="Modified after TIME only.")
    ] = None,
    older: Annotated[
        str | None, typer.Option("--older", metavar="TIME", help="Modified before TIME only.")
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Only what the newest snapshot has no longer.")
    ] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find files in all snapshots, and the cartridges that hold them."""
    voice = Voice(json)

    def action() -> int:
        store = open_place(find_workspace(workspace), name).store
        wanted = Wanted(
            masks=tuple(mask),
            larger=_read("--larger", larger, parse_size),
            smaller=_read("--smaller", smaller, parse_size),
            newer=_read("--newer", newer, _nanoseconds),
            older=_read("--older", older, _nanoseconds),
            gone=deleted,
        )
        chosen = [store.require(name, snapshot)] if snapshot else store.snapshots()
        found = search.find(store, chosen, wanted)
        if json:
            matches = ([match.facts() for match in page] for page in found)
            return print_object({}, {"matches": matches})
        print_lines((map(_line, page) for page in found), "Nothing matches.")
        return 0

    finish(voice, action)


def _read(option: str, text: str | None, parse: Callable[[str], int]) -> int | None:
    try:
        return None if text is None else parse(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(reason=f"{option}: {error}.") from error


def _nanoseconds(text: str) -> int:
    """Read a time as nanoseconds since 1970."""
    try:
        return (parse_moment(text) - _EPOCH) // timedelta(microseconds=1) * 1000
    except ValueError as error:
        raise ValueError(f"'{text}' is not a time like '2026-11-01 12:00'") from error


def _line(match: Match) -> str:
    entry, held = match.entry, ", ".join(map(str, match.cartridges)) or "-"
    return f"{match.snapshot} {entry.size:>14} [{held}] {entry.source}/{entry.path}"
