"""Keeping the table of cartridges true to the shelf: new labels come in, places are noted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from tasks.catalog.placement import BLANK, next_serial
from tasks.catalog.request import Request
from tasks.catalog.store import Store
from tasks.media import cartridge as media
from tasks.media.labelling import write_label
from tasks.media.shelf import Shelf, look
from tasks.model.errors import CartridgeError
from tasks.model.units import iso
from tasks.model.words import FORMAT_VERSION, CartridgeRow, Label


def row_of(label: Label, path: str, capacity: int | None) -> CartridgeRow:
    """Describe a cartridge that has just been labelled; `capacity` in bytes, as measured."""
    return CartridgeRow(
        serial=label.serial,
        set=label.set,
        label=label.title,
        uuid=label.uuid,
        capacity=capacity,
        state=BLANK,
        used=0,
        location=path,
        created=label.created,
    )


def label_of(row: CartridgeRow, profile: str) -> Label:
    """Return the label that a cartridge should have."""
    return Label(
        format_version=FORMAT_VERSION,
        set=row.set,
        serial=row.serial,
        uuid=row.uuid,
        profile=profile,
        capacity=row.capacity,
        created=row.created,
        codec="",
        encryption="",
    )


def survey(request: Request, store: Store) -> Shelf:
    """Look at the shelf, and enter cartridges of our set that the catalog does not know.

    Only one without archives is entered: what another workspace wrote has to be recovered first.
    """
    cartridges = request.profile.cartridges
    rows = store.cartridges()
    shelf = look(cartridges.search, [row.location for row in rows], request.workspace)
    known = {row.uuid: row for row in rows}
    found = shelf.of_set(cartridges.set, request.profile_name)
    fresh = [c for c in found if c.label.uuid not in known and _is_blank(c)]
    moved = {
        c.label.uuid: c.path
        for c in found
        if c.label.uuid in known and known[c.label.uuid].location != c.path
    }
    if fresh or moved:
        news = [row_of(c.label, c.path, capacity_of(c, cartridges.capacity)) for c in fresh]
        store.update_cartridges(
            lambda old: joined(
                [replace(r, location=moved.get(r.uuid, r.location)) for r in old], news
            )
        )
    return shelf


def joined(rows: Iterable[CartridgeRow], news: Iterable[CartridgeRow]) -> list[CartridgeRow]:
    """Add rows of new cartridges to a table: no cartridge twice, and no two of one number."""
    found = [*rows]
    for row in news:
        if all(row.uuid != other.uuid and row.serial != other.serial for other in found):
            found.append(row)
    return found


def label(
    store: Store, path: str, *, set_name: str, profile: str, capacity: int | None
) -> CartridgeRow:
    """Label an empty volume as the next cartridge of a set, and enter it in the catalog.

    All under one lock: others who label volumes at the same time get other numbers. Raises what
    `write_label` does.
    """
    made: list[CartridgeRow] = []

    def entered(rows: list[CartridgeRow]) -> list[CartridgeRow]:
        written = write_label(
            path,
            set_name=set_name,
            serial=next_serial(rows),
            profile=profile,
            capacity=capacity,
            created=iso(datetime.now(UTC)),
        )
        measured = capacity_of(media.Cartridge(path, written), capacity)
        made.append(row_of(written, path, measured))
        return [*rows, *made]

    store.update_cartridges(entered)
    return made[0]


def _is_blank(cartridge: media.Cartridge) -> bool:
    """Whether there are no archives; one that cannot be read may have some."""
    try:
        return not cartridge.journal() and not cartridge.unaccounted()
    except (CartridgeError, OSError):
        return False


def capacity_of(cartridge: media.Cartridge, cap: int | None) -> int:
    """Return how many bytes a cartridge may hold: the least of label, profile and volume."""
    limits = [media.volume_size(cartridge.path), cartridge.label.capacity, cap]
    return min(limit for limit in limits if limit is not None)
