"""Transfer: archives go from the spool to the cartridges that are written, to all at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tasks.catalog import chosen, export
from tasks.catalog.progress import Meter
from tasks.catalog.runs import Run
from tasks.catalog.setback import take_back
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.model.errors import CartridgeFull, FormatDamaged, Interrupted
from tasks.model.words import ArchivesPlan, JournalLine, PackedArchive, ScanSummary

_PAUSE = 0.05


@dataclass(slots=True)
class Transfer:
    """What waits in the spool, and who takes it: every cartridge is written by a thread of its own.

    What it notes, in memory and in the run's folder, it notes under its lock.
    """

    run: Run
    scans: list[ScanSummary]
    plan: ArchivesPlan
    gauge: Meter
    # Serials of those on which nothing that waits has room.
    full: set[int] = field(init=False, default_factory=set)
    # Archives that were seen, by number, and those of them that wait, in the order of packing.
    _known: set[str] = field(init=False)
    _waiting: dict[str, PackedArchive] = field(init=False, default_factory=dict)
    _begun: set[int] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _is_off: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._known = set(self.run.placed())
        self._begun = chosen.unsealed(self.run)

    def fill(self, cartridges: Sequence[Cartridge]) -> bool:
        """Place what there is until all cartridges are full; True where nothing is left of the run.

        An error of one cartridge ends the work on all.
        """
        with ThreadPoolExecutor(len(cartridges)) as pool:
            ends = [pool.submit(self._fill, cartridge) for cartridge in cartridges]
        errors = [error for end in ends if (error := end.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):
            raise error
        finished = self._all_are_packed()
        self._look()
        return finished and not self._waiting

    @property
    def waiting(self) -> int:
        """The size of the first archive that waits, in bytes; 0 where none does."""
        return next((packed.bytes for packed in self._waiting.values()), 0)

    def _fill(self, cartridge: Cartridge) -> None:
        """Write one cartridge; its first archive begins it."""
        try:
            with chosen.distrusting(self.run, cartridge):
                room = cartridge.room(self._cap) - self._reserve(cartridge)
                while room >= 0 and (packed := self._next(cartridge, room)) is not None:
                    if not self._place(packed, cartridge):
                        break
                    room -= cartridge.cost(packed.bytes)
        except BaseException:
            self._is_off = True
            raise
        with self._lock:
            if room < 0 or self._waiting:
                self.full.add(cartridge.label.serial)

    @property
    def _cap(self) -> int | None:
        return self.run.request.profile.cartridges.capacity

    def _reserve(self, cartridge: Cartridge) -> int:
        """Estimate the room that the seal takes, in bytes."""
        plan = self.plan
        here = len(cartridge.journal())
        work = sum(bundle.bytes for bundle in plan.bundles)
        room = max(cartridge.room(self._cap), 0)
        expected = min(work, room) // plan.archive_size + len(plan.bundles) + here
        return export.reserve(self.run, self.scans, plan.cutting.average, min(expected, 20_000))

    def _next(self, cartridge: Cartridge, room: int) -> PackedArchive | None:
        """Wait for an archive that fits; None where none is left, or none of those left fits."""
        while True:
            with self._lock:
                found = self._take(cartridge, room)
                if found is not None:
                    return found
                finished = self._all_are_packed()
                news = self._look()
                if not news and (finished or self._waiting):
                    return None
            if self._is_off or self.run.has_failed():
                raise Interrupted()  # what has failed has said why
            if not news:
                time.sleep(_PAUSE)

    def _take(self, cartridge: Cartridge, room: int) -> PackedArchive | None:
        for number, packed in self._waiting.items():
            if cartridge.cost(packed.bytes) <= room:
                return self._waiting.pop(number)
        return None

    def _look(self) -> bool:
        """Read the records of archives that are new since the last look; return whether any are."""
        names = sorted(n[:-5] for n in os.listdir(self.run.path("packed")) if n.endswith(".json"))
        new = [number for number in names if number not in self._known]
        for number in new:
            packed = self.run.load(os.path.join("packed", f"{number}.json"), PackedArchive)
            if packed.bytes:
                self._waiting[number] = packed
        self._known.update(new)
        return bool(new)

    def _all_are_packed(self) -> bool:
        return all(self.run.is_packed(bundle.number) for bundle in self.plan.bundles)

    def _place(self, packed: PackedArchive, cartridge: Cartridge) -> bool:
        """Put one archive on a cartridge; then note it, then free the spool.

        Returns False where the volume is full before its time.
        """
        line = JournalLine(
            archive=packed.archive,
            bytes=packed.bytes,
            sha256=packed.sha256,
            snapshot=self.run.snapshot,
        )
        spooled = self.run.spooled(packed.number)
        with self._lock:
            if os.path.getsize(spooled) != packed.bytes:
                take_back(self.run, [packed.number])
                raise FormatDamaged(file=spooled, reason="it is not as long as it was packed")
            if cartridge.label.serial not in self._begun:
                chosen.begin(self.run, cartridge)
                self._begun.add(cartridge.label.serial)
            self.run.note_taken(packed.number, cartridge.label.serial)
        try:
            cartridge.place(line, spooled)
        except CartridgeFull:
            with self._lock:
                self._waiting[packed.number] = packed
            return False
        with self._lock:
            self.run.note_placed(packed.number, cartridge.label.serial)
            self.gauge.add(cartridge.cost(packed.bytes))
        durable.remove(spooled)
        return True
