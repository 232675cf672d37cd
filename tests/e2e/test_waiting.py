"""A run that lacks a cartridge waits where it is told to, and is answered wherever one likes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeCartridges, MakeVolume
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program
from tests.helpers.terminal import ENTER, Terminal, end_of

CAPACITY = "4MB"
COMMAND = ("backup", "home", "--batch", "--wait")


class Desk:
    """A profile that needs two cartridges of 4 MB, where one is on the desk and one in a drawer.

    What lies on the desk is found by the profile's search list.
    """

    def __init__(self, program: Program, source: Path, folder: Path) -> None:
        self.program, self.source = program, source
        self.folder, self.drawer = folder, folder.with_name("drawer")
        self.drawer.mkdir()
        self.state = program.workspace / "state" / "home"

    @property
    def second(self) -> Path:
        return self.folder / "c2"

    @property
    def put_away(self) -> Path:
        return self.drawer / "c2"

    def label(self, folder: Path) -> None:
        self.program.run("label", folder, "--set", "home", "--capacity", CAPACITY)

    def wait(self, *options: str) -> Process:
        """Start a run that nobody can be asked about, and return when it waits."""
        return self.until_it_waits(self.program.start(*COMMAND, *options))

    def until_it_waits(self, process: Process) -> Process:
        assert processes.wait_for((self.state / "waiting.json").exists, process), "it did not wait"
        return process

    def waits_for(self) -> str | None:
        """Ask the program, as anybody may."""
        found: str | None = self.program.json("status", "home")["waiting"]
        return found

    def check(self, out: Path) -> None:
        """There is one snapshot, its cartridges are in order, and all comes back."""
        assert len(self.program.snapshots("home")) == 1
        for cartridge in self.folder.iterdir():
            if Medium(path=cartridge).journal:
                check_cartridge(cartridge)
        self.program.restore("home", out)
        assert_same_tree(self.source, out / "source")


@pytest.fixture
def desk(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> Iterator[Desk]:
    """The second cartridge is labelled, and put into the drawer."""
    fill(source, files=20, size=250_000)
    [first] = cartridges(1)
    program.init("home", [source], [first], capacity=CAPACITY)
    program.edit_profile("home", {"cartridges": {"search": [str(first.parent / "*")]}})
    made = Desk(program, source, first.parent)
    made.second.mkdir()
    made.label(made.second)
    made.second.rename(made.put_away)
    yield made


# ---- at a terminal


def test_a_cartridge_that_is_mounted_while_the_question_stands_needs_no_answer(
    desk: Desk, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("backup", "home")
    child.expect("home 2")
    child.expect(ENTER)
    desk.put_away.rename(desk.second)
    code, shown = end_of(child)
    assert code == 0, shown
    assert desk.waits_for() is None
    desk.check(tmp_path / "out")


@pytest.mark.night
def test_a_volume_that_is_labelled_while_the_question_stands_needs_no_answer(
    desk: Desk, cartridges: MakeCartridges, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    desk.put_away.rename(desk.put_away.with_name("lost"))
    [second] = cartridges(1)
    desk.label(second)
    code, shown = end_of(child)
    assert code == 0, shown
    desk.check(tmp_path / "out")


# ---- where nobody can be asked


def test_a_batch_that_waits_goes_on_with_the_cartridge_that_is_inserted(
    desk: Desk, tmp_path: Path
) -> None:
    process = desk.wait()
    assert "home 2" in (desk.waits_for() or "")
    told = desk.program.run("status", "home").stdout
    assert "Waiting for cartridge home 2" in told
    assert "A run is at work" not in told
    desk.put_away.rename(desk.second)
    code, out, err = processes.end_of(process, timeout=30)
    assert code == 0, (out, err)
    assert "Waiting for cartridge home 2" in err
    assert "cartridge continue home" in err
    assert ENTER not in out + err
    assert desk.waits_for() is None
    desk.check(tmp_path / "out")


def test_a_run_for_machines_that_waits_prints_one_object(desk: Desk) -> None:
    process = desk.wait("--json")
    desk.put_away.rename(desk.second)
    code, out, err = processes.end_of(process, timeout=30)
    assert code == 0, (out, err)
    assert out.count("\n") == 1, out
    assert out.startswith("{"), out


@pytest.mark.night
def test_a_quiet_run_that_waits_says_so(desk: Desk) -> None:
    """Who does not look at it for a week should still learn why nothing happens."""
    process = desk.wait("-q")
    desk.put_away.rename(desk.second)
    code, out, err = processes.end_of(process, timeout=30)
    assert code == 0, (out, err)
    assert "home 2" in out + err


def test_what_is_waited_for_is_said_at_once(desk: Desk, tmp_path: Path) -> None:
    """Not only when all is over: whoever reads the log of a service can bring the cartridge."""
    log = tmp_path / "log"
    with log.open("w") as file:
        process = desk.program.start(*COMMAND, stdout=file, stderr=file)
    desk.until_it_waits(process)
    time.sleep(1)
    told = log.read_text()
    desk.put_away.rename(desk.second)
    assert process.wait(30) == 0
    assert "home 2" in told


@pytest.mark.night
def test_a_batch_of_profiles_that_waits_tells_what_became_of_each(desk: Desk) -> None:
    process = desk.until_it_waits(desk.program.start("batch", "--wait", "--json"))
    desk.put_away.rename(desk.second)
    code, out, err = processes.end_of(process, timeout=30)
    assert code == 0, (out, err)
    [row] = json.loads(out)["profiles"]
    assert (row["status"], [row["snapshot"]]) == ("complete", desk.program.snapshots("home"))
    assert row["bytes_stored"] > 0


# ---- `cartridge continue`


def test_continue_has_a_waiting_run_look_again(desk: Desk, tmp_path: Path) -> None:
    """The hook is called again with every look; here it finds the cartridge the second time."""
    calls = desk.drawer / "calls"
    desk.program.edit_profile(
        "home",
        {
            "hooks": {
                "waiting": f"echo called >> '{calls}'; "
                f"test $(wc -l < '{calls}') -lt 2 || mv '{desk.put_away}' '{desk.second}'"
            }
        },
    )
    process = desk.wait()
    assert calls.read_text().split() == ["called"]
    told = desk.program.json("continue", "home")
    assert "home 2" in told["waits_for"]
    code, out, err = processes.end_of(process, timeout=30)
    assert code == 0, (out, err)
    assert calls.read_text().split() == ["called", "called"]
    desk.check(tmp_path / "out")


@pytest.mark.night
def test_a_run_that_is_told_to_continue_and_finds_nothing_waits_on(
    desk: Desk, tmp_path: Path
) -> None:
    process = desk.wait()
    for _ in range(2):
        since = desk.program.json("continue", "home")["since"]
        later = lambda: notice(desk)["since"] > since  # noqa: E731, B023
        assert processes.wait_for(later, process, timeout=20, pause=0.05)
    assert "home 2" in (desk.waits_for() or "")
    desk.put_away.rename(desk.second)
    assert processes.end_of(process, timeout=30)[0] == 0
    desk.check(tmp_path / "out")


@pytest.mark.night
def test_continue_answers_the_question_at_a_terminal_too(desk: Desk, terminal: Terminal) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    desk.program.run("continue", "home")
    child.expect("home 2")  # it looked, and asks again
    child.expect(ENTER)
    desk.put_away.rename(desk.second)
    assert end_of(child)[0] == 0


def test_continue_is_refused_where_nothing_waits(desk: Desk) -> None:
    assert desk.program.json("continue", "home", code=2)["error"] == "UsageError"
    processes.kill_all(desk.wait())  # what it had announced is still there
    assert desk.program.json("continue", "home", code=2)["error"] == "UsageError"
    assert desk.waits_for() is None


def test_a_run_at_work_does_not_wait_because_a_killed_one_did(desk: Desk) -> None:
    processes.kill_all(desk.wait())
    desk.put_away.rename(desk.second)
    process = desk.program.start("backup", "home")
    held = desk.state / "lock"
    assert processes.wait_for(lambda: f"process {process.pid} " in held.read_text(), process)
    processes.stop_all(process)
    try:
        assert desk.waits_for() is None
        assert desk.program.json("continue", "home", code=2)["error"] == "UsageError"
    finally:
        processes.go_on(process)
    assert processes.end_of(process)[0] == 0


# ---- the hook


def test_a_hook_that_brings_the_cartridge_lets_any_run_go_on(desk: Desk, tmp_path: Path) -> None:
    facts = desk.drawer / "facts"
    command = f"cat > '{facts}'; mv '{desk.put_away}' '{desk.second}'"
    desk.program.edit_profile("home", {"hooks": {"waiting": command}})
    assert desk.program.backup("home", "--batch")["status"] == "complete"
    told = json.loads(facts.read_text())
    assert (told["event"], told["profile"], told["error"]) == ("waiting", "home", "CartridgeWanted")
    assert "home 2" in told["message"]
    desk.check(tmp_path / "out")


@pytest.mark.night
def test_a_hook_that_labels_a_volume_lets_any_run_go_on(desk: Desk, tmp_path: Path) -> None:
    """As a robot does that has blank ones: the label is written while the run waits."""
    desk.put_away.rename(desk.put_away.with_name("lost"))
    third = desk.folder / "c3"
    program = f"'{sys.executable}' -m pipelines"
    command = f"mkdir '{third}' && {program} label '{third}' --set home --capacity {CAPACITY}"
    desk.program.edit_profile("home", {"hooks": {"waiting": command}})
    assert desk.program.backup("home", "--batch")["cartridges"] == [1, 3]
    desk.check(tmp_path / "out")


@pytest.mark.parametrize("command", ["true", "echo it jammed >&2; false"])
def test_a_hook_that_brings_nothing_ends_in_exit_4(desk: Desk, command: str) -> None:
    desk.program.edit_profile("home", {"hooks": {"waiting": command}})
    done = desk.program.run("backup", "home", "--batch", code=4)
    assert "home 2" in done.stderr
    assert ("it jammed" in done.stderr) == ("jammed" in command)
    assert ("The hook 'waiting' failed" in done.stderr) == ("jammed" in command)


@pytest.mark.night
def test_a_hook_that_brings_the_wrong_cartridge_ends_in_exit_4(desk: Desk, tmp_path: Path) -> None:
    wrong = desk.folder / "c3"
    command = f"mkdir '{wrong}'; echo '{{}}' > '{wrong}/CARTRIDGE.json'"
    desk.program.edit_profile("home", {"hooks": {"waiting": command}})
    assert desk.program.backup("home", code=4)["error"] == "CartridgeWanted"
    desk.put_away.rename(desk.second)
    assert desk.program.backup("home")["status"] == "complete"
    desk.check(tmp_path / "out")


# ---- ended while it waits


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.night) for n in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_a_signal_ends_a_waiting_run_at_once_and_the_next_goes_on(
    desk: Desk, tmp_path: Path, number: signal.Signals
) -> None:
    process = desk.wait()
    unfinished = desk.program.json("status", "home")["unfinished"]["snapshot"]
    os.kill(process.pid, number)
    code, out, err = processes.end_of(process, timeout=10)
    assert code == 130, (out, err)
    processes.assert_none_left(process, within=3)
    assert desk.waits_for() is None
    log = (desk.state / "logs" / f"{unfinished}.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["error"] == "Interrupted"
    desk.put_away.rename(desk.second)
    assert desk.program.backup("home")["snapshot"] == unfinished
    desk.check(tmp_path / "out")


# ---- a cartridge in use must not keep its drive


def test_a_waiting_run_holds_nothing_so_that_its_volume_can_be_unmounted(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path
) -> None:
    """In a machine with one drive, the full cartridge has to go before the next can come."""
    fill(source, files=20, size=250_000)
    full, empty = loop_volume(4), loop_volume(8)
    slots = tmp_path / "slots"
    for slot in ("one", "two"):
        (slots / slot).mkdir(parents=True)
    program.init("home", [source], [full])
    program.run("label", empty, "--set", "home")
    subprocess.run(["umount", empty], check=True)
    program.edit_profile("home", {"cartridges": {"search": [str(slots / "*"), str(full)]}})
    process = program.start("backup", "home", "--batch", "--wait")
    waits = program.workspace / "state" / "home" / "waiting.json"
    assert processes.wait_for(waits.exists, process)
    assert held_below(full, process) == []
    unmount(full)
    image = tmp_path / "volume-2.img"
    subprocess.run(["mount", "-o", "loop", image, slots / "one"], check=True)
    try:
        code, out, err = processes.end_of(process, timeout=30)
        assert code == 0, (out, err)
        subprocess.run(
            ["mount", "-o", "loop", tmp_path / "volume-1.img", slots / "two"], check=True
        )
        found = program.json("verify", "home")["cartridges"]
        assert [(row["serial"], row["damaged"]) for row in found] == [(1, []), (2, [])]
        program.restore("home", tmp_path / "out")
        assert_same_tree(source, tmp_path / "out" / "source")
    finally:
        for slot in ("one", "two"):
            subprocess.run(["umount", slots / slot], check=False, capture_output=True)


def held_below(folder: Path, process: Process) -> list[Path]:
    """Return what a program's processes hold open in a folder, a current folder included."""
    found = []
    for pid in processes.members(process):
        about = Path("/proc") / str(pid)
        for link in [*about.glob("fd/*"), about / "cwd", about / "root"]:
            try:
                where = link.readlink()
            except OSError:
                continue
            if where.is_relative_to(folder):
                found.append(where)
    return found


def unmount(folder: Path) -> None:
    """Unmount a volume, plainly; a run that looks at it just now has a moment to be done."""
    for _ in range(20):
        done = subprocess.run(["umount", folder], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(done.stderr)


def notice(desk: Desk) -> dict[str, Any]:
    """Read what a waiting run has announced; nothing where it looks just now."""
    file = desk.state / "waiting.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {"since": ""}
    return found
