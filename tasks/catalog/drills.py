"""The history of drills: what of each cartridge was really restored, and when."""

from __future__ import annotations

import os
from typing import NamedTuple

from tasks.catalog.runs import Place
from tasks.catalog.store import STORED, Store
from tasks.formats.records import from_json, to_json
from tasks.media import durable
from tasks.model.words import CartridgeRow, Drill

_LARGEST = 1 << 30


class Proof(NamedTuple):
    """When the newest drill that was right, and the newest that was not, met a cartridge."""

    proven: str | None = None
    failed: str | None = None


def record(place: Place, drill: Drill) -> None:
    """Append a drill to the history, flushed."""
    with place.store.locked():
        durable.append_line(_path(place), to_json(drill))


def drills(place: Place) -> list[Drill]:
    """Read the history, oldest first; FormatDamaged where a line of it is not one of ours."""
    path = _path(place)
    try:
        text = durable.read_whole(path, limit=_LARGEST)
    except FileNotFoundError:
        return []
    return [from_json(Drill, line, path) for line in text.split(b"\n")[:-1]]


def proofs(place: Place) -> dict[str, Proof]:
    """Return what drills have shown of each cartridge, by its UUID.

    Proven is a cartridge of whose sample nothing was wrong.
    """
    found: dict[str, Proof] = {}
    for drill in drills(place):
        for one in drill.cartridges:
            before = found.get(one.uuid, Proof())
            if one.damaged:
                found[one.uuid] = before._replace(failed=drill.time)
            elif one.files:
                found[one.uuid] = before._replace(proven=drill.time)
    return found


def in_use(store: Store) -> list[CartridgeRow]:
    """Return the cartridges that hold something which a restore may need, by serial."""
    serials = {row.cartridge for row in store.archives() if row.state == STORED}
    return [row for row in store.cartridges() if row.serial in serials]


def _path(place: Place) -> str:
    return os.path.join(place.folder, "drills.jsonl")
