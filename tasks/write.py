"""Write: move archives from the spool to a cartridge until it is full or nothing is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import luigi

from tasks._base import Stage
from tasks.catalog import chosen, export, guards, placement
from tasks.catalog.assembly import assemble
from tasks.catalog.progress import Meter
from tasks.catalog.rereading import to_be_read
from tasks.catalog.runs import Run, receipt_name
from tasks.catalog.setback import take_back, taken_back
from tasks.catalog.transfer import Transfer
from tasks.diff import summaries
from tasks.formats.archive import SUFFIX
from tasks.media.cartridge import Cartridge
from tasks.media.memory import give_memory_back
from tasks.media.readback import reading_ahead
from tasks.model.errors import CartridgeFull, PackAgain, VolumeUnusable
from tasks.model.units import format_size
from tasks.model.words import ArchivesPlan, WriteReceipt
from tasks.plan import PlanArchives


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


def write(run: Run, sequence: int, meter: Callable[[int, str, str], Meter]) -> WriteReceipt:
    """Fill the next cartridge, and others beside it where the profile says so; seal the first.

    Raises CartridgeWanted where it is not there, WrongCartridge where it must not be written.
    """
    cartridges = chosen.to_be_written(run)
    first = cartridges[0]
    chosen.begin(run, first)
    with contextlib.ExitStack() as stack:
        for cartridge in cartridges:
            with chosen.distrusting(run, cartridge):
                stack.enter_context(cartridge.writing())
                guards.check(cartridge, run)  # again: another may have written it until now
                cartridge.tidy([run.snapshot])
                guards.reconcile(cartridge, run)
                cartridge.used()
        sealed = _Sealed(is_complete=_fill(run, cartridges, meter))
        with chosen.distrusting(run, first):
            if sealed.is_complete or _has_archives(run, first):  # placed now, or before a kill
                sealed = _seal(run, first, complete=sealed.is_complete)
    return _receipt(run, sequence, first, sealed)


def _fill(run: Run, cartridges: list[Cartridge], meter: Callable[[int, str, str], Meter]) -> bool:
    """Bring archives to all cartridges; return whether the seal of the first ends the run."""
    first = cartridges[0]
    gauge = _gauge(run, cartridges, meter)
    plan = run.load("plan.json", ArchivesPlan)
    transfer = Transfer(run, summaries(run), plan, gauge)
    finished = transfer.fill(cartridges)
    gauge.report()
    if not finished and not first.journal():
        need = f"neither an archive of {format_size(transfer.waiting)} nor the catalog fits on it"
        raise VolumeUnusable(path=first.path, reason=need)
    if first.label.serial in transfer.full:
        run.store.alter_cartridge(first.label.uuid, state=placement.FULL)
    return finished and chosen.unsealed(run) <= {first.label.serial}


def _gauge(run: Run, cartridges: list[Cartridge], meter: Callable[[int, str, str], Meter]) -> Meter:
    """Return a meter of how full the cartridges are."""
    cap = run.request.profile.cartridges.capacity
    used = sum(cartridge.used() for cartridge in cartridges)
    room = sum(max(cartridge.room(cap), 0) for cartridge in cartridges)
    titles = ", ".join(cartridge.label.title for cartridge in cartridges)
    gauge = meter(used + room, "bytes", f"cartridge {titles}")
    gauge.begin_at(used)
    return gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sealed:
    """A seal: whether the run is complete with it, what was read back, and what it put again.

    `read` has names of archives, and when each was written to last; `regained` names of files.
    """

    is_complete: bool
    read: dict[str, int] = field(default_factory=dict)
    regained: list[str] = field(default_factory=list)


def _has_archives(run: Run, cartridge: Cartridge) -> bool:
    return cartridge.label.serial in run.placed().values()


def _receipt(run: Run, sequence: int, cartridge: Cartridge, sealed: _Sealed) -> WriteReceipt:
    label = cartridge.label
    run.store.alter_cartridge(label.uuid, used=cartridge.used())
    placed = run.placed()
    numbers = sorted(number for number, serial in placed.items() if serial == label.serial)
    sizes = {packed.number: packed.bytes for packed in run.packed()}
    return WriteReceipt(
        sequence=sequence,
        serial=label.serial,
        uuid=label.uuid,
        path=cartridge.path,
        archives=numbers,
        bytes=sum(sizes[number] for number in numbers),
        last=sealed.is_complete,
        already_read=sealed.read,
        regained=sealed.regained,
    )


def _seal(run: Run, cartridge: Cartridge, *, complete: bool) -> _Sealed:
    """Seal the cartridge.

    Where there is no room for the catalog, the newest archives make room and are packed again.
    """
    while True:
        try:
            return _put_catalog(run, cartridge, complete=complete)
        except CartridgeFull:
            placed = run.placed()
            mine = [n for n, serial in placed.items() if serial == cartridge.label.serial]
            if not mine:
                cartridge.write_sums()  # some of the catalog may be new, some old
                return _Sealed(is_complete=False)
            newest = max(mine)
            take_back(run, [newest])  # first: what is left of it here goes in the next attempt
            cartridge.drop({f"archives/{run.snapshot}/{newest}{SUFFIX}"})
            cartridge.tidy([run.snapshot])
            complete = False


def _put_catalog(run: Run, cartridge: Cartridge, *, complete: bool) -> _Sealed:
    """Put the catalog on the cartridge: all of it, or what is known while a run goes on.

    The medium has nothing to do until it is put together: archives are read back meanwhile.
    """
    name = "manifest.parquet" if complete else "partial.parquet"
    manifest, store = run.path(name), run.store
    early = to_be_read(run, cartridge) if complete else {}  # a full one is read as a whole
    with reading_ahead(cartridge, early) as done:
        assemble(run, summaries(run), manifest, complete=complete)
        archives = export.write_archives(run)
        recipe = export.write_recipe_of(run) if complete else None
    newest = export.Newest(run.snapshot, manifest, recipe)
    owed = export.owed(cartridge, store, run.snapshot)
    cap = run.request.profile.cartridges.capacity
    export.seal(cartridge, store, newest, archives, owed, cap)
    return _Sealed(is_complete=complete, read=dict(done), regained=sorted(owed))
