"""A central scheduler may watch a run and share it out; it learns nothing it need not know."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Program

MakeCartridges = Callable[[int], list[Path]]

STAGES = {
    *("ScanSource", "DiffManifest", "PlanArchives", "PackArchive", "WriteCartridge"),
    *("VerifyCartridge", "SpanCartridges", "CommitSnapshot", "PruneBackups"),
}
SECRET = "AGE-SECRET-KEY-1NOBODYSHOULDSEETHIS"


class Luigid:
    """A central scheduler on this machine, as `luigid` starts it."""

    def __init__(self, folder: Path) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(str(Path(sys.executable).with_name("luigid")), "--port", str(self.port)),
            *("--address", "127.0.0.1", "--state-path", str(folder / "state.pickle")),
        ]
        self._folder = folder
        folder.mkdir()
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        log = (self._folder / "luigid.log").open("ab")
        process = subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask("task_list", status="", upstream_status="")
                return process
            except OSError:
                assert time.monotonic() < deadline, "luigid does not answer"
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def ask(self, method: str, **data: object) -> Any:
        """Call the API that luigid's own pages use."""
        query = urllib.parse.urlencode({"data": json.dumps(data)})
        with urllib.request.urlopen(f"{self.url}/api/{method}?{query}", timeout=10) as answer:
            return json.load(answer)["response"]

    def tasks(self, status: str = "") -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.ask("task_list", status=status, upstream_status="")
        return found

    def all_it_knows(self) -> str:
        """Everything that somebody who looks at luigid can see."""
        tasks = self.tasks()
        errors = [self.ask("fetch_error", task_id=task) for task in tasks]
        graphs = [self.ask("dep_graph", task_id=task) for task in tasks]
        workers = self.ask("worker_list")
        return json.dumps([tasks, errors, graphs, workers, self.ask("resource_list")])


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    """A luigid that is gone after the test."""
    scheduler = Luigid(tmp_path / "luigid")
    yield scheduler
    scheduler.stop()


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A profile over secretive files that needs two cartridges of 5 MB and has one."""
    fill(source / "private-folder", files=30, size=250_000)
    (source / "private-letter.txt").write_text("private-content\n")
    program.env["CARTRIDGE_IDENTITY"] = SECRET
    [first] = cartridges(1)
    program.init("home", [source], [first], capacity="5MB")
    program.edit_profile("home", {"cartridges": {"search": [str(first.parent / "*")]}})
    return first.parent


def test_a_run_goes_through_luigid_which_sees_stages_and_no_files(
    program: Program,
    source: Path,
    home: Path,
    cartridges: MakeCartridges,
    luigid: Luigid,
    tmp_path: Path,
) -> None:
    waiting = program.backup("home", "--scheduler", luigid.url, code=4)
    assert waiting["status"] == "waiting"
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "5MB")
    outcome = program.backup("home", "--scheduler", luigid.url)
    assert outcome["status"] == "complete"
    assert outcome["snapshot"] == waiting["snapshot"]

    done = luigid.tasks("DONE")
    assert {task["name"] for task in done.values()} == STAGES
    assert not luigid.tasks("RUNNING")
    assert not luigid.tasks("FAILED")
    known = luigid.all_it_knows()
    assert outcome["snapshot"] in known
    for secret in ("private-", SECRET, "000.bin"):
        assert secret not in known

    for cartridge in sorted(home.iterdir()):
        check_cartridge(cartridge)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    assert program.backup("home", "--scheduler", luigid.url)["status"] == "unchanged"


@pytest.mark.slow
def test_a_scheduler_in_the_profile_is_used(program: Program, home: Path, luigid: Luigid) -> None:
    program.edit_profile("home", {"run": {"scheduler": luigid.url}})
    program.backup("home", code=4)
    assert any(task["name"] == "ScanSource" for task in luigid.tasks("DONE").values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on_with_the_same_luigid(
    program: Program,
    source: Path,
    home: Path,
    cartridges: MakeCartridges,
    luigid: Luigid,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "5MB")
    process = program.start("backup", "--json", "home", "--scheduler", luigid.url)
    runs = program.workspace / "state" / "home" / "runs"
    packed = "*/packed/0001000003.json"
    assert processes.wait_for(lambda: any(runs.glob(packed)), process)
    os.kill(process.pid, number)
    processes.end_of(process, timeout=15)
    processes.assert_none_left(process)
    [snapshot] = os.listdir(runs)
    outcome = program.backup("home", "--scheduler", luigid.url, timeout=150)
    assert (outcome["status"], outcome["snapshot"]) == ("complete", snapshot)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_scheduler_that_is_not_there_costs_the_view_only(program: Program, home: Path) -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert program.backup("home", "--scheduler", url, code=4)["status"] == "waiting"


@pytest.mark.slow
def test_a_run_survives_a_luigid_that_starts_anew(
    program: Program, source: Path, home: Path, cartridges: MakeCartridges, luigid: Luigid
) -> None:
    """Its state is of no worth: what is done, the workspace knows."""
    fill(source / "more", files=60, size=400_000, seed=2)
    for folder in cartridges(8):
        program.run("label", folder, "--set", "home", "--capacity", "5MB")
    process = program.start("backup", "--json", "home", "--scheduler", luigid.url)
    runs = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/packed/0001000003.json")), process)
    luigid.process.kill()
    luigid.process.wait()
    luigid.process = luigid.start()
    code, out, _ = processes.end_of(process, timeout=300)
    assert code in (0, 1), out
    processes.assert_none_left(process)
    if code:
        assert program.backup("home", "--scheduler", luigid.url)["status"] == "complete"
    assert len(program.snapshots("home")) == 1
