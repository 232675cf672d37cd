"""The shelf: which cartridges are present, wherever their volumes happen to be mounted."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.media.cartridge import Cartridge
from tasks.media.labelling import foreign_names
from tasks.model.errors import FormatDamaged, FormatUnsupported, WrongCartridge
from tasks.model.words import Label


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a look at all places has found.

    `blank` are empty volumes without a label; `unreadable` are places where something lies whose
    label is gone or cannot be read, with the reason.
    """

    cartridges: list[Cartridge]
    blank: list[str]
    unreadable: dict[str, str]

    def find(self, uuid: str) -> Cartridge | None:
        """Return the cartridge with this UUID, if it is present.

        Raises WrongCartridge where two volumes claim to be it: one is a clone.
        """
        found = [c for c in self.cartridges if c.label.uuid == uuid]
        if len(found) > 1:
            first, *others = (c.path for c in found)
            reason = f"so does {', '.join(others)}, with the same UUID: one is a copy of the other"
            raise WrongCartridge(path=first, label=found[0].label.title, reason=reason)
        return found[0] if found else None

    def instead_of(self, location: str) -> str:
        """Say why the cartridge that was seen last at a place is not there now."""
        place = os.path.realpath(location)
        if place in self.unreadable:
            return f"{location} cannot be used: {self.unreadable[place]}"
        for other in self.cartridges:
            if other.path == place:
                return f"{location} holds {other.label.title}"
        return f"it is not present ({location})"

    def of_set(self, set_name: str, profile: str) -> list[Cartridge]:
        """Return the cartridges of one set and profile, by serial."""
        ours = [c for c in self.cartridges if belongs(c.label, set_name, profile)]
        return sorted(ours, key=lambda c: c.label.serial)


def belongs(label: Label, set_name: str, profile: str) -> bool:
    """Whether a label is of this set and profile."""
    return label.set == set_name and label.profile == profile


def look(patterns: Sequence[str], known: Iterable[str], workspace: str) -> Shelf:
    """Look for cartridges: at what the glob patterns match, and at the places `known`.

    Relative patterns start in the workspace.
    """
    cartridges, blank, unreadable = [], [], {}
    for path in _places(patterns, known, workspace):
        try:
            cartridge = Cartridge.open(path)
            if cartridge.has_its_label():
                cartridges.append(cartridge)
            else:
                unreadable[path] = "its label is not as it was written"
        except FileNotFoundError:
            if _is_blank(path):
                blank.append(path)
            else:
                unreadable[path] = "it has no label"
        except (OSError, FormatDamaged, FormatUnsupported) as error:
            unreadable[path] = str(error)
    return Shelf(cartridges, blank, unreadable)


def _places(patterns: Sequence[str], known: Iterable[str], workspace: str) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        full = os.path.join(glob.escape(workspace), os.path.expanduser(pattern))
        for path in sorted(glob.glob(full)):
            found.setdefault(os.path.realpath(path))
    for path in known:
        if path:
            found.setdefault(os.path.realpath(path))
    return [path for path in found if os.path.isdir(path)]


def _is_blank(path: str) -> bool:
    try:
        return not foreign_names(path)
    except OSError:
        return False
