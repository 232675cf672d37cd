"""How a run ended, for people and for machines."""

from __future__ import annotations

from tasks.catalog.runs import Place
from tasks.model.units import format_size
from tasks.model.words import Outcome

EXIT = {"complete": 0, "unchanged": 0, "partial": 3, "waiting": 4}


def lines(outcome: Outcome, place: Place, name: str) -> list[str]:
    """Tell people how a run ended, and what comes next."""
    if outcome.snapshot is None:
        told = [f"Nothing has changed since the last snapshot ({outcome.entries} entries)."]
        return told + remarks(outcome)
    by_serial = {row.serial: row for row in place.store.cartridges()}
    told = [
        f"Snapshot {outcome.snapshot}: {outcome.entries} entries; {outcome.added} added, "
        f"{outcome.modified} modified, {outcome.moved} moved, {outcome.metadata} with new "
        f"metadata, {outcome.deleted} deleted.",
        f"Read {format_size(outcome.bytes_read)}, stored {format_size(outcome.bytes_stored)} in "
        f"{outcome.archives} archives, in {outcome.seconds:.1f} s.",
    ]
    for serial in outcome.cartridges:
        row = by_serial[serial]
        room = f" of {format_size(row.capacity)}" if row.capacity else ""
        told.append(f"  {row.label}: {format_size(row.used)}{room} used, at {row.location}")
    told += remarks(outcome)
    told.append(f"To restore it: cartridge restore {name} DEST")
    return told


def remarks(outcome: Outcome) -> list[str]:
    """Tell only what somebody may have to look after."""
    told = _named(outcome.unreadable, "could not be read and will be tried again next time")
    told += _named(outcome.skipped, "sockets were skipped")
    if outcome.clamped:
        told.append(f"{outcome.clamped} times lie outside 1677 to 2262 and were clamped.")
    return told


def _named(paths: list[str], what: str) -> list[str]:
    if not paths:
        return []
    more = [f"  and {len(paths) - 20} more"] if len(paths) > 20 else []
    return [f"{len(paths)} {what}:", *(f"  {path}" for path in paths[:20]), *more]
