"""Whatever ends a run, wherever it stands: the next run goes on, and nothing is lost."""

import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.home import Home
from tests.helpers.media import archives_on, check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
Archives = dict[str, str]

# What the stages of a run leave behind, in the order in which they do.
PHASES = (
    "scan/*.parquet",
    "plan.json",
    "packed/0001000003.json",
    "written/001.json",
    "verified/001.json",
    "outcome.json",
    "pruned.json",
)


class Job(Home):
    """A profile over a tree that needs several cartridges."""

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    def start(self) -> Process:
        return self.program.start("backup", "--json", "home")

    def held_by(self, process: Process) -> Callable[[], bool]:
        """Whether a run has the profile's lock."""
        told = f"process {process.pid} "
        return lambda: self.lock.exists() and told in self.lock.read_text()

    def snapshot(self) -> str:
        """The id of the unfinished run."""
        [run] = self.state.glob("runs/*")
        return run.name

    def finished(self) -> Archives:
        """Return the SHA-256 of all finished archives, in the spool and on cartridges."""
        found = {name: facts[2] for name, facts in archives_on(*self.cartridges).items()}
        for record in self.state.glob("runs/*/packed/*.json"):
            spooled = self.state / "spool" / self.snapshot() / f"{record.stem}.tar.lz4"
            name = f"archives/{self.snapshot()}/{spooled.name}"
            if spooled.exists():
                found[name] = hashlib.sha256(spooled.read_bytes()).hexdigest()
        return found

    def records(self) -> dict[str, tuple[int, bytes]]:
        """Return when each archive was recorded as packed, and as what."""
        files = self.state.glob("runs/*/packed/*.json")
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    def check(self, out: Path) -> None:
        """The backup is complete, its cartridges are in order, and all comes back."""
        assert not list(self.state.glob("runs/*"))
        assert not list(self.state.glob("spool/*/*"))
        for cartridge in self.cartridges:
            if Medium(path=cartridge).journal:
                check_cartridge(cartridge)
        found = self.program.json("verify", "home")
        assert not any(cartridge["damaged"] for cartridge in found["cartridges"])
        self.program.restore("home", out)
        assert_same_tree(self.source, out / "source")


@pytest.fixture
def job(program: Program, source: Path, cartridges: MakeCartridges) -> Job:
    """A tree of 12 MB and cartridges of 5 MB."""
    small_tree(source, files=60)
    fill(source / "big", files=40, size=280_000)
    made = Job(program, source, cartridges(4))
    program.init("home", [source], made.cartridges, capacity="5MB")
    return made


def assert_goes_on(before: tuple[Archives, dict[str, tuple[int, bytes]]], job: Job) -> None:
    """What was finished when the run was killed is still there, and was not made again."""
    archives, records = before
    now, now_records = job.finished(), job.records()
    assert {name: now.get(name) for name in archives} == archives
    assert {name: now_records.get(name) for name in records} == records


# ---- killed


def test_a_run_that_is_killed_after_every_stage_goes_on(job: Job, tmp_path: Path) -> None:
    snapshots, before = set(), None
    for phase in PHASES:
        process = job.start()
        assert processes.wait_for(job.left(phase), process), f"ended before {phase}"
        processes.kill_all(process)
        snapshots.add(job.snapshot())
        if before is not None:
            assert_goes_on(before, job)
        before = job.finished(), job.records()
    outcome = job.program.backup("home")
    assert outcome["status"] == "complete"
    assert snapshots == {outcome["snapshot"]}
    assert outcome["cartridges"] == [1, 2, 3]
    archives = archives_on(*job.cartridges)
    assert outcome["archives"] == len(archives)
    assert {name: archives[name][2] for name in before[0]} == before[0]
    job.check(tmp_path / "out")


@pytest.mark.night
def test_a_run_that_is_killed_while_it_tidies_up_is_over(job: Job, tmp_path: Path) -> None:
    process = job.start()
    assert processes.wait_for(job.left("pruned.json"), process)
    processes.stop_all(process)
    run = job.state / "runs" / job.snapshot()
    shutil.copytree(run, tmp_path / "run")
    processes.go_on(process)
    processes.end_of(process)
    shutil.copytree(tmp_path / "run", run, dirs_exist_ok=True)
    (run / "request.json").unlink()  # it goes first
    again = job.program.backup("home")
    assert again["status"] in ("complete", "unchanged")
    assert len(job.program.snapshots("home")) == 1
    job.check(tmp_path / "out")


@pytest.mark.night
@pytest.mark.parametrize("seed", [1])
def test_a_run_that_is_killed_again_and_again_ends_well(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, seed: int
) -> None:
    small_tree(source, files=300)
    fill(source / "big", files=100, size=350_000)
    job = Job(program, source, cartridges(8))
    program.init("home", [source], job.cartridges, capacity="8MB")
    chance, snapshots, before = random.Random(seed), set(), None
    for attempt in range(14):
        process = job.start()
        time.sleep(0.3 + attempt * 0.12 + chance.random() * 0.4)
        processes.kill_all(process)
        runs = list(job.state.glob("runs/*"))
        if not runs:
            continue
        snapshots.add(runs[0].name)
        if before is not None:
            assert_goes_on(before, job)
        before = job.finished(), job.records()
    outcome = program.backup("home")
    assert outcome["status"] in ("complete", "unchanged")
    assert snapshots == {*program.snapshots("home")}
    job.check(tmp_path / "out")


