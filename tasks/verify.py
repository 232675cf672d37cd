"""Verify: read back from the medium what was written, and say what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

import luigi

from tasks._base import Stage
from tasks.catalog import members, placement
from tasks.catalog.chosen import distrusting
from tasks.catalog.export import manifest_name
from tasks.catalog.progress import ignore
from tasks.catalog.recipe import recipe_name
from tasks.catalog.rereading import to_be_read
from tasks.catalog.runs import Run, receipt_name, verdict_name
from tasks.catalog.store import LOST, STORED
from tasks.media import layout, locks
from tasks.media.cartridge import Cartridge
from tasks.media.readback import Verdict, expected_sums, read_back, written_at
from tasks.model.errors import CartridgeWanted, DamageFound
from tasks.model.units import iso
from tasks.model.words import WriteReceipt
from tasks.write import WriteCartridge

# The record of earlier archives that were damaged.
DAMAGE = "damage.json"


class VerifyCartridge(Stage):
    """The read-back of the n-th cartridge of a run, before it is swapped for the next."""

    sequence = luigi.IntParameter()
    priority = 100

    @property
    def result(self) -> str:
        """The receipt of the read-back."""
        return verdict_name(self.sequence)

    def requires(self) -> WriteCartridge:
        """It has to be written and sealed."""
        return WriteCartridge(**self.identity, sequence=self.sequence)

    def work(self) -> None:
        """Read back what this run wrote."""
        run = self.run_folder
        receipt = run.load(receipt_name(self.sequence), WriteReceipt)
        label = f"{run.request.profile.cartridges.set} {receipt.serial}"
        meter = self.meter(receipt.bytes, "bytes", f"cartridge {label}")
        run.save(self.result, verify_session(run, receipt, meter.add, meter.expect))
        meter.report()


def verify_session(
    run: Run,
    receipt: WriteReceipt,
    seen: Callable[[int], None] = ignore,
    expect: Callable[[int], None] = ignore,
) -> Verdict:
    """Read back the archives that a run put on a cartridge, and its catalog.

    `expect` is told how many bytes there are, `seen` each piece that was read.

    Raises DamageFound where a byte is not as it was written, CartridgeFailed where it cannot be
    read, CartridgeWanted where it is gone.
    """
    cartridge = members.survey(run.request, run.store).find(receipt.uuid)
    if cartridge is None:
        label = f"{run.request.profile.cartridges.set} {receipt.serial}"
        raise CartridgeWanted(label=label, reason=f"it was at {receipt.path} and is to be verified")
    with distrusting(run, cartridge):
        sums = _to_read(run, cartridge, receipt)
        expect(sum(size for name, size in cartridge.files() if name in sums))
        verdict = read_back(cartridge, sums, seen)
    if verdict.damaged:
        if members.survey(run.request, run.store).find(receipt.uuid) is None:
            raise CartridgeWanted(label=cartridge.label.title, reason="it was taken away")
        # In this order: one that is suspect is not read again, were this cut short.
        _write_off(run, verdict.damaged)
        run.store.alter_cartridge(receipt.uuid, state=placement.SUSPECT)
        names = ", ".join(verdict.damaged)
        raise DamageFound(damage=f"cartridge {cartridge.label.title}: {names}")
    run.store.alter_cartridge(cartridge.label.uuid, verified=iso(datetime.now(UTC)))
    return verdict


def _to_read(run: Run, cartridge: Cartridge, receipt: WriteReceipt) -> dict[str, str]:
    """Choose what is read back: the catalog's files that the seal has put there, and archives that
    nobody has read as they are now.

    When a cartridge is full all of it is read.
    """
    sums = {**expected_sums(cartridge), **_written(run, receipt)}
    if _is_full(run, receipt):
        return sums
    read = {n for n, time in receipt.already_read.items() if written_at(cartridge, n) == time}
    chosen = to_be_read(run, cartridge).keys() - read
    chosen |= _written(run, receipt).keys() - read
    chosen |= {name for name in sums if _is_new(name, run.snapshot, receipt)}
    return {name: digest for name, digest in sums.items() if name in chosen}


def _is_new(name: str, snapshot: str, receipt: WriteReceipt) -> bool:
    """Whether a seal puts a file of this name there: all of the catalog but earlier manifests."""
    if name.startswith(f"{layout.ARCHIVES}/"):
        return False
    if receipt.regained is None or not layout.is_lasting(name) or name in receipt.regained:
        return True
    return name in (manifest_name(snapshot), recipe_name(snapshot))


def _written(run: Run, receipt: WriteReceipt) -> dict[str, str]:
    """Return what the run has put there, whatever the medium says of itself by now."""
    mine = {*receipt.archives}
    return {packed.archive: packed.sha256 for packed in run.packed() if packed.number in mine}


def _is_full(run: Run, receipt: WriteReceipt) -> bool:
    rows = run.store.cartridges()
    return any(row.uuid == receipt.uuid and row.state == placement.FULL for row in rows)


def _write_off(run: Run, damaged: list[str]) -> None:
    """Note archives of earlier runs that are damaged: the next backup stores them again."""
    rows = run.store.archives()
    gone = sorted({*damaged} & {row.archive for row in rows if row.state == STORED})
    if gone:
        note_damage(run, gone)
        run.store.update_archives(
            lambda old: [replace(r, state=LOST) if r.archive in gone else r for r in old]
        )


def note_damage(run: Run, archives: Collection[str]) -> None:
    """Have a run tell at its end that archives of earlier runs are gone, which it may refer to."""
    if archives:
        with locks.exclusive(run.path("locks", "damage")):  # others may be read back meanwhile
            known = run.load(DAMAGE, list) if run.has(DAMAGE) else []
            run.save(DAMAGE, sorted({*known, *archives}))
