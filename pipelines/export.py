"""`cartridge export`: a snapshot as one plain tar, for any program that reads tar."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli import At, Debug, Json, Snapshot, Workspace, app, finish
from pipelines.loading import Loader
from pipelines.report import Voice, few
from pipelines.workspace import choose_snapshot, find_workspace, load_profile
from tasks.catalog.runs import Place
from tasks.catalog.selection import select
from tasks.media import durable
from tasks.media.outlet import Outlet, Pipe, appearing
from tasks.model.errors import DamageFound, DestinationUnusable, UsageError
from tasks.model.units import format_size

if TYPE_CHECKING:
    from tasks.export import Exported

_STDOUT = "-"


@app.command(epilog="Example: cartridge export home -o /srv/home.tar --at 2026-11-01")
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Only what they match.")
    ] = None,
    *,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="A new file; - for standard output."),
    ],
    snapshot: Snapshot = None,
    at: At = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a snapshot as one tar file and verify every byte of it."""
    voice = Voice(json, aside=output == _STDOUT)
    began = time.monotonic()
    facts: dict[str, Any] = {}

    def action() -> None:
        folder = find_workspace(workspace)
        place, profile = Place(folder, name), load_profile(folder, name)
        chosen = choose_snapshot(place.store, name, snapshot, at)
        selected = select(place.store, chosen, patterns or [])
        folders = Loader(profile, place, ask=False).every(selected)
        from tasks.export import export as write_tar

        with _outlet(output) as out:
            result = write_tar(selected, place.store.info(chosen).roots, folders, out)
        seconds = round(time.monotonic() - began, 3)
        facts.update(_facts(chosen, output, result), cartridges=sorted(folders), seconds=seconds)
        if result.damaged:
            lacks = f"{len(result.damaged)} not in {output}, which has all else"
            raise DamageFound(damage=f"{lacks}: {few(result.damaged)}")
        told = (
            f"Exported {result.files} files, {format_size(result.bytes)}, of snapshot {chosen} to "
            f"{output} in {seconds:.1f} s; every checksum is right."
        )
        voice.result(facts, [told])

    finish(voice, action, lambda error: facts)


@contextlib.contextmanager
def _outlet(output: str) -> Iterator[Outlet]:
    """Give what to write the tar to; a file appears under its name when it is whole."""
    if output == _STDOUT and sys.stdout.isatty():
        raise UsageError(reason="A tar is nothing for a terminal: name a file with -o.")
    try:
        if output == _STDOUT:
            yield Pipe(sys.stdout.fileno())
        else:
            with appearing(os.path.abspath(output)) as file:
                yield file
    except BrokenPipeError:
        raise
    except FileExistsError as error:
        reason = f"{output} is there already, and an export overwrites nothing: name another file."
        raise UsageError(reason=reason) from error
    except BlockingIOError as error:
        reason = f"Another export is writing {output}{durable.DRAFT}: name another file."
        raise UsageError(reason=reason) from error
    except OSError as error:
        raise DestinationUnusable(path=output, reason=error.strerror or error) from error


def _facts(snapshot: str, output: str, result: Exported) -> dict[str, Any]:
    return {
        "snapshot": snapshot,
        "file": output,
        "entries": result.entries,
        "files": result.files,
        "bytes": result.bytes,
        "damaged": result.damaged,
    }