@pytest.mark.night
def test_where_only_the_parent_is_killed_its_children_end_too(job: Job, tmp_path: Path) -> None:
    process = job.start()
    assert processes.wait_for(job.left("packed/0001000003.json"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    processes.assert_none_left(process)
    assert job.program.backup("home")["status"] == "complete"
    job.check(tmp_path / "out")


@pytest.mark.parametrize("which", [min, pytest.param(max, marks=pytest.mark.night)])
def test_where_one_child_is_killed_the_run_fails_and_the_next_goes_on(
    job: Job, tmp_path: Path, which: Callable[[set[int]], int]
) -> None:
    process = job.start()
    assert processes.wait_for(job.left("packed/0001000003.json"), process)
    os.kill(which(processes.children(process)), signal.SIGKILL)
    code, out, _ = processes.end_of(process, timeout=30)
    assert (code, '"error"' in out) == (1, True), out
    processes.assert_none_left(process)
    assert job.program.backup("home")["status"] == "complete"
    job.check(tmp_path / "out")


# ---- interrupted


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.night)]
)
@pytest.mark.parametrize(
    "phase", ["packed/0001000003.json", pytest.param("request.json", marks=pytest.mark.night)]
)
def test_a_signal_ends_a_run_at_once_and_leaves_no_process(
    job: Job, number: signal.Signals, phase: str
) -> None:
    process = job.start()
    assert processes.wait_for(job.left(phase), process)
    os.kill(process.pid, number)
    code, out, _ = processes.end_of(process, timeout=10)
    assert code == 130, out
    processes.assert_none_left(process, within=3)
    outcome = job.program.backup("home")
    assert outcome["status"] == "complete"


@pytest.mark.night
def test_control_c_reaches_all_processes_and_ends_the_run(job: Job, tmp_path: Path) -> None:
    process = job.start()
    assert processes.wait_for(job.left("packed/0001000003.json"), process)
    os.killpg(process.pid, signal.SIGINT)
    code, out, _ = processes.end_of(process, timeout=10)
    assert code == 130, out
    processes.assert_none_left(process, within=3)
    assert job.program.backup("home")["status"] == "complete"
    job.check(tmp_path / "out")


@pytest.mark.night
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_ends_in_130(job: Job, tmp_path: Path, number: int) -> None:
    codes: dict[int, int] = {}
    for attempt in range(25):
        process = job.start()
        assert processes.wait_for(job.held_by(process), process)
        time.sleep(attempt * 0.02)
        os.kill(process.pid, number)
        code, _, _ = processes.end_of(process, timeout=10)
        processes.assert_none_left(process, within=3)
        codes[attempt] = code
        if code == 0:
            break
    assert set(codes.values()) <= {130, 0}, codes
    assert job.program.backup("home")["status"] in ("complete", "unchanged")
    job.check(tmp_path / "out")


# ---- restores


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.night) for n in (signal.SIGINT, signal.SIGKILL)),
    ],
)
def test_a_restore_that_is_ended_leaves_no_process_and_can_be_done_again(
    job: Job, tmp_path: Path, number: signal.Signals
) -> None:
    job.program.backup("home")
    out = tmp_path / "out" / "source"
    process = job.program.start("restore", "--json", "home", tmp_path / "out")
    assert processes.wait_for(lambda: out.is_dir() and len(os.listdir(out)) > 4, process)
    os.kill(process.pid, number)
    code, told, _ = processes.end_of(process, timeout=10)
    assert code == (-9 if number == signal.SIGKILL else 130), told
    processes.assert_none_left(process, within=3)
    job.program.restore("home", tmp_path / "out")
    assert_same_tree(job.source, out)


def test_what_a_killed_restore_left_gets_into_no_file(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Files are put together in drafts; an old draft must not show through a file's holes."""
    (source / "disk.img").write_bytes(random.Random(1).randbytes(4_000_000))
    program.init("home", [source], cartridges(3), capacity="3MB")
    program.backup("home")
    media = tmp_path / "media"
    (media / "c2").rename(tmp_path / "away")
    child = pexpect.spawn(
        sys.executable,
        ["-m", "pipelines", "restore", "home", str(tmp_path / "out")],
        cwd=str(program.workspace),
        env=program.env | {"TERM": "xterm"},
    )
    child.expect("press Enter")
    child.kill(signal.SIGKILL)
    child.close()
    (tmp_path / "away").rename(media / "c2")

    with (source / "disk.img").open("wb") as file:
        file.truncate(4_000_000)
        file.write(random.Random(2).randbytes(300_000))
    program.backup("home")
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- two at once


@pytest.mark.night
def test_a_second_run_names_the_first_and_leaves_it_alone(job: Job) -> None:
    process = job.start()
    assert processes.wait_for(job.left("packed/0001000003.json"), process)
    processes.stop_all(process)
    try:
        error = job.program.backup("home", code=6)
    finally:
        processes.go_on(process)
    assert error["error"] == "RunActive"
    assert f"process {process.pid}" in error["message"]
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
