"""Which cartridges a run writes: what it has begun, else the next one, and others beside it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from tasks.catalog import guards, members, placement
from tasks.catalog.runs import Run, receipt_name
from tasks.media.cartridge import Cartridge
from tasks.media.shelf import Shelf
from tasks.model.errors import CartridgeError, CartridgeFailed, CartridgeWanted
from tasks.model.units import iso
from tasks.model.words import CartridgeRow, WriteReceipt


@contextlib.contextmanager
def distrusting(run: Run, cartridge: Cartridge) -> Iterator[None]:
    """Set a cartridge aside where it fails while the block runs."""
    try:
        yield
    except CartridgeFailed:
        run.store.alter_cartridge(cartridge.label.uuid, state=placement.SUSPECT)
        raise


def unsealed(run: Run) -> set[int]:
    """Return the serials of cartridges that a run has begun and has to seal."""
    begun = Counter(run.begun()) - Counter(receipt.serial for receipt in run.receipts())
    given_up = {row.serial for row in run.store.cartridges() if row.state in placement.GIVEN_UP}
    return {*begun} - given_up


def due(run: Run) -> list[int]:
    """Number the cartridges of a run that come next, [] where all is written and verified.

    That is one to be written; or all that were written at once, to be verified together.
    """
    begun, unread = unsealed(run), run.unread()
    if unread and not begun:
        return [receipt.sequence for receipt in unread]
    receipts = run.receipts()
    if not begun and any(receipt.last for receipt in receipts):
        return []
    used = {receipt.sequence for receipt in receipts}
    return [next(n for n in itertools.count(1) if n not in used)]


def is_at_hand(run: Run, sequence: int) -> bool:
    """Whether the n-th cartridge of a run is on this host, to be written or to be verified."""
    if run.has(receipt_name(sequence)):
        receipt = run.load(receipt_name(sequence), WriteReceipt)
        return members.survey(run.request, run.store).find(receipt.uuid) is not None
    row, shelf = _choice(run)
    if row is not None and shelf.find(row.uuid) is not None:
        return True
    return _takes_blank(row) and bool(_blank(run, shelf))


def to_be_written(run: Run) -> list[Cartridge]:
    """Find the cartridge to be written, and those that may be written beside it.

    A blank volume is labelled where the profile says so. Raises CartridgeWanted where the first is
    not there, WrongCartridge where it must not be written, CartridgeFailed where it cannot be read.
    """
    row, shelf = _choice(run)
    first = shelf.find(row.uuid) if row is not None else None
    if first is None:
        first = _label_blank(run, shelf) if _takes_blank(row) else None
        if first is None:
            raise _wanted(run, row, shelf)
    with distrusting(run, first):
        guards.check(first, run)
    return [first, *_beside(run, shelf, first)]


def begin(run: Run, cartridge: Cartridge) -> None:
    """Note that a run writes a cartridge, and where it is, before anything is written to it."""
    serial = cartridge.label.serial
    if serial not in unsealed(run):
        run.note_begun(serial)
    run.store.alter_cartridge(
        cartridge.label.uuid,
        state=placement.OPEN,
        location=cartridge.path,
        written=iso(datetime.now(UTC)),
    )


def _choice(run: Run) -> tuple[CartridgeRow | None, Shelf]:
    """Choose the cartridge to be written next, as far as it is labelled.

    Those that were begun come first: what lies on them is in no list there yet.
    """
    shelf = members.survey(run.request, run.store)
    present = {c.label.uuid for c in shelf.cartridges}
    rows, begun = run.store.cartridges(), unsealed(run)
    waiting = [row for row in rows if row.serial in begun]
    if waiting:
        return min(waiting, key=lambda row: (row.uuid not in present, row.serial)), shelf
    return placement.next_cartridge(rows, present)[0], shelf


def _beside(run: Run, shelf: Shelf, first: Cartridge) -> list[Cartridge]:
    """Return what is written beside the first: what was begun with it, then what has room.

    Nothing joins those of which one is sealed: they are to be verified before others are written.
    """
    wanted = run.request.profile.cartridges.parallel - 1
    begun, is_open = unsealed(run), not run.unread()
    with_room = (placement.OPEN, placement.BLANK) if is_open else ()
    rows = [r for r in run.store.cartridges() if r.serial in begun or r.state in with_room]
    rows.sort(key=lambda row: (row.serial not in begun, row.state == placement.BLANK, row.serial))
    usable = (_usable(run, shelf, row) for row in rows if row.uuid != first.label.uuid)
    found = list(itertools.islice((c for c in usable if c is not None), wanted))
    while is_open and len(found) < wanted and (fresh := _label_blank(run, shelf)):
        found.append(fresh)
    return found


def _usable(run: Run, shelf: Shelf, row: CartridgeRow) -> Cartridge | None:
    """Return a cartridge that may be written; why it may not is said when its turn comes."""
    try:
        cartridge = shelf.find(row.uuid)
        if cartridge is not None:
            guards.check(cartridge, run)
    except CartridgeError:
        return None
    return cartridge


def _takes_blank(row: CartridgeRow | None) -> bool:
    """Whether a volume without a label does as well as the chosen cartridge."""
    return row is None or row.state == placement.BLANK


def _blank(run: Run, shelf: Shelf) -> list[str]:
    """Return the places of volumes that may be labelled without asking."""
    request = run.request
    # An empty folder where a cartridge used to be is its mount point without it.
    deserted = {row.location for row in run.store.cartridges()}
    blank = [
        path
        for path in shelf.blank
        if path not in deserted
        and os.access(path, os.W_OK)
        and guards.source_around(path, request) is None
    ]
    return blank if request.profile.cartridges.auto_label else []


def _label_blank(run: Run, shelf: Shelf) -> Cartridge | None:
    blank = _blank(run, shelf)
    if not blank:
        return None
    profile, cap = run.request.profile_name, run.request.profile.cartridges.capacity
    set_name = run.request.profile.cartridges.set
    row = members.label(run.store, blank[0], set_name=set_name, profile=profile, capacity=cap)
    return Cartridge.open(row.location)


def _wanted(run: Run, row: CartridgeRow | None, shelf: Shelf) -> CartridgeWanted:
    set_name = run.request.profile.cartridges.set
    if row is not None:
        return CartridgeWanted(label=row.label, reason=shelf.instead_of(row.location))
    serial = placement.next_serial(run.store.cartridges())
    reason = "no labelled cartridge has room; label a new one with 'cartridge label DIR --set "
    return CartridgeWanted(label=f"{set_name} {serial}", reason=f"{reason}{set_name}'")
