"""Getting the cartridges that a restore needs: from the shelf, or by asking for them.

Any of those waited for may come next. Nothing on any volume is held open meanwhile.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from pipelines.report import say
from tasks.catalog.cover import cover
from tasks.catalog.members import label_of
from tasks.catalog.placement import LOST
from tasks.catalog.runs import Place
from tasks.catalog.selection import Portion, Selected
from tasks.media.cartridge import Cartridge
from tasks.media.shelf import Shelf, belongs, look
from tasks.model.errors import CartridgeWanted
from tasks.model.profile import Profile
from tasks.model.units import format_size

# Seconds between two looks at the shelf.
_PERIOD = 1.0
_NONE = ("s", "skip", "q", "none")


class Loader:
    """Gives one cartridge after the other; `lacking` are the serials of those not to be had."""

    def __init__(self, profile: Profile, place: Place, *, ask: bool) -> None:
        self._profile, self._name, self._workspace = profile, place.profile_name, place.workspace
        self._rows = {row.serial: row for row in place.store.cartridges()}
        self._folders = [row.location for row in self._rows.values()]
        self.asks = ask
        self.lacking: set[int] = set()

    def label(self, serial: int) -> str:
        """Return the name on the sticker."""
        row = self._rows.get(serial)
        return row.label if row else f"{self._profile.cartridges.set} {serial}"

    def labels(self, serials: Collection[int], last: str = "and") -> str:
        """Return the names on several stickers: 'home 3, home 7 and home 11'."""
        *others, final = [self.label(serial) for serial in sorted(serials)]
        return f"{', '.join(others)} {last} {final}" if others else final

    def present(self) -> set[int]:
        """Return the serials of all cartridges that are there."""
        return set(self._at_hand(self._look()))

    def find(self, serial: int) -> Cartridge | None:
        """Return a cartridge where it is there."""
        return self._at_hand(self._look()).get(serial)

    def every(self, selected: Selected) -> dict[int, str]:
        """Return where the fewest cartridges with all that is needed lie, by serial; ask for none.

        Raises CartridgeWanted, naming all that are not there.
        """
        found = self._at_hand(self._look())
        holders = [selected.holders[n] for n in np.unique(selected.needs["archive"])]
        chosen = cover(holders, set(found))
        missing = [self.label(serial) for serial in chosen if serial not in found]
        if not all(holders):
            missing.append(f"{self._profile.cartridges.set} ?")
        if missing:
            reason = "what was asked for needs it, and nothing was written"
            raise CartridgeWanted(label=", ".join(missing), reason=reason)
        return {serial: found[serial].path for serial in chosen}

    def load(
        self, wanted: Sequence[int], portion: Callable[[int], Portion]
    ) -> tuple[int, Cartridge] | None:
        """Return one of the cartridges wanted, by serial, asking for them where somebody answers.

        None where some of them are not to be had: `lacking` has them then.
        """
        lost = {s for s in wanted if s in self._rows and self._rows[s].state == LOST}
        found = self._one_of(wanted, self._look())
        if found is not None:
            return found
        if lost or not self.asks:
            self.lacking |= lost or set(wanted)
            return None
        return self._asked_for(wanted, portion)

    def _asked_for(
        self, wanted: Sequence[int], portion: Callable[[int], Portion]
    ) -> tuple[int, Cartridge] | None:
        """Ask until one is there, or somebody says that he does not have it."""
        told = _seen(self._look())
        for serial in wanted:
            gives = portion(serial)
            what = f"for {gives.files} files ({format_size(gives.bytes)})"
            say(f"Needed: cartridge {self.label(serial)}, {what}.")
        while True:
            any_of = "it" if len(wanted) == 1 else "any of them"
            print(f"Insert {any_of} and press Enter, or type the number of one that you do not")
            print("have, or s to go on without: ", end="", flush=True)
            answer = self._answer(wanted, told)
            refused = self._refused(answer, wanted)
            self.lacking |= refused
            if refused:
                return None
            if os.path.isdir(os.path.expanduser(answer)):
                self._folders.append(os.path.expanduser(answer))
            shelf = self._look()
            found = self._one_of(wanted, shelf)
            if found is not None:
                return found
            self._name_strangers(shelf, wanted, told)
            told |= _seen(shelf)

    def _answer(self, wanted: Sequence[int], told: set[str]) -> str:
        """Wait for a line, or for a cartridge that was not there before; '' is Enter."""
        while not select.select([sys.stdin], [], [], _PERIOD)[0]:
            shelf = self._look()
            if self._one_of(wanted, shelf) is not None or _seen(shelf) - told:
                print()
                return ""
        line = sys.stdin.readline()
        return line.strip() if line else _NONE[0]

    def _refused(self, answer: str, wanted: Sequence[int]) -> set[int]:
        """Return which of the cartridges wanted somebody does not have."""
        if answer.lower() in _NONE:
            return set(wanted)
        return {s for s in wanted if answer.lower() in (str(s), self.label(s).lower())}

    def _name_strangers(self, shelf: Shelf, wanted: Sequence[int], told: set[str]) -> None:
        """Say what is there instead: all that is, or only what has just come."""
        waits = f"waiting for {self.labels(wanted, 'or')}."
        fresh = [c for c in shelf.cartridges if c.path not in told]
        for cartridge in fresh or shelf.cartridges:
            title, path = cartridge.label.title, cartridge.path
            is_twin = title in map(self.label, wanted)
            other = ", but another one of that number" if is_twin else ""
            say(f"This is {title}{other} ({path}); {waits}")
        for path, reason in shelf.unreadable.items():
            if path not in told:
                say(f"{path} is no cartridge that can be read ({reason}); {waits}")
        for path in shelf.blank:
            if path not in told:
                say(f"{path} is empty; {waits}")

    def _look(self) -> Shelf:
        return look(self._profile.cartridges.search, self._folders, self._workspace)

    def _one_of(self, wanted: Sequence[int], shelf: Shelf) -> tuple[int, Cartridge] | None:
        """Return the first of the cartridges wanted that is there."""
        found = self._at_hand(shelf)
        return next(((serial, found[serial]) for serial in wanted if serial in found), None)

    def _at_hand(self, shelf: Shelf) -> dict[int, Cartridge]:
        """Return our cartridges that are there.

        Where a label is damaged the place tells which one it is; every byte is checked in any case.
        """
        found = {
            serial: Cartridge(place, label_of(row, self._name))
            for serial, row in self._rows.items()
            for place in [os.path.realpath(row.location)]
            if place in shelf.unreadable
        }
        by_uuid = {row.uuid: row.serial for row in self._rows.values()}
        for cartridge in reversed(shelf.cartridges):
            if self._is_ours(cartridge, by_uuid):
                found[by_uuid[cartridge.label.uuid]] = cartridge
        return found

    def _is_ours(self, cartridge: Cartridge, known: Mapping[str, int]) -> bool:
        ours = belongs(cartridge.label, self._profile.cartridges.set, self._name)
        return ours and cartridge.label.uuid in known


def _seen(shelf: Shelf) -> set[str]:
    """Return the places where something lies."""
    return {*(c.path for c in shelf.cartridges), *shelf.unreadable, *shelf.blank}
