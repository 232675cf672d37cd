"""Keeping the table of cartridges true to the shelf: new labels come in, places are noted."""

from __future__ import annotations

from dataclasses import replace

from tasks.catalog.placement import BLANK
from tasks.catalog.request import Request
from tasks.catalog.store import Store
from tasks.media import cartridge as media
from tasks.media.shelf import Shelf, look
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
    serials = {row.serial for row in rows}
    fresh = [c for c in fresh if c.label.serial not in serials]
    moved = {
        c.label.uuid: c.path
        for c in found
        if c.label.uuid in known and known[c.label.uuid].location != c.path
    }
    if fresh or moved:
        news = [row_of(c.label, c.path, capacity_of(c, cartridges.capacity)) for c in fresh]
        store.update_cartridges(
            lambda old: [*(replace(r, location=moved.get(r.uuid, r.location)) for r in old), *news]
        )
    return shelf


def _is_blank(cartridge: media.Cartridge) -> bool:
    return not cartridge.journal() and not cartridge.unaccounted()


def capacity_of(cartridge: media.Cartridge, cap: int | None) -> int:
    """Return how many bytes a cartridge may hold: the least of label, profile and volume."""
    limits = [media.volume_size(cartridge.path), cartridge.label.capacity, cap]
    return min(limit for limit in limits if limit is not None)
