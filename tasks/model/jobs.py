"""A list of jobs: a CSV file with a source and a destination in each row, checked whole."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.model.errors import UsageError
from tasks.model.profile import NAME

NEEDED = ("source", "destination")
OPTIONAL = ("name", "codec", "keep")
_Row = tuple[int, list[str]]
_Mistakes = list[tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row; its paths are absolute. An empty `name` or `codec`, or no `keep`, is left open."""

    line: int
    source: str
    destination: str
    name: str = ""
    codec: str = ""
    keep: int | None = None


def parse_jobs(text: str, file: str) -> list[Job]:
    """Read the jobs of a CSV file; relative paths start in its folder.

    Raises UsageError with all mistakes at once, each with its line.
    """
    mistakes: _Mistakes = []
    rows = list(_rows(text, mistakes))
    jobs: list[Job] = []
    if not mistakes:
        heads = [cell.strip().lower() for cell in rows[0][1]] if rows else []
        mistakes += [(rows[0][0] if rows else 1, what) for what in _mistakes_of_heads(heads)]
    if not mistakes:
        for line, row in rows[1:]:
            cells = dict(zip(heads, row, strict=False))
            found = list(_mistakes_of_row(cells, len(row), len(heads)))
            mistakes += [(line, what) for what in found]
            jobs += [] if found else [_job(line, cells, os.path.dirname(file))]
        mistakes += _mistakes_between(jobs)
        mistakes += [] if rows[1:] else [(rows[0][0] + 1, "there is no row with a job")]
    if mistakes:
        told = "\n".join(f"{file}: line {line}: {what}" for line, what in sorted(mistakes))
        raise UsageError(
            reason=f"{file} has {len(mistakes)} mistake(s), and nothing was started:\n{told}"
        )
    return jobs


def _rows(text: str, mistakes: _Mistakes) -> Iterator[_Row]:
    """Yield (number of its first line, cells) of every row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        mistakes.append((line, f"not CSV: {error}"))


def _mistakes_of_heads(heads: list[str]) -> Iterator[str]:
    for head in NEEDED:
        if head not in heads:
            yield f"the column '{head}' is missing"
    for head in dict.fromkeys(heads):
        if head not in NEEDED + OPTIONAL:
            known = ", ".join(NEEDED + OPTIONAL)
            yield f"unknown column '{head}'; there are {known}, with commas between"
        elif heads.count(head) > 1:
            yield f"there are {heads.count(head)} columns '{head}'"


def _mistakes_of_row(cells: dict[str, str], count: int, wanted: int) -> Iterator[str]:
    if count != wanted:
        yield f'{count} cells under {wanted} heads; a path with a comma needs "quotes"'
        return
    for head in NEEDED:
        if not cells[head].strip():
            yield f"the {head} is empty"
    name, keep = cells.get("name", "").strip(), cells.get("keep", "").strip()
    if name and not NAME.fullmatch(name):
        yield f"'{name}' is no name for a profile; use letters and digits"
    if keep and not (keep.isascii() and keep.isdigit() and int(keep)):
        yield f"keep is '{keep}'; it should be a whole number from 1"


def _job(line: int, cells: dict[str, str], folder: str) -> Job:
    keep = cells.get("keep", "").strip()
    return Job(
        line=line,
        source=_absolute(folder, cells["source"]),
        destination=_absolute(folder, cells["destination"]),
        name=cells.get("name", "").strip(),
        codec=cells.get("codec", "").strip(),
        keep=int(keep) if keep else None,
    )


def _absolute(folder: str, path: str) -> str:
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))


def _mistakes_between(jobs: list[Job]) -> Iterator[tuple[int, str]]:
    """Tell where two rows want the same profile or the same cartridge."""
    names: dict[str, int] = {}
    places: dict[str, int] = {}
    for job in jobs:
        if job.name and names.setdefault(job.name, job.line) != job.line:
            yield job.line, f"the name '{job.name}' is that of line {names[job.name]} too"
        place = job.destination
        if places.setdefault(place, job.line) != job.line:
            yield job.line, f"the destination is that of line {places[place]} too: {place}"
