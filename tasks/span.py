"""Span: write one cartridge after the other until nothing of the run is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tasks._base import Stage
from tasks.model.words import WriteReceipt
from tasks.verify import VerifyCartridge
from tasks.write import receipt_name


class SpanCartridges(Stage):
    """All cartridges of a run; how many there are shows only while they are written."""

    result = "spanned.json"
    priority = 100

    def work(self) -> Iterator[VerifyCartridge]:
        """Write and verify cartridges in turn; every yield runs this again from the top."""
        run = self.run_folder
        serials = []
        for sequence in itertools.count(1):
            yield VerifyCartridge(**self.identity, sequence=sequence)
            receipt = run.load(receipt_name(sequence), WriteReceipt)
            serials.append(receipt.serial)
            if receipt.last:
                break
        run.save(self.result, serials)
