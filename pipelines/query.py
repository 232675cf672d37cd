"""`cartridge query`: SQL over the catalog, without a cartridge and without changing anything."""

from __future__ import annotations

import csv as csvlib
import importlib
import json as jsonlib
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.ls import print_lines, print_object
from pipelines.report import Voice, printable, table
from pipelines.workspace import find_workspace, open_place
from tasks.catalog.sql import Answer, asking
from tasks.model.errors import UsageError


@app.command(
    epilog="Example: cartridge query home "
    "\"select path, size from entries where snapshot like '202611%' order by size desc limit 9\""
)
def query(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL", help="One SELECT over entries, parts, snapshots, archives, cartridges."
        ),
    ],
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the catalog in SQL (DuckDB): 'describe entries' tells the columns."""
    voice = Voice(json)

    def action() -> int | None:
        if json and csv:
            raise UsageError(reason="--json and --csv exclude each other.")
        _require_duckdb()
        store = open_place(find_workspace(workspace), name).store
        with asking(store, name, sql) as answer:
            if json:
                return print_object({"columns": answer.columns}, {"rows": answer.pages})
            _print_csv(answer) if csv else _print_table(answer)
            sys.stdout.flush()
        return 0

    finish(voice, action)


def _require_duckdb() -> None:
    try:
        importlib.import_module("duckdb")
    except ImportError as error:
        reason = "A query needs DuckDB, which is not here: pip install 'cartridge-backup[query]'"
        raise UsageError(reason=reason) from error


def _print_csv(answer: Answer) -> None:
    writer = csvlib.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    for page in answer.pages:
        writer.writerows(map(_cells, page))


def _print_table(answer: Answer) -> None:
    """Print pages of rows, each under heads of its own, as wide as it has to be."""
    pages = (list(map(_cells, page)) for page in answer.pages)
    if not sys.stdout.isatty():
        print_lines((table(answer.columns, page) for page in pages), "There is no such row.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for page in pages:
        drawn = Table(*map(_shown, answer.columns))
        for row in page:
            drawn.add_row(*(Text(_shown(cell)) for cell in row))
        Console().print(drawn)


def _shown(cell: str) -> str:
    return printable(cell.replace("\n", "\N{REPLACEMENT CHARACTER}"))


def _cells(row: Iterable[Any]) -> list[str]:
    """Write values as text: nothing for null, lists and the like as JSON."""
    return [
        cell if isinstance(cell, str) else "" if cell is None else jsonlib.dumps(cell)
        for cell in row
    ]
