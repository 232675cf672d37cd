"""`cartridge report`: a page with pictures of what is where, how full, and when it was verified."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Annotated

import typer

from pipelines import status
from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.overview import Shelved, Taken, shelved, taken
from pipelines.report import Voice, printable
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.runs import Place
from tasks.media import durable
from tasks.model.errors import DestinationUnusable
from tasks.model.units import format_size, iso

_STYLE = """
body { font: 15px/1.5 sans-serif; color: #1f2933; max-width: 75em; margin: 2em auto }
h1, h2 { font-weight: 600 } h2 { margin-top: 2em }
table { border-collapse: collapse } .wide { overflow-x: auto }
th, td { text-align: left; padding: .25em .9em .25em 0; border-bottom: 1px solid #d9dee3 }
td.number, th.number { text-align: right }
.away { color: #7a8794 } .bad { color: #b5382a; font-weight: 600 }
footer { margin-top: 3em; color: #7a8794 }
"""
_FULL, _FREE, _BAD = "#2f6f9f", "#e4e9ee", "#b5382a"
_BAR, _DOT = (180, 14), 22
_BAD_STATES = ("suspect", "lost")


@app.command(epilog="Example: cartridge report home -o home.html")
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="The page, one HTML file.")
    ],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a page with pictures: what is where, how full, verified when."""
    voice = Voice(json)

    def action() -> None:
        folder = find_workspace(workspace)
        profile, place = load_profile(folder, name), Place(folder, name)
        shelf, snapshots = shelved(place, profile), taken(place)
        standing = status.lines(name, status.standing(place))
        text = html(name, iso(datetime.now(UTC)), standing, shelf, snapshots)
        try:
            durable.write_whole(os.path.abspath(output), text.encode())
        except OSError as error:
            raise DestinationUnusable(path=output, reason=error.strerror or error) from error
        facts = {"file": output, "cartridges": len(shelf), "snapshots": len(snapshots)}
        voice.result(facts, [f"Wrote {output}: open it in a browser."])

    finish(voice, action)


def html(
    name: str,
    made: str,
    standing: Iterable[str],
    shelf: Sequence[Shelved],
    snapshots: Sequence[Taken],
) -> str:
    """Return the page: one file without scripts, with its pictures in it.

    `made` is when, `standing` says in sentences how the profile stands.
    """
    title = f"Backups of {name}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{_text(title)}</h1>",
        *(f"<p>{_text(line)}</p>" for line in standing),
        "<h2>Cartridges</h2>",
        _cartridges(shelf),
        "<h2>Snapshots</h2>",
        _snapshots(snapshots),
        "<h2>What is where</h2>",
        "<p>What a restore of a snapshot reads: the larger a dot, the more of it lies there.</p>",
        _whereabouts(shelf, snapshots),
        f"<footer>Made by cartridge at {_text(made)}.</footer>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _cartridges(shelf: Sequence[Shelved]) -> str:
    heads = ("cartridge", "full", "", "archives", "verified", "state", "place")
    rows = []
    for one in shelf:
        row = one.row
        is_bad = row.state in _BAD_STATES
        size = f" of {format_size(row.capacity)}" if row.capacity else ""
        cells = [
            _cell(row.label),
            f"<td>{_bar(row.used, row.capacity or row.used, is_bad=is_bad)}</td>",
            _cell(f"{format_size(row.used)}{size}"),
            _cell(one.archives, "number"),
            _cell(row.verified or "no", "" if row.verified else "bad"),
            _cell(row.state, "bad" if is_bad else ""),
            _cell(one.path or f"not here, last at {row.location}", "" if one.path else "away"),
        ]
        rows.append(cells)
    return _table(heads, rows, "No cartridge is labelled yet.")


def _snapshots(snapshots: Sequence[Taken]) -> str:
    heads = ("snapshot", "stored", "", "size", "files", "not read")
    most = max((one.stored for one in snapshots), default=0)
    rows = []
    for one in snapshots:
        info, lost = one.info, len(one.info.troubles)
        cells = [
            _cell(info.snapshot),
            f"<td>{_bar(one.stored, most)}</td>",
            _cell(format_size(one.stored), "number"),
            _cell(format_size(info.bytes), "number"),
            _cell(f"{info.files:,}", "number"),
            _cell(lost or "", "bad number"),
        ]
        rows.append(cells)
    return _table(heads, rows, "There is no snapshot yet.")


def _whereabouts(shelf: Sequence[Shelved], snapshots: Sequence[Taken]) -> str:
    serials = [one.row.serial for one in shelf]
    rows = []
    for one in snapshots:
        whole = sum(one.lies_on.values())
        dots = [f"<td>{_dot(one.lies_on.get(serial, 0), whole)}</td>" for serial in serials]
        lost = "a part of it is on no cartridge" if 0 in one.lies_on else ""
        rows.append([_cell(one.info.snapshot), *dots, _cell(lost, "bad")])
    heads = ("snapshot", *(one.row.label for one in shelf), "")
    return _table(heads, rows, "There is no snapshot yet.")


def _bar(part: int, whole: int, *, is_bad: bool = False) -> str:
    width, height = _BAR
    length = width * min(part / whole, 1) if whole else 0
    return (
        f'<svg width="{width}" height="{height}" role="img">'
        f'<rect width="{width}" height="{height}" rx="3" fill="{_FREE}"/>'
        f'<rect width="{length:.1f}" height="{height}" rx="3" fill="{_BAD if is_bad else _FULL}"/>'
        "</svg>"
    )


def _dot(part: int, whole: int) -> str:
    """Draw a part as a disk whose area is in proportion, but never too small to be seen."""
    if not part:
        return ""
    half = _DOT / 2
    radius = max(half * math.sqrt(part / whole), 2)
    told = _text(format_size(part))
    return (
        f'<svg width="{_DOT}" height="{_DOT}" role="img"><title>{told}</title>'
        f'<circle cx="{half:g}" cy="{half:g}" r="{radius:.1f}" fill="{_FULL}"/></svg>'
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str:
    if not rows:
        return f"<p>{_text(nothing)}</p>"
    top = "".join(f"<th>{_text(head)}</th>" for head in heads)
    lines = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{lines}\n</table></div>'


def _cell(value: object, kind: str = "") -> str:
    return (
        f'<td class="{kind}">{_text(str(value))}</td>' if kind else f"<td>{_text(str(value))}</td>"
    )


def _text(text: str) -> str:
    return escape(printable(text))
