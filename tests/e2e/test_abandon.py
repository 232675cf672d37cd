"""An unfinished snapshot can be given up: nothing of it stays, and nothing else is touched."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.compare import Tree, assert_same_tree, snapshot_of
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program

pytestmark = pytest.mark.night


CAPACITY = "4MB"


class Desk:
    """A snapshot that is finished, and one that is not: it has filled c1 and waits for a third."""

    def __init__(self, program: Program, source: Path, cartridges: list[Path]) -> None:
        self.program, self.source, self.cartridges = program, source, cartridges
        self.state = program.workspace / "state" / "home"
        self.first = program.backup("home")["snapshot"]
        self.before = snapshot_of(source)
        fill(source / "more", files=24, size=250_000, seed=2)
        self.given_up = program.backup("home", code=4)["snapshot"]

    def abandon(self) -> dict[str, Any]:
        return self.program.json("backup", "home", "--abandon")

    def unfinished(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.program.json("status", "home")["unfinished"]
        return found

    def remains(self) -> list[str]:
        """Return what is left of the snapshot that was given up, wherever it is."""
        folders = [self.state / "runs", self.state / "spool", *self.cartridges]
        found = [path for folder in folders for path in folder.rglob("*") if folder.exists()]
        lines = [line for c in self.cartridges for line in Medium(path=c).journal]
        named = [str(path) for path in found if self.given_up in str(path) and path.is_file()]
        return named + [line["archive"] for line in lines if line["snapshot"] == self.given_up]

    def widen(self, folder: Path) -> None:
        """Add a cartridge that has room for all."""
        self.cartridges.append(folder)
        self.program.run("label", folder, "--set", "home", "--capacity", "12MB")

    def check(self, out: Path) -> None:
        """Both snapshots come back exactly, and all cartridges are in order."""
        for cartridge in self.cartridges:
            if Medium(path=cartridge).journal:
                check_cartridge(cartridge)
        trees: dict[str, Path | Tree] = {self.first: self.before}
        trees[self.program.snapshots("home")[-1]] = self.source
        for snapshot, tree in trees.items():
            self.program.restore("home", out / snapshot, "--snapshot", snapshot)
            assert_same_tree(tree, out / snapshot / "source")


@pytest.fixture
def desk(program: Program, source: Path, cartridges: MakeCartridges) -> Desk:
    fill(source, files=8, size=250_000)
    [first] = cartridges(1)
    program.init("home", [source], [first], capacity=CAPACITY)
    program.edit_profile(
        "home",
        {
            "cartridges": {"search": [str(first.parent / "*")], "capacity": None},
            "archive": {"archive_size": "500kB"},
        },
    )
    return Desk(program, source, [first])


def test_what_is_given_up_goes_and_the_next_backup_begins_anew(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    assert desk.remains()
    kept = Medium(path=desk.cartridges[0]).journal[:1]
    result = desk.abandon()
    assert result["abandoned"] == desk.given_up
    assert result["freed"] > 0
    assert result["waiting"] == 0
    assert desk.remains() == []
    assert not (desk.cartridges[0] / "archives" / desk.given_up).exists()
    assert not any((desk.state / "runs").iterdir())
    assert not any((desk.state / "spool").iterdir())
    assert Medium(path=desk.cartridges[0]).journal[:1] == kept
    check_cartridge(desk.cartridges[0])
    assert desk.program.snapshots("home") == [desk.first]
    assert desk.unfinished() is None

    desk.widen(*cartridges(1))
    outcome = desk.program.backup("home")
    assert outcome["status"] == "complete"
    assert outcome["snapshot"] > desk.given_up
    desk.check(tmp_path / "out")


def test_what_was_placed_on_an_absent_cartridge_goes_when_that_comes_back(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    away = desk.cartridges[0].rename(tmp_path / "away")
    result = desk.abandon()
    assert (result["abandoned"], result["freed"]) == (desk.given_up, 0)
    assert result["waiting"] > 0
    assert not any((desk.state / "runs").iterdir())
    assert any(line["snapshot"] == desk.given_up for line in Medium(path=away).journal)
    away.rename(desk.cartridges[0])
    desk.widen(*cartridges(1))
    assert desk.program.backup("home")["status"] == "complete"
    assert desk.remains() == []
    desk.check(tmp_path / "out")


@pytest.mark.parametrize("is_here", [True, False])
def test_an_archive_that_a_killed_run_did_not_note_is_given_up_as_well(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path, is_here: bool
) -> None:
    """As if it had been killed between the line in the journal and its own."""
    noted = desk.state / "runs" / desk.given_up / "placed.jsonl"
    lines = noted.read_text().splitlines(keepends=True)
    noted.write_text("".join(lines[:-1]))
    if not is_here:
        desk.cartridges[0].rename(tmp_path / "away")
    desk.abandon()
    if not is_here:
        (tmp_path / "away").rename(desk.cartridges[0])
    desk.widen(*cartridges(1))
    assert desk.program.backup("home")["status"] == "complete"
    assert desk.remains() == []
    desk.check(tmp_path / "out")


@pytest.mark.night
def test_what_was_placed_on_an_absent_cartridge_goes_with_the_next_prune(
    desk: Desk, tmp_path: Path
) -> None:
    away = desk.cartridges[0].rename(tmp_path / "away")
    told = desk.program.run("backup", "home", "--abandon").stdout
    assert "on absent ones go when they next appear" in told
    away.rename(desk.cartridges[0])
    assert desk.program.json("prune", "home")["waiting"] == 0
    assert desk.remains() == []
    check_cartridge(desk.cartridges[0])


def test_people_are_told_what_was_given_up_or_that_nothing_was(desk: Desk) -> None:
    told = desk.program.run("backup", "home", "--abandon").stdout
    assert told.startswith(f"Gave up snapshot {desk.given_up}; freed ")
    assert "absent" not in told
    assert desk.abandon() == {"abandoned": None, "freed": 0, "waiting": 0}
    told = desk.program.run("backup", "home", "--abandon").stdout
    assert told == "There is no unfinished snapshot.\n"


def test_nothing_is_given_up_under_a_run_that_is_at_work(desk: Desk) -> None:
    process = desk.program.start("backup", "home", "--wait")
    assert processes.wait_for((desk.state / "waiting.json").exists, process)
    try:
        error = desk.program.backup("home", "--abandon", code=6)
    finally:
        processes.kill_all(process)
    assert error["error"] == "RunActive"
    assert (desk.unfinished() or {})["snapshot"] == desk.given_up


@pytest.fixture
def all_but_tidy(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A run that was killed when its snapshot was complete, before it was over; the cartridge."""
    fill(source, files=8, size=250_000)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    process = program.start("backup", "home")
    runs = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/outcome.json")), process)
    processes.kill_all(process)
    assert program.json("status", "home")["unfinished"], "it was faster than the test"
    return cartridge


