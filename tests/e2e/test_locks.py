"""Two at once: each ends as defined, and the data are right afterwards."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import archives_on, check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]


pytestmark = pytest.mark.night


class Home:
    """A profile with one snapshot, and more to back up than fits on one cartridge."""

    def __init__(self, program: Program, source: Path, folders: list[Path]) -> None:
        self.program, self.source, self.folders = program, source, folders
        small_tree(source, files=20)
        program.init("home", [source], folders, capacity="4500kB")
        self.first = program.backup("home")["snapshot"]
        shutil.copytree(source, source.with_name("as it was"), symlinks=True)
        fill(source / "big", files=20, size=250_000)

    @contextmanager
    def backing_up(self) -> Iterator[Process]:
        """Hold a backup while it writes its first cartridge; let it end well afterwards."""
        process = self.program.start("backup", "--json", "home")
        runs = self.program.workspace / "state" / "home" / "runs"
        assert processes.wait_for(lambda: any(runs.glob("*/placed.jsonl")), process)
        processes.stop_all(process)
        try:
            yield process
        finally:
            processes.go_on(process)
        code, out, err = processes.end_of(process)
        assert code == 0, out + err

    def check(self, out: Path) -> None:
        written = [folder for folder in self.folders if Medium(path=folder).journal]
        for folder in written:
            check_cartridge(folder)
        archives_on(*written)
        found = self.program.json("verify", "home")
        assert not any(cartridge["damaged"] for cartridge in found["cartridges"])
        self.program.restore("home", out)
        assert_same_tree(self.source, out / "source")


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Home:
    return Home(program, source, cartridges(3))


REFUSED = {
    "backup": ("backup", "home"),
    "prune": ("prune", "home"),
    "lost": ("lost", "home", "1"),
    "abandon": ("backup", "home", "--abandon"),
}


def test_what_would_change_a_profile_waits_for_its_run(home: Home, tmp_path: Path) -> None:
    """Each is refused with 6 and names the run; nothing is lost, pruned or given up."""
    home.program.edit_profile("home", {"retention": {"keep_last": 1}})
    with home.backing_up() as process:
        for command, *args in REFUSED.values():
            error = home.program.json(command, *args, code=6)
            assert error["error"] == "RunActive"
            assert f"process {process.pid}" in error["message"]
        assert home.first in home.program.snapshots("home")
        states = home.program.json("cartridges", "home")["cartridges"]
        assert "lost" not in {row["state"] for row in states}
    home.check(tmp_path / "out")


def test_a_restore_during_a_backup_brings_back_the_last_snapshot(
    home: Home, tmp_path: Path
) -> None:
    with home.backing_up():
        assert home.program.restore("home", tmp_path / "during")["snapshot"] == home.first
    assert_same_tree(home.source.with_name("as it was"), tmp_path / "during" / "source")
    home.check(tmp_path / "out")


def test_a_verify_during_a_backup_finds_no_damage(home: Home, tmp_path: Path) -> None:
    with home.backing_up():
        found = home.program.json("verify", "home")
        assert not any(cartridge["damaged"] for cartridge in found["cartridges"])
        found = home.program.json("verify", str(home.folders[0]))
        assert not any(cartridge["damaged"] for cartridge in found["cartridges"])
    home.check(tmp_path / "out")


@pytest.mark.night
def test_verifies_all_through_a_backup_find_no_damage(home: Home, tmp_path: Path) -> None:
    process = home.program.start("backup", "--json", "home")
    while process.poll() is None:
        for what in ("home", str(home.folders[0])):
            found = home.program.json("verify", what)
            assert not any(cartridge["damaged"] for cartridge in found["cartridges"])
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    home.check(tmp_path / "out")


def test_a_backup_during_a_restore_disturbs_neither(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "during" / "source"
    process = home.program.start("restore", "--json", "home", tmp_path / "during")
    assert processes.wait_for(out.is_dir, process)
    processes.stop_all(process)
    home.program.backup("home")
    processes.go_on(process)
    code, told, err = processes.end_of(process)
    assert code == 0, told + err
    assert_same_tree(home.source.with_name("as it was"), out)
    home.check(tmp_path / "out")


def test_a_prune_during_a_restore_costs_no_wrong_byte(home: Home, tmp_path: Path) -> None:
    """What the restore still needed may be gone: then it is listed, and nothing else is wrong."""
    program, out = home.program, tmp_path / "during" / "source"
    program.backup("home")
    for path in sorted(home.source.rglob("*.txt")):
        path.unlink()
    program.backup("home", "--allow-shrink")
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    process = program.start("restore", "--json", "--snapshot", home.first, "home", out.parent)
    assert processes.wait_for(out.is_dir, process)
    processes.stop_all(process)
    program.run("prune", "home")
    processes.go_on(process)
    code, told, err = processes.end_of(process)
    assert code in (0, 5), told + err
    was = home.source.with_name("as it was")
    for path in out.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (was / path.relative_to(out)).read_bytes()
    home.check(tmp_path / "out")


def test_two_profiles_that_find_the_same_cartridges_use_only_their_own(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    small_tree(source, files=20)
    fill(source / "big", files=10, size=200_000)
    mine, theirs = cartridges(1), cartridges(1)
    program.init("home", [source], mine)
    program.init("work", [source], theirs)
    for name in ("home", "work"):
        program.edit_profile(name, {"cartridges": {"search": [str(tmp_path / "media" / "*")]}})
    both = [program.start("backup", "--json", name) for name in ("home", "work")]
    for process in both:
        code, out, err = processes.end_of(process)
        assert code == 0, out + err
    for name, [folder] in (("home", mine), ("work", theirs)):
        check_cartridge(folder)
        assert Medium(path=folder).label["profile"] == name
        program.restore(name, tmp_path / name)
        assert_same_tree(source, tmp_path / name / "source")


@pytest.mark.night
def test_two_profiles_that_may_label_the_same_volume_do_not_share_it(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """One gets it; the other waits for a cartridge of its own, and gets one later."""
    small_tree(source, files=20)
    cartridges(1)
    looks = {"search": [str(tmp_path / "media" / "*")], "auto_label": True}
    for name in ("home", "work"):
        program.init(name, [source], [])
        program.edit_profile(name, {"cartridges": looks})
    both = {name: program.start("backup", "--json", name) for name in ("home", "work")}
    codes = {name: processes.end_of(process)[0] for name, process in both.items()}
    assert sorted(codes.values()) == [0, 4], codes
    [late] = [name for name, code in codes.items() if code == 4]
    cartridges(1)
    assert program.backup(late)["status"] == "complete"
    for name in codes:
        program.restore(name, tmp_path / name)
        assert_same_tree(source, tmp_path / name / "source")


@pytest.mark.parametrize("command", ["backup", pytest.param("prune", marks=pytest.mark.night)])
def test_a_lock_dies_with_its_processes(home: Home, tmp_path: Path, command: str) -> None:
    process = home.program.start("backup", "--json", "home")
    runs = home.program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/placed.jsonl")), process)
    processes.kill_all(process)
    if command == "prune":
        assert home.program.json("prune", "home", code=6)["error"] == "RunUnfinished"
    home.program.backup("home")
    home.check(tmp_path / "out")
