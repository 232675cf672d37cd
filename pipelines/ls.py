"""`cartridge ls`: what a snapshot has."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from pipelines.cli import At, Debug, Json, Snapshot, Workspace, app, debugging, finish
from pipelines.report import Voice, printable
from pipelines.workspace import choose_snapshot, find_workspace, open_place
from tasks.catalog import queries
from tasks.catalog.queries import Entry
from tasks.model.errors import CartridgeError, Interrupted, StageFailed


@app.command(epilog="Example: cartridge ls home docs/2026")
def ls(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Only what is at and below it.")
    ] = None,
    snapshot: Snapshot = None,
    at: At = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the entries of a snapshot."""
    voice = Voice(json)

    def action() -> int:
        store = open_place(find_workspace(workspace), name).store
        chosen = choose_snapshot(store, name, snapshot, at)
        found = queries.entries(store, chosen, path)
        if json:
            listed = ([entry.facts() for entry in page] for page in found)
            return print_object({"snapshot": chosen}, {"entries": listed})
        print_lines((map(_line, page) for page in found), "There is nothing of that path.")
        return 0

    finish(voice, action)


def _line(entry: Entry) -> str:
    return f"{entry.size:>14} {entry.mtime} {entry.type:8} {entry.source}/{entry.path}"


def print_lines(pages: Iterable[Iterable[str]], nothing: str) -> None:
    """Print pages of lines as they come; `nothing` where there are none. A line stays one line."""
    silent = True
    for page in pages:
        lines = [line if line.isprintable() else _safe(line) for line in page]
        if lines:
            print("\n".join(lines), flush=True)
            silent = False
    if silent:
        print(_safe(nothing))


def _safe(line: str) -> str:
    return printable(line.replace("\n", "\N{REPLACEMENT CHARACTER}"))


def print_object(head: Mapping[str, Any], lists: Mapping[str, Iterable[Iterable[Any]]]) -> int:
    """Print one JSON object whose lists come page by page; return the exit code.

    An error between two pages ends the list, and what it has to say follows in the same object.
    """
    print(jsonlib.dumps(head)[:-1], end="")
    between = ", " if head else ""
    for key, pages in lists.items():
        print(f"{between}{jsonlib.dumps(key)}: [", end="")
        stopped = _print_items(pages)
        if stopped:
            facts = {"error": stopped.name, "message": str(stopped), "help": stopped.help}
            print("], " + jsonlib.dumps({**facts, "exit_code": stopped.exit_code})[1:])
            return stopped.exit_code
        print("]", end="")
        between = ", "
    print("}")
    return 0


def _print_items(pages: Iterable[Iterable[Any]]) -> CartridgeError | None:
    between = ""
    try:
        for page in pages:
            items = jsonlib.dumps(list(page))[1:-1]
            if items:
                print(between + items, end="", flush=True)
                between = ", "
    except CartridgeError as error:
        return error
    except KeyboardInterrupt:
        return Interrupted()
    except BrokenPipeError:
        raise
    except Exception as error:  # what nobody foresaw must not break the object either
        if debugging():
            raise
        return StageFailed.from_error("cartridge", error)
    return None
