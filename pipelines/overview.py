"""How the cartridges and the snapshots of a profile stand, for the commands that show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tasks.catalog.runs import Place
from tasks.catalog.store import STORED
from tasks.media.shelf import look
from tasks.model.profile import Profile
from tasks.model.words import CartridgeRow, SnapshotInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """A cartridge, and how many archives it has; `path` is where it is now, None if it is away."""

    row: CartridgeRow
    archives: int
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A snapshot, and where it lies, in bytes.

    `stored` is what its run put on cartridges, `lies_on` what each cartridge, by serial, has of the
    archives that a restore reads; it has 0 where some of them lie on none.
    """

    info: SnapshotInfo
    stored: int
    lies_on: dict[int, int]


def shelved(place: Place, profile: Profile) -> list[Shelved]:
    """Return all cartridges of a profile, by serial, and where those are that are present."""
    rows = place.store.cartridges()
    archives = Counter(row.cartridge for row in place.store.archives())
    shelf = look(profile.cartridges.search, [row.location for row in rows], place.workspace)
    here = {cartridge.label.uuid: cartridge.path for cartridge in shelf.cartridges}
    return [Shelved(row=r, archives=archives[r.serial], path=here.get(r.uuid)) for r in rows]


def taken(place: Place) -> list[Taken]:
    """Return all snapshots, the newest first, and where what they need lies."""
    archives = {row.archive: row for row in place.store.archives() if row.state == STORED}
    stored: Counter[str] = Counter()
    for row in archives.values():
        stored[row.snapshot] += row.bytes
    found = []
    for snapshot in reversed(place.store.snapshots()):
        info = place.store.info(snapshot)
        lies_on: Counter[int] = Counter()
        for name in info.archives:
            known = archives.get(name)
            lies_on[known.cartridge if known else 0] += known.bytes if known else 0
        found.append(Taken(info=info, stored=stored[snapshot], lies_on=dict(lies_on)))
    return found
