"""The works: what is done to each corpus, in rounds, by one contender after the other."""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import corpora, measure, peers
from tests.bench.corpora import Corpus
from tests.bench.measure import Run
from tests.bench.peers import PROGRAM, Contender
from tests.helpers.compare import assert_same_tree

WORKS = ("first", "unchanged", "start", "verify", "restore", "folder", "changed")
# Times as long as the peer that the program may take.
BARS = {
    ("small", "first"): 1.25,
    ("mixed", "first"): 1.0,
    ("large", "first"): 1.0,
    ("small", "unchanged"): 2.5,
    ("small", "changed"): 2.5,
    ("small", "verify"): 1.0,
    ("mixed", "verify"): 1.0,
    ("large", "verify"): 1.0,
    ("small", "restore"): 0.8,
    ("mixed", "restore"): 0.8,
    ("mixed", "folder"): 0.15,
}
# Seconds until a time that a file has just been given is no longer the present one.
_SETTLED = 1.5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One command of one contender; round 0 warms up and looks at the memory, and is not timed."""

    corpus: str
    work: str
    contender: str
    round: int
    run: Run


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured, and how; `folder` holds all that is made on the way."""

    folder: Path
    corpora: list[str]
    works: list[str]
    contenders: list[Contender]
    scale: float
    rounds: int
    fill: bool = False


def measured(plan: Plan) -> Iterator[Sample]:
    """Make each corpus, and go through all works in each round."""
    for name in plan.corpora:
        corpus = corpora.make(name, str(plan.folder), plan.scale)
        _say(f"{name}: {corpus.files:,} files, {corpus.bytes:,} bytes")
        for number in range(plan.rounds + 1):
            yield from _round(plan, corpus, number)
        # Not before: ext4 searches long for inodes that were not in use a moment ago.
        for number in range(plan.rounds + 1):
            shutil.rmtree(_homes(plan, number))
        shutil.rmtree(corpus.path)


def _round(plan: Plan, corpus: Corpus, number: int) -> Iterator[Sample]:
    homes = _homes(plan, number)
    for contender in plan.contenders:
        _prepare(contender, corpus, homes)
    for work in plan.works:
        if work == "changed":
            corpora.change(corpus, seed=number)
            time.sleep(_SETTLED)
        # Turn by turn the other way round, so that nobody always profits from coming later.
        for contender in plan.contenders[:: -1 if number % 2 else 1]:
            if work in contender.commands:
                yield _sample(plan, corpus, number, work, contender)
    # For room: these are few files, but for those that cp and rsync made.
    for contender in plan.contenders:
        shutil.rmtree(homes / contender.name)


def _homes(plan: Plan, number: int) -> Path:
    """Return the folder of all that the contenders make in a round."""
    return plan.folder / f"homes {number}"


def _prepare(contender: Contender, corpus: Corpus, homes: Path) -> None:
    home = homes / contender.name
    home.mkdir(parents=True)
    done = measure.run(contender.setup, _env(contender, corpus, homes), home / "log")
    if done.code:
        raise RuntimeError(f"{contender.name} cannot begin:\n{(home / 'log').read_text('utf-8')}")


def _sample(plan: Plan, corpus: Corpus, number: int, work: str, contender: Contender) -> Sample:
    homes = _homes(plan, number)
    home, dest = homes / contender.name, homes / "restored" / f"{work} {contender.name}"
    dest.mkdir(parents=True)
    if plan.fill:
        measure.fill_memory(plan.folder / "filler")
    reads = (
        corpus.path
        if work in ("first", "unchanged", "changed")
        else str(homes / _stored_by(contender))
    )
    measure.read_all(reads)
    os.sync()  # what others have written is nothing that this one should wait for
    env = {**_env(contender, corpus, homes), "DEST": str(dest)}
    run = measure.run(contender.commands[work], env, home / "log", memory=number == 0)
    if contender == PROGRAM and work == "restore" and number == 0:
        assert_same_tree(Path(corpus.path), dest / corpus.name)
    sample = Sample(corpus=corpus.name, work=work, contender=contender.name, round=number, run=run)
    _tell(sample, home / "log")
    return sample


def _stored_by(contender: Contender) -> str:
    """Name the home of whoever stored what a contender reads: openssl stores nothing."""
    return contender.name if "first" in contender.commands else PROGRAM.name


def _env(contender: Contender, corpus: Corpus, homes: Path) -> dict[str, str]:
    return {
        **peers.environment(contender, homes / contender.name),
        "SOURCE": corpus.path,
        "NAME": corpus.name,
        "FOLDER": corpus.folder,
        "MEDIUM": str(homes / PROGRAM.name / "medium"),
    }


def _tell(sample: Sample, log: Path) -> None:
    run = sample.run
    _say(
        f"{sample.corpus} {sample.work} round {sample.round} {sample.contender}: "
        f"{run.seconds:.2f} s" + (f", {run.peak / 1e6:.0f} MB" if run.peak else "")
    )
    if run.code:
        last = log.read_text("utf-8", "replace")[-2000:]
        _say(f"  ended with exit code {run.code}:\n{last}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
