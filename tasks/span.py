"""Span: write and verify one cartridge after the other, each where it is at hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import luigi

from tasks._base import Stage
from tasks.catalog import participants
from tasks.catalog.chosen import due, is_at_hand
from tasks.catalog.runs import Run, receipt_name
from tasks.plan import PlanArchives
from tasks.verify import VerifyCartridge
from tasks.write import WriteCartridge

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

    def work(self) -> Iterator[list[Stage]]:
        """Write and verify cartridges in turn; every yield runs this again from the top.

        Those that are written at once are sealed one after the other and verified together, before
        any other is written: then they may be swapped.
        """
        run = self.run_folder
        at_once = run.request.profile.cartridges.parallel > 1
        while sequences := due(run):
            mine = self._mine(run, sequences)
            is_read_back = run.has(receipt_name(sequences[0])) or not at_once
            stage = VerifyCartridge if is_read_back else WriteCartridge  # which the former needs
            if mine:
                yield [stage(**self.identity, sequence=sequence) for sequence in mine]
            else:
                time.sleep(_PAUSE)  # another participant has it
        if not os.path.exists(self.output().path):
            run.save(self.result, [receipt.serial for receipt in run.receipts()])

    def _mine(self, run: Run, sequences: list[int]) -> list[int]:
        """Choose what this participant does: it has the cartridge, or nobody has."""
        others = participants.others(run, self.participant)
        mine = [n for n in sequences if not others or is_at_hand(run, n)]
        participants.want(run, self.participant, 0 if mine else sequences[0])
        if mine or any(participants.wanted(run, other) != sequences[0] for other in others):
            return mine
        return sequences
