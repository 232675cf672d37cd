"""Span: write and verify one cartridge after the other, each where it is at hand."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator

import luigi

from tasks._base import Stage
from tasks.catalog import participants
from tasks.catalog.runs import Run
from tasks.model.words import WriteReceipt
from tasks.plan import PlanArchives
from tasks.verify import VerifyCartridge, verdict_name
from tasks.write import is_at_hand, receipt_name

_PAUSE = 0.5


class SpanCartridges(Stage):
    """All cartridges of a run; how many there are shows only while they are written.

    Every participant has a stage of its own, which writes the cartridges that are on its host and
    waits while others write theirs.
    """

    participant = luigi.Parameter()
    result = "spanned.json"
    priority = 100

    def requires(self) -> PlanArchives:
        """Packing goes on meanwhile; only the plan has to be there."""
        return PlanArchives(**self.identity)

    def work(self) -> Iterator[VerifyCartridge]:
        """Write and verify cartridges in turn; every yield runs this again from the top."""
        run = self.run_folder
        serials = []
        for sequence in itertools.count(1):
            while not run.has(verdict_name(sequence)):
                if self._is_mine(run, sequence):
                    yield VerifyCartridge(**self.identity, sequence=sequence)
                else:
                    time.sleep(_PAUSE)
            receipt = run.load(receipt_name(sequence), WriteReceipt)
            serials.append(receipt.serial)
            if receipt.last:
                break
        if not os.path.exists(self.output().path):
            run.save(self.result, serials)

    def _is_mine(self, run: Run, sequence: int) -> bool:
        """Whether this participant writes the n-th cartridge: it has it, or nobody has."""
        others = participants.others(run, self.participant)
        if not others or is_at_hand(run, sequence):
            participants.want(run, self.participant, 0)
            return True
        participants.want(run, self.participant, sequence)
        return all(participants.wanted(run, other) == sequence for other in others)
