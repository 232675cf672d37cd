"""Write: move archives from the spool to a cartridge until it is full or nothing is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import luigi

from tasks._base import Stage
from tasks.catalog import export, guards, members, placement
from tasks.catalog.assembly import assemble
from tasks.catalog.progress import Meter
from tasks.catalog.runs import Run
from tasks.catalog.setback import take_back, taken_back
from tasks.diff import summaries
from tasks.formats.archive import SUFFIX
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.media.labelling import write_label
from tasks.media.processes import give_memory_back
from tasks.media.shelf import Shelf
from tasks.model.errors import (
    CartridgeFailed,
    CartridgeFull,
    CartridgeWanted,
    FormatDamaged,
    Interrupted,
    PackAgain,
    VolumeUnusable,
)
from tasks.model.units import format_size, iso
from tasks.model.words import (
    ArchivesPlan,
    CartridgeRow,
    JournalLine,
    PackedArchive,
    WriteReceipt,
)
from tasks.plan import PlanArchives

_PAUSE = 0.05


class WriteCartridge(Stage):
    """The n-th cartridge that a run writes; which one that is, the shelf decides."""

    sequence = luigi.IntParameter()
    priority = 100

    @property
    def result(self) -> str:
        """The receipt."""
        return receipt_name(self.sequence)

    def requires(self) -> PlanArchives:
        """Packing goes on meanwhile; only the plan has to be there."""
        return PlanArchives(**self.identity)

    def work(self) -> None:
        """Write the cartridge."""
        give_memory_back()  # a manifest is put together beside the packers
        run = self.run_folder
        before = taken_back(run)
        receipt = write(run, self.sequence, self.meter)
        run.save(self.result, receipt)
        if taken_back(run) != before:
            raise PackAgain(label=f"{run.request.profile.cartridges.set} {receipt.serial}")


def receipt_name(sequence: int) -> str:
    """Name the receipt of the n-th cartridge of a run."""
    return os.path.join("written", f"{sequence:03d}.json")


def write(run: Run, sequence: int, meter: Callable[[int, str, str], Meter]) -> WriteReceipt:
    """Fill and seal the next cartridge.

    Raises CartridgeWanted where it is not there, WrongCartridge where it must not be written.
    """
    cartridge = _next(run)
    row = _begin(run, cartridge)
    try:
        with cartridge.writing():
            cartridge.tidy([run.snapshot])
            guards.reconcile(cartridge, run)
            gauge = _gauge(run, cartridge, meter)
            last = _Filling(run, cartridge, gauge).fill()
            if last or row.serial in run.placed().values():  # placed now, or before a kill
                last = _seal(run, cartridge, complete=last)
    except CartridgeFailed:
        run.store.alter_cartridge(row.uuid, state=placement.SUSPECT)
        raise
    gauge.report()
    run.store.alter_cartridge(row.uuid, used=cartridge.used())
    placed = run.placed()
    numbers = sorted(number for number, serial in placed.items() if serial == row.serial)
    sizes = {packed.number: packed.bytes for packed in run.packed()}
    return WriteReceipt(
        sequence=sequence,
        serial=row.serial,
        uuid=row.uuid,
        path=cartridge.path,
        archives=numbers,
        bytes=sum(sizes[number] for number in numbers),
        last=last,
    )


def is_at_hand(run: Run, sequence: int) -> bool:
    """Whether the n-th cartridge of a run is on this host, to be written or to be verified."""
    if run.has(receipt_name(sequence)):
        receipt = run.load(receipt_name(sequence), WriteReceipt)
        return members.survey(run.request, run.store).find(receipt.uuid) is not None
    row, shelf = _choice(run)
    if row is not None and shelf.find(row.uuid) is not None:
        return True
    return _takes_blank(row) and bool(_blank(run, shelf))


def _choice(run: Run) -> tuple[CartridgeRow | None, Shelf]:
    """Choose the cartridge to be written next, as far as it is labelled."""
    for receipt in run.receipts():
        if not receipt.last:
            run.store.alter_cartridge(receipt.uuid, state=placement.FULL)
    shelf = members.survey(run.request, run.store)
    present = {c.label.uuid for c in shelf.cartridges}
    row, _ = placement.next_cartridge(run.store.cartridges(), present)
    return row, shelf


def _next(run: Run) -> Cartridge:
    """Find the cartridge to be written, labelling a blank volume where the profile says so."""
    row, shelf = _choice(run)
    cartridge = shelf.find(row.uuid) if row is not None else None
    if cartridge is None:
        fresh = _label_blank(run, shelf) if _takes_blank(row) else None
        if fresh is None:
            raise _wanted(run, row, shelf)
        return fresh
    guards.check(cartridge, run)
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
    request, path = run.request, blank[0]
    cartridges = request.profile.cartridges
    label = write_label(
        path,
        set_name=cartridges.set,
        serial=placement.next_serial(run.store.cartridges()),
        profile=request.profile_name,
        capacity=cartridges.capacity,
        created=iso(datetime.now(UTC)),
    )
    cartridge = Cartridge(path, label)
    capacity = members.capacity_of(cartridge, cartridges.capacity)
    row = members.row_of(label, path, capacity)
    run.store.update_cartridges(lambda rows: [*rows, row])
    return cartridge


def _wanted(run: Run, row: CartridgeRow | None, shelf: Shelf) -> CartridgeWanted:
    set_name = run.request.profile.cartridges.set
    if row is not None:
        return CartridgeWanted(label=row.label, reason=shelf.instead_of(row.location))
    serial = placement.next_serial(run.store.cartridges())
    reason = "all labelled cartridges are full; label a new one with 'cartridge label DIR --set "
    return CartridgeWanted(label=f"{set_name} {serial}", reason=f"{reason}{set_name}'")


def _begin(run: Run, cartridge: Cartridge) -> CartridgeRow:
    """Note in the catalog that the cartridge is being written, and where it is."""
    run.store.alter_cartridge(
        cartridge.label.uuid,
        state=placement.OPEN,
        location=cartridge.path,
        written=iso(datetime.now(UTC)),
    )
    return next(r for r in run.store.cartridges() if r.uuid == cartridge.label.uuid)


def _gauge(run: Run, cartridge: Cartridge, meter: Callable[[int, str, str], Meter]) -> Meter:
    """Return a meter of how full the cartridge is."""
    used = cartridge.used()
    room = max(cartridge.room(run.request.profile.cartridges.capacity), 0)
    gauge = meter(used + room, "bytes", f"cartridge {cartridge.label.title}")
    gauge.begin_at(used)
    return gauge


@dataclass(slots=True)
class _Filling:
    """Moving archives from the spool to one cartridge."""

    run: Run
    cartridge: Cartridge
    gauge: Meter

    def fill(self) -> bool:
        """Place what fits until the cartridge is full; True where nothing of the run is left."""
        plan = self.run.load("plan.json", ArchivesPlan)
        cap = self.run.request.profile.cartridges.capacity
        room = self.cartridge.room(cap) - self._reserve(plan, cap)
        placed = set(self.run.placed())
        if room < 0:
            return self._too_small_or_full(0)
        began_with = len(placed)
        while True:
            finished = all(self.run.is_packed(b.number) for b in plan.bundles)
            ready = [p for p in self._packed(placed) if p.number not in placed]
            for packed in ready:
                if self.cartridge.cost(packed.bytes) <= room:
                    cost = self._place(packed)
                    if cost is None:
                        break
                    room -= cost
                    placed.add(packed.number)
            left = [packed for packed in ready if packed.number not in placed]
            if left:
                return self._too_small_or_full(left[0].bytes, empty=len(placed) == began_with)
            if finished:
                return True
            if self.run.has_failed():
                raise Interrupted()  # the stage that failed has said why
            if not ready:  # else others have been packed meanwhile
                time.sleep(_PAUSE)

    def _packed(self, placed: set[str]) -> Iterator[PackedArchive]:
        """Read the records of archives that are new since the last look."""
        names = sorted(n[:-5] for n in os.listdir(self.run.path("packed")) if n.endswith(".json"))
        for number in names:
            if number not in placed:
                packed = self.run.load(os.path.join("packed", f"{number}.json"), PackedArchive)
                if packed.bytes:
                    yield packed
                else:
                    placed.add(number)

    def _place(self, packed: PackedArchive) -> int | None:
        """Put one archive on the cartridge; then note it, then free the spool.

        Returns the room that it took, None where the volume is full before its time.
        """
        line = JournalLine(
            archive=packed.archive,
            bytes=packed.bytes,
            sha256=packed.sha256,
            snapshot=self.run.snapshot,
        )
        spooled = self.run.spooled(packed.number)
        if os.path.getsize(spooled) != packed.bytes:
            take_back(self.run, [packed.number])
            raise FormatDamaged(file=spooled, reason="it is not as long as it was packed")
        try:
            self.cartridge.place(line, spooled)
        except CartridgeFull:
            return None
        self.run.note_placed(packed.number, self.cartridge.label.serial)
        durable.remove(spooled)
        cost = self.cartridge.cost(packed.bytes)
        self.gauge.add(cost)
        return cost

    def _reserve(self, plan: ArchivesPlan, cap: int | None) -> int:
        scans = summaries(self.run)
        here = len(self.cartridge.journal())
        work = sum(bundle.bytes for bundle in plan.bundles)
        room = max(self.cartridge.room(cap), 0)
        expected = min(work, room) // plan.archive_size + len(plan.bundles) + here
        average = plan.cutting.average
        return export.reserve(self.run, scans, average, min(expected, 20_000))

    def _too_small_or_full(self, size: int, *, empty: bool = True) -> bool:
        """Say that the cartridge is full; VolumeUnusable where even an empty one would be."""
        if empty and not self.cartridge.journal():
            need = f"neither an archive of {format_size(size)} nor the catalog fits on it"
            raise VolumeUnusable(path=self.cartridge.path, reason=need)
        return False


def _seal(run: Run, cartridge: Cartridge, *, complete: bool) -> bool:
    """Seal the cartridge; return whether the run is complete with it.

    Where there is no room for the catalog, the newest archives make room and are packed again.
    """
    while True:
        try:
            _put_catalog(run, cartridge, complete=complete)
            return complete
        except CartridgeFull:
            placed = run.placed()
            mine = [n for n, serial in placed.items() if serial == cartridge.label.serial]
            if not mine:
                cartridge.write_sums()  # some of the catalog may be new, some old
                return False
            newest = max(mine)
            cartridge.drop({f"archives/{run.snapshot}/{newest}{SUFFIX}"})
            cartridge.tidy([run.snapshot])
            take_back(run, [newest])
            complete = False


def _put_catalog(run: Run, cartridge: Cartridge, *, complete: bool) -> None:
    """Put the catalog on the cartridge: all of it, or what is known while a run goes on."""
    name = "manifest.parquet" if complete else "partial.parquet"
    manifest, store = run.path(name), run.store
    assemble(run, summaries(run), manifest, complete=complete)
    archives = export.write_archives(run)
    recipe = export.write_recipe_of(run) if complete else None
    newest = export.Newest(run.snapshot, manifest, recipe)
    owed = export.owed(cartridge, store, run.snapshot)
    cap = run.request.profile.cartridges.capacity
    export.seal(cartridge, store, newest, archives, owed, cap)
