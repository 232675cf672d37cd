"""A central scheduler may watch a run and share it out; it learns nothing it need not know."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.luigid import Luigid
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Program

MakeCartridges = Callable[[int], list[Path]]

STAGES = {
    *("ScanSource", "DiffManifest", "PlanArchives", "PackArchive", "WriteCartridge"),
    *("VerifyCartridge", "SpanCartridges", "CommitSnapshot", "PruneBackups"),
}
SECRET = "AGE-SECRET-KEY-1NOBODYSHOULDSEETHIS"


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


def test_a_run_that_two_end_together_is_over(
    program: Program, source: Path, cartridges: MakeCartridges, luigid: Luigid
) -> None:
    """Each sees the other at work and leaves the run's folder; the next run starts anew."""
    (source / "old").write_text("old")
    program.init("home", [source], cartridges(1), capacity="50MB")
    with (program.workspace / "state" / "home" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another participant does
        first = program.backup("home", "--scheduler", luigid.url)
    assert program.json("status", "home")["unfinished"] is None
    (source / "new").write_text("new")
    second = program.backup("home")
    assert (second["status"], second["added"]) == ("complete", 1)
    assert program.snapshots("home") == [first["snapshot"], second["snapshot"]]
    assert not os.listdir(program.workspace / "state" / "home" / "runs")


@pytest.mark.night
def test_a_scheduler_in_the_profile_is_used(program: Program, home: Path, luigid: Luigid) -> None:
    program.edit_profile("home", {"run": {"scheduler": luigid.url}})
    program.backup("home", code=4)
    assert any(task["name"] == "ScanSource" for task in luigid.tasks("DONE").values())


@pytest.mark.night
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


@pytest.mark.night
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


def test_a_run_completes_without_the_luigid_that_it_has_lost(
    program: Program,
    source: Path,
    home: Path,
    cartridges: MakeCartridges,
    luigid: Luigid,
    tmp_path: Path,
) -> None:
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "5MB")
    process = program.start("backup", "--json", "home", "--scheduler", luigid.url)
    runs = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/packed/*.json")), process)
    luigid.process.kill()
    luigid.process.wait()
    code, out, err = processes.end_of(process, timeout=120)
    assert code == 0, (out, err)
    assert json.loads(out)["status"] == "complete"
    assert f"luigid at {luigid.url} does not answer any more" in err
    processes.assert_none_left(process, within=3)
    for cartridge in sorted(home.iterdir()):
        check_cartridge(cartridge)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_failure_is_shown_as_one_sentence_without_names_of_files(
    program: Program, home: Path, luigid: Luigid
) -> None:
    program.backup("home", "--scheduler", luigid.url, code=4)
    failed = luigid.tasks("FAILED")
    assert {task["name"] for task in failed.values()} == {"WriteCartridge"}
    for task in failed:
        told = json.loads(luigid.ask("fetch_error", task_id=task)["error"])
        assert told.startswith("Waiting for cartridge home 2: ")
        assert "\n" not in told.strip()
        for word in ("Traceback", "File ", ".py", "private-", ".bin"):
            assert word not in told


def test_a_failure_that_nobody_foresaw_is_shown_without_a_traceback(
    program: Program, home: Path, cartridges: MakeCartridges, luigid: Luigid
) -> None:
    """People at the program are told what was wrong where; who looks at luigid only that."""
    program.backup("home", code=4)
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "5MB")
    [run] = (program.workspace / "state" / "home" / "runs").iterdir()
    shutil.rmtree(run / "scan")
    error = program.backup("home", "--scheduler", luigid.url, code=1)
    assert error["error"] == "StageFailed"
    assert str(run / "scan") in error["message"]
    failed = luigid.tasks("FAILED")
    assert failed
    for task in failed:
        told = json.loads(luigid.ask("fetch_error", task_id=task)["error"])
        assert told == "FileNotFoundError: 'cartridge backup home --debug' says where."


def test_how_far_each_stage_is_can_be_seen(
    program: Program, home: Path, luigid: Luigid, cartridges: MakeCartridges
) -> None:
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "5MB")
    program.backup("home", "--scheduler", luigid.url)
    done = luigid.tasks("DONE").values()
    told = {task["name"]: task["status_message"] or "" for task in done}
    assert told["ScanSource"] == "32 entries"
    assert re.fullmatch(r"7\.\d MB of 7\.\d MB", told["PackArchive"])
    assert re.fullmatch(r"[\d.]+ MB of 5\.0 MB, cartridge home [12]", told["WriteCartridge"])
    assert re.fullmatch(r".* of .*, cartridge home [12]", told["VerifyCartridge"])
    percent = {task["name"]: task["progress_percentage"] for task in done}
    assert percent["PackArchive"] == percent["VerifyCartridge"] == 100
    assert 0 < percent["WriteCartridge"] <= 100
