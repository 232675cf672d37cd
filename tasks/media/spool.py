"""The spool: archives that are packed and not yet on a cartridge, within a bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tasks.media import durable, locks
from tasks.model.errors import SpoolFull

_PAUSE = 0.05


class Spool:
    """A folder of archives; drafts count as the largest archive, so that the bound always holds."""

    def __init__(self, folder: str, limit: int, largest: int) -> None:
        self._folder = folder
        self._limit = limit
        self._largest = largest

    def path(self, number: str) -> str:
        """Name a finished archive."""
        return os.path.join(self._folder, f"{number}.tar.lz4")

    def draft(self, number: str, hopeless: Callable[[], bool]) -> str:
        """Wait for room, reserve it, and return the name of a draft that now exists.

        Raises SpoolFull where there is no room and `hopeless()` says that none will come.
        """
        draft = self.path(number) + durable.DRAFT
        while True:
            with locks.exclusive(os.path.join(self._folder, "lock")):
                durable.remove(draft)  # a dead packer's, which nobody else will take away
                used = self.used()
                if used == 0 or used + self._largest <= self._limit:
                    open(draft, "wb").close()
                    return draft
            if hopeless():
                raise SpoolFull(used=used, limit=self._limit)
            time.sleep(_PAUSE)

    def used(self) -> int:
        """Return the bytes that are taken or reserved."""
        used = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:
                    continue  # its cartridge has just taken it
                is_draft = entry.name.endswith(durable.DRAFT)
                used += max(size, self._largest) if is_draft else size
        return used

    def sweep(self) -> None:
        """Remove the drafts of packers that are no more."""
        for name in os.listdir(self._folder):
            if name.endswith(durable.DRAFT):
                durable.remove(os.path.join(self._folder, name))
