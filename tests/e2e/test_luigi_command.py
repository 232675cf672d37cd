"""Luigi's own command makes the same backup, and leaves with the same exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.luigid import Luigid
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Program

LUIGI = Path(sys.executable).with_name("luigi")
LOCAL = ("--local-scheduler",)
each_crew = pytest.mark.parametrize(
    "crew", [(), pytest.param(("--workers", "3"), marks=pytest.mark.night)], ids=["alone", "three"]
)


def start(program: Program, *args: str, profile: str = "home") -> processes.Process:
    """Start the command as a person types it, from anywhere."""
    task = ("--module", "pipelines.backup", "BackupProfile", "--profile", profile)
    command = [*program.prefix, LUIGI, *task, "--workspace", program.workspace, *args]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=program.directory,
        env=program.env,
        start_new_session=True,
    )


def end_of(process: processes.Process) -> tuple[int, str, str]:
    """Wait for its end; Luigi logs tracebacks, where our command would not."""
    out, err = process.communicate(timeout=90)
    processes.assert_none_left(process, within=3)
    return process.returncode, out, err


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A profile over 5 MB that lie in small archives; its only cartridge takes them all."""
    fill(source, files=20, size=250_000)
    [first] = cartridges(1)
    program.init("home", [source], [first])
    return first


@pytest.mark.parametrize("crew", [(), ("--workers", "3")], ids=["alone", "three"])
def test_it_makes_the_backup(
    program: Program, source: Path, home: Path, tmp_path: Path, crew: tuple[str, ...]
) -> None:
    code, out, err = end_of(start(program, *LOCAL, *crew))
    assert code == 0, err
    [snapshot] = program.snapshots("home")
    assert f"Snapshot {snapshot}: 20 entries" in out
    check_cartridge(home)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    code, out, _ = end_of(start(program, *LOCAL, *crew))
    assert (code, "Nothing has changed" in out) == (0, True)
    assert program.backup("home")["status"] == "unchanged"


@each_crew
def test_without_the_profile_it_leaves_with_2(program: Program, crew: tuple[str, ...]) -> None:
    code, _, err = end_of(start(program, *LOCAL, *crew, profile="nonsense"))
    assert code == 2
    assert "There is no profile 'nonsense'" in err


@each_crew
def test_where_a_file_cannot_be_read_it_leaves_with_3(
    barred: Program, crew: tuple[str, ...]
) -> None:
    code, out, err = end_of(start(barred, *LOCAL, *crew))
    assert code == 3, err
    assert "source/001.bin" in out


@each_crew
def test_where_a_cartridge_is_missing_it_leaves_with_4_and_goes_on_later(
    program: Program, home: Path, crew: tuple[str, ...]
) -> None:
    home.rename(home.with_name("away"))
    code, _, err = end_of(start(program, *LOCAL, *crew))
    assert code == 4, err
    assert "Waiting for cartridge home 1" in err
    unfinished = program.json("status", "home")["unfinished"]["snapshot"]
    home.with_name("away").rename(home)
    assert end_of(start(program, *LOCAL, *crew))[0] == 0
    assert program.snapshots("home") == [unfinished]


@each_crew
def test_where_another_run_holds_the_profile_it_leaves_with_6(
    program: Program, home: Path, crew: tuple[str, ...]
) -> None:
    home.rename(home.with_name("away"))
    waiting = program.start("backup", "home", "--wait")
    notice = program.workspace / "state" / "home" / "waiting.json"
    assert processes.wait_for(notice.exists, waiting)
    try:
        code, _, err = end_of(start(program, *LOCAL, *crew))
    finally:
        processes.kill_all(waiting)
    assert code == 6, err
    assert f"process {waiting.pid} " in err


@pytest.mark.night
@pytest.mark.parametrize("error", ["source", "hook"])
def test_where_the_backup_fails_it_leaves_with_1(
    program: Program, source: Path, home: Path, error: str
) -> None:
    if error == "hook":
        program.edit_profile("home", {"hooks": {"before": "false"}})
    else:
        source.rename(source.with_name("unplugged"))
    code, _, err = end_of(start(program, *LOCAL))
    assert code == 1, err
    assert ("The hook 'before' failed" if error == "hook" else str(source)) in err


@pytest.mark.night
@pytest.mark.parametrize("crew", [(), ("--workers", "3")], ids=["alone", "three"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_it_is_ended_no_process_stays_and_the_next_run_goes_on(
    program: Program,
    source: Path,
    home: Path,
    tmp_path: Path,
    crew: tuple[str, ...],
    number: signal.Signals,
) -> None:
    fill(source / "more", files=60, size=400_000, seed=2)
    process = start(program, *LOCAL, *crew)
    runs = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/packed/*.json")), process)
    os.kill(process.pid, number)
    code, _, _ = end_of(process)
    assert code == 130
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- with a luigid


@each_crew
def test_its_stages_show_at_the_luigid_that_it_was_given(
    program: Program, home: Path, luigid: Luigid, crew: tuple[str, ...]
) -> None:
    central = ("--scheduler-host", "127.0.0.1", "--scheduler-port", str(luigid.port))
    home.rename(home.with_name("away"))
    code, _, err = end_of(start(program, *central, *crew))
    assert code == 4, err
    assert {"WriteCartridge", "BackupProfile"} <= names(luigid, "FAILED")
    home.with_name("away").rename(home)
    code, _, err = end_of(start(program, *central, *crew))
    assert code == 0, err
    assert {"ScanSource", "PackArchive", "WriteCartridge"} <= names(luigid, "DONE")
    assert names(luigid, "FAILED") == names(luigid, "RUNNING") == set()
    assert len(program.snapshots("home")) == 1
    known = luigid.all_it_knows()
    for secret in (str(home), "000.bin"):
        assert secret not in known


def names(luigid: Luigid, status: str) -> set[str]:
    """Return the kinds of the tasks that stand so at luigid."""
    return {task["name"] for task in luigid.tasks(status).values()}
