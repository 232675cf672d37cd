"""Verify: read back from the medium what was written, and say what is damaged."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import luigi

from tasks._base import Stage
from tasks.catalog.runs import Run
from tasks.media.cartridge import Cartridge
from tasks.media.readback import Verdict, expected_sums, read_back
from tasks.model.errors import DamageFound
from tasks.model.units import iso
from tasks.model.words import WriteReceipt
from tasks.write import WriteCartridge, receipt_name


class VerifyCartridge(Stage):
    """The read-back of the n-th cartridge of a run, before it is swapped for the next."""

    sequence = luigi.IntParameter()
    priority = 100

    @property
    def result(self) -> str:
        """The receipt of the read-back."""
        return os.path.join("verified", f"{self.sequence:03d}.json")

    def requires(self) -> WriteCartridge:
        """It has to be written and sealed."""
        return WriteCartridge(**self.identity, sequence=self.sequence)

    def work(self) -> None:
        """Read back what this run wrote."""
        run = self.run_folder
        receipt = run.load(receipt_name(self.sequence), WriteReceipt)
        run.save(self.result, verify_session(run, receipt))


def verify_session(run: Run, receipt: WriteReceipt) -> Verdict:
    """Read back the archives that a run put on a cartridge, and its catalog.

    Raises DamageFound where a byte is not as it was written.
    """
    cartridge = Cartridge.open(receipt.path)
    sums = {
        name: digest
        for name, digest in expected_sums(cartridge).items()
        if not name.startswith("archives/") or name.startswith(f"archives/{run.snapshot}/")
    }
    verdict = read_back(cartridge, sums)
    if verdict.damaged:
        names = ", ".join(verdict.damaged)
        raise DamageFound(damage=f"cartridge {cartridge.label.title}: {names}")
    run.store.alter_cartridge(cartridge.label.uuid, verified=iso(datetime.now(UTC)))
    return verdict
