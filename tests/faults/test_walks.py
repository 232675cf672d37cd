"""The n-th call fails, for n walking through a whole run: nothing half stays, a rerun ends well."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges
from tests.helpers.compare import assert_same_tree
from tests.helpers.faults import FULL, GONE, READ_ONLY, SHORT, SICK, Fault, Faults
from tests.helpers.job import Job, assert_made_good, make_job
from tests.helpers.media import fill
from tests.helpers.program import Program

WHAT = {"full": FULL, "sick": SICK, "read-only": READ_ONLY, "gone": GONE, "short": SHORT}
QUICK = [
    ("workspace", "full", True, 150),
    ("workspace", "sick", False, 400),
    ("cartridges", "full", False, 60),
    ("cartridges", "gone", True, 70),
]
# How far the failing calls of a walk lie apart; FAULT_STEP=1 walks over each, in a night.
STEPS = {"workspace": 1250, "cartridges": 150}
STEP = int(os.environ.get("FAULT_STEP", "0"))


def test_an_archive_that_made_room_for_the_catalog_is_packed_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """The catalog of the first cartridge finds no room while the packer is still at work."""
    fill(source, files=60, size=250_000)
    made = cartridges(5)
    program.init("home", [source], made, capacity="4MB")
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    root = made[0] / "catalog"
    fault = Fault(roots=(root,), error=errno.ENOSPC, kinds=("open", "mkdir"), at=1)
    faults = Faults(program, fault)
    done = faults.program.backup("home", code=None)
    assert faults.hits == 1
    assert done.get("status") == "complete", done
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    base = tmp_path_factory.mktemp("walk")
    yield make_job(base)
    shutil.rmtree(base)


@pytest.mark.parametrize(("place", "what", "lasting", "at"), QUICK)
def test_a_call_that_fails_costs_nothing(
    job: Job, place: str, what: str, lasting: bool, at: int
) -> None:
    assert is_met(job, fault_of(job, place, what, lasting, at))


@pytest.mark.night
@pytest.mark.parametrize(
    ("place", "what"),
    [(place, what) for place in STEPS for what in WHAT],
)
def test_whichever_call_fails_it_costs_nothing(job: Job, place: str, what: str) -> None:
    step = STEP or STEPS[place]
    # Every walk begins elsewhere; once and lasting take turns.
    at, lasting = 1 + 17 * len(what) % step, len(what) % 2 == 0
    while is_met(job, fault_of(job, place, what, lasting, at)):
        at, lasting = at + step, not lasting


def fault_of(job: Job, place: str, what: str, lasting: bool, at: int) -> Fault:
    """Choose the calls to fail."""
    error, kinds = WHAT[what]
    root = job.program.workspace if place == "workspace" else job.live / "media"
    return Fault(roots=(root,), error=error, kinds=kinds, at=at, lasting=lasting)


def is_met(job: Job, fault: Fault) -> bool:
    """Back up with a fault, then without: what a run says is so, and all snapshots come back.

    False where the run was over before the fault; then there is nothing to see.
    """
    job.reset()
    faults = Faults(job.program, fault)
    done = faults.program.run("backup", "--json", "home", code=None)  # fails on a traceback
    told = json.loads(done.stdout)
    where = f"{fault}: {faults.first}: {told}"
    if not faults.hits:
        assert done.returncode == 0, where
        return False
    assert ("error" in told) == (done.returncode != 0), where
    assert "\n" not in told.get("message", ""), where
    if done.returncode == 0:
        assert told["snapshot"] in job.program.snapshots("home"), where
    assert_made_good(job, where)
    return True
