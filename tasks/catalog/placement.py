"""Which cartridge is written next: a pure decision over what the catalog knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tasks.catalog.store import STORED, Store
from tasks.model.words import CartridgeRow

BLANK, OPEN, FULL = "blank", "open", "full"
# Not written any more: one that failed, and one that will not come back.
SUSPECT, LOST = "suspect", "lost"
GIVEN_UP = (SUSPECT, LOST)


def next_cartridge(
    rows: Iterable[CartridgeRow], present: Collection[str]
) -> tuple[CartridgeRow | None, str]:
    """Choose the cartridge to write, and say why; None where a new one has to be labelled.

    `present` are UUIDs. The newest written one goes on while it has room, wherever it is; then
    older ones with room that are present; then blank ones, those present first.
    """
    known = list(rows)
    written = [row for row in known if row.state in (OPEN, FULL)]
    newest = max(written, key=lambda row: (row.written or "", row.serial), default=None)
    if newest is not None and newest.state == OPEN:
        return newest, "it is the newest and has room"
    reopened = [row for row in written if row.state == OPEN and row.uuid in present]
    if reopened:
        return max(reopened, key=lambda row: row.serial), "it has room again"
    blank = [row for row in known if row.state == BLANK]
    here = [row for row in blank if row.uuid in present]
    if here or blank:
        return min(here or blank, key=lambda row: row.serial), "it is the next blank one"
    return None, "no labelled cartridge has room"


def trusted_archives(store: Store) -> set[str]:
    """Return the archives that lie on cartridges which neither failed nor are lost."""
    given_up = {row.serial for row in store.cartridges() if row.state in GIVEN_UP}
    return {
        a.archive for a in store.archives() if a.state == STORED and a.cartridge not in given_up
    }


def next_serial(rows: Iterable[CartridgeRow]) -> int:
    """Return the serial number of the next cartridge to be labelled, from 1."""
    return max((row.serial for row in rows), default=0) + 1
