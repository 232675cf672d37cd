"""Whatever is in a tree and whatever happens to it: each snapshot brings back what was there."""

import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests import strategies
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.program import Program

Rounds = list[list[strategies.Change]]

PATIENT = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]


class Diary:
    """Backs up a tree again and again, and knows what each snapshot must bring back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = Program(directory / "program")
        self.source = directory / "source"
        self.pages: dict[str, dict[bytes, Facts]] = {}

    def begin(self, tree: strategies.Tree) -> None:
        strategies.materialise(tree, self.source)
        cartridge = self.directory / "c1"
        cartridge.mkdir()
        self.program.init("home", [self.source], [cartridge])
        self.back_up()

    def back_up(self) -> None:
        """Back up; where anything differs from the last time, there must be a new snapshot."""
        facts = snapshot_of(self.source)
        outcome = self.program.backup("home", "--allow-shrink")
        hypothesis.note(f"backup: {outcome}")
        if outcome["status"] == "unchanged":
            assert_same_tree(list(self.pages.values())[-1], facts)
            return
        assert outcome["status"] == "complete"
        assert outcome["snapshot"] > max(self.pages, default="")
        self.pages[outcome["snapshot"]] = facts

    def check(self) -> None:
        assert self.program.snapshots("home") == list(self.pages)
        for snapshot, facts in self.pages.items():
            out = self.directory / f"out-{snapshot}"
            self.program.restore("home", out, "--snapshot", snapshot)
            assert_same_tree(facts, out / "source")
        found = self.program.json("verify", "home")
        assert not any(cartridge["damaged"] for cartridge in found["cartridges"])


def live_through(tree: strategies.Tree, rounds: Rounds) -> None:
    with tempfile.TemporaryDirectory(prefix="diary-") as directory:
        diary = Diary(Path(directory))
        diary.begin(tree)
        past: strategies.Past = {}
        for changes in rounds:
            for change in changes:
                hypothesis.note(strategies.apply_change(diary.source, change, past))
            diary.back_up()
        diary.check()


@hypothesis.settings(max_examples=5, suppress_health_check=PATIENT)
@hypothesis.given(tree=strategies.trees(), rounds=strategies.change_sequences())
def test_every_snapshot_restores_to_what_was_there(tree: strategies.Tree, rounds: Rounds) -> None:
    live_through(tree, rounds)


@pytest.mark.night
@hypothesis.settings(max_examples=25, suppress_health_check=PATIENT)
@hypothesis.given(
    tree=strategies.trees(max_entries=30),
    rounds=strategies.change_sequences(max_rounds=5, max_changes=8),
)
def test_every_snapshot_restores_after_long_histories(
    tree: strategies.Tree, rounds: Rounds
) -> None:
    live_through(tree, rounds)
