"""The ground of a restore: its folders, the names of all that goes into them, and the room."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tasks.catalog.lookalikes import lookalikes
from tasks.catalog.present import is_there
from tasks.catalog.selection import Selected, words_of
from tasks.media.destination import Destination, Place
from tasks.media.naming import Naming
from tasks.media.traits import Traits
from tasks.model.units import format_size


class Groundwork:
    """The folders of a restore, made or found; `paths` are where the entries come to lie.

    `there` has the names in the folders that were there before, by path.
    """

    def __init__(
        self, place: Destination, keys: Sequence[bytes], kinds: Any, sources: Sequence[str]
    ) -> None:
        self._place = place
        self._keys = keys
        self._folders = [source.encode() for source in sources]
        self._folders += [keys[row] for row in np.flatnonzero(kinds == "dir").tolist()]
        names = [*self._folders[: len(sources)], *keys]
        self._naming = Naming(place, names, [names[number] for number in lookalikes(names)])
        self._traits: dict[int, tuple[bytes, Traits]] = {}
        self._devices: dict[bytes, int] = {}
        self._made: list[bytes] = []
        self.there: dict[bytes, frozenset[bytes]] = {}
        self.paths = keys

    def make(self) -> None:
        """Make all folders, and choose all names."""
        self._enter(b"", self._place.top())
        for key in self._folders:
            self._enter(key, self._place.make_folder(self._naming.path(key)))
        if self._naming.renamed:
            self.paths = [self._naming.path(key) for key in self._keys]

    def _enter(self, key: bytes, folder: Place) -> None:
        path = self._naming.path(key)
        if folder.device not in self._traits:
            self._traits[folder.device] = path, self._place.try_out(path)
        self._devices[path] = folder.device
        if folder.is_new:
            self._made.append(path)
        elif folder.names:
            self.there[path] = folder.names
        self._naming.enter(key, folder)

    def path(self, key: bytes) -> bytes:
        """Return where an entry comes to lie."""
        return self._naming.path(key)

    def renamed(self) -> dict[str, str]:
        """Return where entries lie that could not have their own names, as shown."""
        return {
            key.decode("utf-8", "replace"): self._naming.path(key).decode("utf-8", "replace")
            for key in sorted(self._naming.renamed)
        }

    def undo(self) -> None:
        """Remove the folders that were made."""
        for path in reversed(self._made):
            self._place.remove_folder(path)
        self._place.forget_parent()

    def sweep(self) -> None:
        """Leave no drafts where a restore was stopped."""
        self._place.forget_parent()
        for key in self._folders:
            with contextlib.suppress(OSError):
                self._place.sweep(self._naming.path(key))

    def lack_of_room(
        self, selected: Selected, present: Collection[int], freed: int, taken: Mapping[int, int]
    ) -> str | None:
        """Say what is lacking for all that is selected; None where there is room.

        `present` are the rows that are there already, `freed` the bytes that go when files which
        are there are replaced, `taken` the bytes that parts of some rows take already.
        """
        data, sizes = _lengths(selected, present)
        for row, size in taken.items():
            sizes[row] = max(0, sizes[row] - size)
        device_of_row = self._device_of_row()
        for device, (folder, traits) in self._traits.items():
            mine = device_of_row == device
            lengths = (data if traits.holes else sizes)[mine]
            if not traits.links:
                lengths = lengths + self._copies(selected)[mine]
            free, block, entries = self._place.room(folder)
            needed = int((-(-lengths // block) * block).sum())
            if needed - freed > free:
                sizes_told = f"{format_size(needed - freed)}, and {format_size(free)} are free"
                return f"there is no room: it needs {sizes_told}"
            if entries and int(np.count_nonzero(lengths)) > entries:
                return f"there is no room for so many files: it takes {entries} more"
        return None

    def _copies(self, selected: Selected) -> Any:
        """Return for each row the bytes that it takes where further names of a file are copies."""
        return np.array(
            [
                size if kind == "hardlink" and not is_there(path, self.there) else 0
                for kind, size, path in zip(
                    words_of(selected.rows, "type"),
                    selected.rows.column("size").to_pylist(),
                    self.paths,
                    strict=True,
                )
            ],
            np.int64,
        )

    def _device_of_row(self) -> Any:
        if len(self._traits) == 1:
            return np.full(len(self.paths), next(iter(self._traits)))
        folders = (path.rpartition(b"/")[0] for path in self.paths)
        return np.array([self._devices.get(folder, -1) for folder in folders], np.int64)


def _lengths(selected: Selected, present: Collection[int]) -> tuple[Any, Any]:
    """Return for each row the bytes that its content needs, without its holes and with them."""
    count, needs = selected.rows.num_rows, selected.needs
    data = np.bincount(needs["row"], needs["length"], count).astype(np.int64)
    sizes = np.maximum(selected.rows.column("size").to_numpy(), data)
    kinds = np.array(selected.rows.column("type").cast("string").to_pylist(), dtype=object)
    sizes[(kinds != "file") | np.isin(np.arange(count), list(present))] = 0
    return np.maximum(data, 0), np.maximum(sizes, 0)