def test_a_snapshot_that_is_complete_is_not_given_up(
    program: Program, source: Path, all_but_tidy: Path, tmp_path: Path
) -> None:
    result = program.json("backup", "home", "--abandon")
    assert (result["freed"], result["waiting"]) == (0, 0)
    assert program.json("status", "home")["unfinished"] is None
    check_cartridge(all_but_tidy)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    assert program.backup("home")["status"] == "unchanged"


@pytest.mark.night
def test_of_a_snapshot_that_is_complete_nobody_says_that_it_was_given_up(
    program: Program, all_but_tidy: Path
) -> None:
    assert program.json("backup", "home", "--abandon")["abandoned"] is None
    assert len(program.snapshots("home")) == 1


# ---- killed

CALLS = "unlink,unlinkat,rename,rmdir"


def traced(desk: Desk, *options: str | Path) -> int:
    """Abandon while strace looks at each call that changes the disk; return the exit code."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    command = ("strace", "-e", f"trace={CALLS}", *map(str, options))
    slow = Program(desk.program.directory, command)
    return slow.run("backup", "home", "--abandon", code=None).returncode


def changes(desk: Desk, trace: Path) -> list[tuple[str, int]]:
    """Abandon, and return the calls that changed the disk, each with its number of its kind."""
    assert traced(desk, "-o", trace) == 0
    names = [line.partition("(")[0] for line in trace.read_text().splitlines() if "(" in line]
    return [(name, names[: index + 1].count(name)) for index, name in enumerate(names)]


def killed_at(desk: Desk, call: str, number: int) -> int:
    """Have the kernel kill an abandon at the n-th call of a kind."""
    return traced(desk, "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}")


def assert_ends_well(desk: Desk, out: Path | None = None) -> None:
    """The next backup completes: the same snapshot, or another without a trace of it."""
    outcome = desk.program.backup("home")
    assert outcome["status"] == "complete"
    snapshots = desk.program.snapshots("home")
    assert snapshots == [desk.first, outcome["snapshot"]]
    if desk.given_up not in snapshots:
        assert desk.remains() == []
    assert not any((desk.state / "runs").iterdir())
    assert not any((desk.state / "spool").iterdir())
    for cartridge in desk.cartridges:
        check_cartridge(cartridge)
    if out is not None:
        desk.check(out)


def test_a_snapshot_that_is_half_given_up_can_still_be_finished(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Killed when its archives are written off, and before the snapshot itself is."""
    assert killed_at(desk, "rename", 1) == -9
    assert (desk.unfinished() or {})["snapshot"] == desk.given_up
    desk.widen(*cartridges(1))
    assert_ends_well(desk, tmp_path / "out")
    assert desk.given_up in desk.program.snapshots("home")


