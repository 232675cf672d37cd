"""A source that goes away under a run is missing, and is never taken for one that was emptied."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import fill
from tests.helpers.processes import Process
from tests.helpers.program import Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]


pytestmark = pytest.mark.night


class Disk:
    """A source on a volume of its own, with one snapshot of it."""

    def __init__(self, program: Program, volume: Path, cartridges: list[Path]) -> None:
        self.program, self.volume = program, volume
        shutil.rmtree(volume / "lost+found", ignore_errors=True)
        for number in range(40):
            small_tree(volume / f"{number:02}", files=30, seed=number)
        fill(volume / "big", files=20, size=300_000)
        program.init("home", [volume], cartridges)
        self.first = program.backup("home")["snapshot"]
        fill(volume / "more", files=40, size=300_000, seed=2)
        for number in range(40):
            small_tree(volume / f"{number:02}" / "new", files=10, seed=100 + number)

    @property
    def state(self) -> Path:
        return self.program.workspace / "state" / "home"

    def left(self, pattern: str) -> Callable[[], bool]:
        return lambda: any(self.state.glob(f"runs/*/{pattern}"))

    def take_away(self) -> None:
        subprocess.run(["umount", "-l", self.volume], check=True)

    def bring_back(self, process: Process | None = None) -> None:
        image = self.volume.with_name(self.volume.name + ".img")
        subprocess.run(["mount", "-o", "loop", image, self.volume], check=True)

    def check(self, tmp_path: Path) -> None:
        """Nothing of the failed run counts; the next one deletes nothing and brings all back."""
        assert self.program.snapshots("home") == [self.first]
        self.bring_back()
        outcome = self.program.backup("home")
        assert (outcome["status"], outcome["deleted"]) == ("complete", 0)
        self.program.restore("home", tmp_path / "out")
        assert_same_tree(self.volume, tmp_path / "out" / self.volume.name)


@pytest.fixture
def disk(
    program: Program, loop_volume: MakeVolume, cartridges: MakeCartridges, tmp_path: Path
) -> Disk:
    return Disk(program, loop_volume(80), cartridges(2))


@pytest.mark.parametrize(
    "moment",
    [
        "request.json",
        "scan/*.tmp",
        "packed/*.json",
        pytest.param("plan.json", marks=pytest.mark.night),
        pytest.param("placed.jsonl", marks=pytest.mark.night),
    ],
)
def test_a_source_that_is_unmounted_is_missing(disk: Disk, tmp_path: Path, moment: str) -> None:
    process = disk.program.start("backup", "--json", "home")
    assert processes.wait_for(disk.left(moment), process, pause=0)
    processes.stop_all(process)
    disk.take_away()
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    if code == 0:  # it had everything open or read already
        disk.bring_back()
        disk.program.restore("home", tmp_path / "out")
        assert_same_tree(disk.volume, tmp_path / "out" / disk.volume.name)
        return
    assert code == 1, out + err
    # Where it went before the walk began there is only an empty mount point to be seen.
    told = ("SourceEmpty", "SourceMissing") if moment == "request.json" else ("SourceMissing",)
    assert any(f'"{error}"' in out for error in told), out
    disk.check(tmp_path)


@pytest.mark.night
def test_a_source_that_is_unmounted_at_any_moment_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    for attempt in range(12):
        process = disk.program.start("backup", "--json", "home")
        time.sleep(0.4 + attempt * 0.08)
        processes.stop_all(process)
        disk.take_away()
        processes.go_on(process)
        code, out, err = processes.end_of(process)
        disk.bring_back()
        assert code in (0, 1), out + err
        assert code == 0 or '"Source' in out, out
        if code == 0:
            break
        assert disk.program.snapshots("home") == [disk.first]
    outcome = disk.program.backup("home")
    assert outcome["deleted"] == 0
    disk.program.restore("home", tmp_path / "out")
    assert_same_tree(disk.volume, tmp_path / "out" / disk.volume.name)


def test_a_source_that_is_not_mounted_next_time_deletes_nothing(disk: Disk, tmp_path: Path) -> None:
    disk.take_away()
    assert os.listdir(disk.volume) == []
    error = disk.program.backup("home", code=1)
    assert error["error"] in ("SourceEmpty", "SourceMissing")
    disk.check(tmp_path)


def test_a_folder_below_that_is_not_mounted_is_no_silent_deletion(
    program: Program, source: Path, loop_volume: MakeVolume, cartridges: MakeCartridges
) -> None:
    """Only a part of the source lies on the volume: that most of it is gone stops the run."""
    volume = loop_volume(20)
    fill(volume, files=30, size=10_000)
    small_tree(source, files=5)
    (source / "disk").mkdir()
    subprocess.run(["mount", "--bind", volume, source / "disk"], check=True)
    try:
        program.init("home", [source], cartridges(1))
        first = program.backup("home")["snapshot"]
    finally:
        subprocess.run(["umount", "-l", source / "disk"], check=True)
    error = program.backup("home", code=1)
    assert error["error"] == "SourceShrunk"
    assert program.snapshots("home") == [first]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.night)])
def test_folders_that_are_renamed_during_the_walk_are_not_lost(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, seed: int
) -> None:
    """A walk may see a folder under both names or neither; the next run has it all the same."""
    for number in range(60):
        small_tree(source / f"{number:02}", files=20, seed=number + 100 * seed)
    program.init("home", [source], cartridges(1))
    program.backup("home")
    (source / "new.txt").write_text("new\n")
    process = program.start("backup", "--json", "home")
    turn = 0
    while process.poll() is None:
        for number in range(turn % 2, 60, 2):
            old, new = source / f"{number:02}", source / f"z{number:02}"
            (old if old.exists() else new).rename(new if old.exists() else old)
        turn += 1
    code, out, err = processes.end_of(process)
    assert code in (0, 1, 3), out + err
    if code == 1:
        assert '"SourceShrunk"' in out
    done = program.backup("home", code=None)
    assert done.get("status") in ("complete", "unchanged"), done
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_folder_that_gives_errors_deletes_nothing(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """A bad sector in a directory: what was below it stays in the snapshot, and it is reported."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    small_tree(source, files=30)
    fill(source / "bad", files=10, size=10_000)
    program.init("home", [source], cartridges(1))
    program.backup("home")
    expected = snapshot_of(source)
    inject = "inject=getdents64:error=EIO"
    broken = Program(
        program.directory,
        ("strace", "-f", "-o", "/dev/null", "-P", str(source / "bad"), "-e", inject),
    )
    done = broken.start("backup", "--json", "home")
    code, out, err = processes.end_of(done)
    if "ptrace" in err:
        pytest.skip("strace does not work here")
    assert code == 3, out + err
    assert "source/bad" in out
    program.restore("home", tmp_path / "out")
    assert_same_tree(expected, tmp_path / "out" / "source")
    assert program.backup("home")["status"] in ("complete", "unchanged")
