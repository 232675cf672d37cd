"""A signal at the n-th call that changes a file, for n walking through a whole run."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.faults import EVERYBODY, Fault, Faults
from tests.helpers.job import Job, assert_made_good, make_job
from tests.helpers.program import Program

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
QUICK = [
    ("group", signal.SIGKILL, 1100),
    ("parent", signal.SIGTERM, 600),
]
# Of about 4,000 calls in a run; every walk begins elsewhere.
STEP = 900


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    base = tmp_path_factory.mktemp("kill")
    yield make_job(base)
    shutil.rmtree(base)


@pytest.mark.parametrize(("whom", "number", "at"), QUICK)
def test_a_signal_in_the_middle_costs_nothing(
    job: Job, whom: str, number: signal.Signals, at: int
) -> None:
    assert is_met(job, whom, number, at)


@pytest.mark.night
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("whom", EVERYBODY)
def test_a_signal_at_any_call_costs_nothing(job: Job, whom: str, number: signal.Signals) -> None:
    at = 1 + 211 * (SIGNALS.index(number) + 3 * EVERYBODY.index(whom)) % STEP
    while is_met(job, whom, number, at):
        at += STEP


@pytest.mark.parametrize(
    ("whom", "number"),
    [
        ("child", signal.SIGKILL),
        pytest.param("parent", signal.SIGTERM, marks=pytest.mark.night),
        pytest.param("group", signal.SIGKILL, marks=pytest.mark.night),
        pytest.param("group", signal.SIGINT, marks=pytest.mark.night),
    ],
)
def test_a_signal_while_several_processes_scan_leaves_none_of_them(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    tmp_path: Path,
    whom: str,
    number: signal.Signals,
) -> None:
    """Each leaves what it finds in a file without a name, until it is read."""
    for folder in range(50):
        (source / str(folder)).mkdir()
        for name in range(60):
            (source / str(folder) / str(name)).touch()
    program.init("home", [source], cartridges(1))
    state = program.workspace / "state"
    for at in range(1, 40):
        fault = Fault(roots=(state,), error=number, kinds=("write",), at=at, whom=whom)
        faults = Faults(program, fault)
        process = faults.program.start("backup", "--json", "home")
        code, out, err = processes.end_of(process, timeout=60)
        processes.assert_none_left(process, within=5)
        if faults.first.endswith("(deleted)"):
            break
        shutil.rmtree(state)
    else:
        pytest.fail("nothing was written to a file without a name")
    assert code == {signal.SIGKILL: 1 if whom == "child" else -9}.get(number, 130), out + err
    assert program.backup("home")["entries"] == 50 * 61
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def is_met(job: Job, whom: str, number: signal.Signals, at: int) -> bool:
    """Back up with a signal at a call, then without; False where the run was over before."""
    job.reset()
    roots = (job.program.workspace, job.live / "media")
    fault = Fault(roots=roots, error=number, at=at, whom=whom)
    faults = Faults(job.program, fault)
    process = faults.program.start("backup", "--json", "home")
    code, out, err = processes.end_of(process, timeout=60)
    where = f"{fault}: {faults.first}: exit {code}: {out}{err}"
    if not faults.hits:
        assert code == 0, where
        return False
    processes.assert_none_left(process, within=5)
    told = json.loads(out) if out else {}
    if number == signal.SIGKILL and whom != "child":
        assert code == -signal.SIGKILL, where
    elif whom != "child":
        # A signal that comes when all is done need not be heard any more.
        assert code in (130, 0), where
        assert (told.get("error") == "Interrupted") == (code == 130), where
    if code == 0:
        assert told["snapshot"] in job.program.snapshots("home"), where
    assert_made_good(job, where)
    return True