@pytest.mark.night
def test_a_snapshot_that_is_half_given_up_can_be_given_up_again(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Killed while its spool is removed: who needs the room now should get it."""
    assert killed_at(desk, "unlinkat", 3) == -9
    desk.abandon()
    assert desk.remains() == []
    desk.widen(*cartridges(1))
    assert_ends_well(desk, tmp_path / "out")


@pytest.mark.night
def test_an_abandon_may_be_killed_at_any_change_that_it_makes(
    desk: Desk, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """It is followed by another, or by a backup, in turn.

    Of what it removes from the workspace every twentieth file is enough, then every second.
    """
    desk.widen(*cartridges(1))
    state = [desk.program.workspace, desk.cartridges[0].parent]
    for number, folder in enumerate(state):
        shutil.copytree(folder, tmp_path / "saved" / f"{number}")
    moments = changes(desk, tmp_path / "trace")
    assert len(moments) > 40
    for number, moment in enumerate(moments):
        if number > 6 and number % (2 if number > len(moments) - 25 else 20):
            continue
        is_repeated = bool(number % 3)
        for index, folder in enumerate(state):
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "saved" / f"{index}", folder)
        assert killed_at(desk, *moment) == -9
        if is_repeated:
            desk.abandon()
            assert desk.unfinished() is None
        assert_ends_well(desk)
    desk.check(tmp_path / "out")


# ---- what is unfinished


def test_status_tells_what_is_unfinished_and_what_the_next_run_will_do(
    desk: Desk, cartridges: MakeCartridges
) -> None:
    found = desk.unfinished() or {}
    assert (found["snapshot"], found["stage"]) == (desk.given_up, "write")
    assert 0 < found["archives_written"] < found["archives_packed"]
    assert found["bytes_in_spool"] > 0
    told = desk.program.run("status", "home").stdout
    assert f"Snapshot {desk.given_up} is unfinished" in told
    of = f"{found['archives_written']} of {found['archives_packed']} archives are on cartridges"
    assert of in told
    assert "'cartridge backup home' goes on with it (next: write)" in told
    assert "--abandon" in told
    desk.abandon()
    told = desk.program.run("status", "home").stdout
    assert "unfinished" not in told
    assert "'cartridge backup home' begins a new snapshot." in told


@pytest.mark.parametrize(
    ("phase", "stage"),
    [
        ("request.json", "scan"),
        pytest.param("diff.json", "plan", marks=pytest.mark.night),
        pytest.param("plan.json", "write", marks=pytest.mark.night),
        pytest.param("verified/001.json", "write", marks=pytest.mark.night),
    ],
)
def test_status_tells_where_a_killed_run_stands(
    program: Program, source: Path, cartridges: MakeCartridges, phase: str, stage: str
) -> None:
    fill(source, files=20, size=250_000)
    program.init("home", [source], cartridges(1), capacity=CAPACITY)
    process = program.start("backup", "home")
    runs = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob(f"*/{phase}")), process)
    processes.kill_all(process)
    later = {"scan": {"scan", "plan", "write"}, "plan": {"plan", "write"}, "write": {"write"}}
    assert program.json("status", "home")["unfinished"]["stage"] in later[stage]


def test_nothing_is_pruned_while_a_snapshot_is_unfinished(desk: Desk) -> None:
    """It may refer to what would go."""
    desk.program.edit_profile("home", {"retention": {"keep_last": 1}})
    files = Program.cartridge_files(desk.cartridges[0])
    error = desk.program.json("prune", "home", code=6)
    assert error["error"] == "RunUnfinished"
    assert desk.given_up in error["message"]
    assert "--abandon" in error["help"]
    assert Program.cartridge_files(desk.cartridges[0]) == files
    assert list(desk.program.json("prune", "home", "--dry-run")["kept"]) == [desk.first]
    desk.abandon()
    assert list(desk.program.json("prune", "home")["kept"]) == [desk.first]
