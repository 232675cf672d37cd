"""Real volumes that fill up, turn read-only or are taken away while a run works on them."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeCartridges, MakeVolume, mount
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Program

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_root")]
EXFAT = pytest.param("exfat", marks=pytest.mark.night)
KINDS = ["ext4", EXFAT]


# ---- the disk of the workspace is full


@pytest.fixture
def cramped(program: Program, loop_volume: MakeVolume) -> Program:
    """The program with its workspace on a volume of 40 MB."""
    program.workspace = loop_volume(40) / "workspace"
    program.workspace.mkdir()
    program.env["CARTRIDGE_WORKSPACE"] = str(program.workspace)
    return program


@pytest.mark.parametrize("left", [100_000, pytest.param(2_500_000, marks=pytest.mark.night)])
def test_a_full_disk_of_the_workspace_ends_the_run_which_goes_on_when_there_is_room(
    cramped: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, left: int
) -> None:
    fill(source, files=30, size=400_000)
    made = cartridges(1)
    cramped.init("home", [source], made)
    cramped.edit_profile("home", {"archive": {"archive_size": "4MB"}})
    ballast = take_room(cramped.workspace.parent, left)
    told = cramped.backup("home", code=1)
    assert told["error"] == "WorkspaceFull"
    assert "\n" not in told["message"]
    ballast.unlink()
    again = cramped.backup("home")
    assert again["status"] == "complete"
    assert cramped.snapshots("home") == [again["snapshot"]]
    cramped.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    check_cartridge(made[0])


def test_a_disk_of_the_workspace_without_any_room_is_told_as_full(
    cramped: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source, files=5, size=100_000)
    cramped.init("home", [source], cartridges(1))
    take_room(cramped.workspace.parent, 0)
    assert cramped.backup("home", code=1)["error"] == "WorkspaceFull"


def test_what_is_stored_comes_back_while_the_disk_of_the_workspace_is_full(
    cramped: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=5, size=100_000)
    cramped.init("home", [source], cartridges(1))
    snapshot = cramped.backup("home")["snapshot"]
    ballast = take_room(cramped.workspace.parent, 0)
    assert cramped.snapshots("home") == [snapshot]
    assert len(cramped.listed("home")) > 4
    (source / "new.txt").write_text("new")
    cramped.backup("home", code=1)
    assert cramped.snapshots("home") == [snapshot]
    (source / "new.txt").unlink()
    cramped.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source", ignore=["mtime_ns"])
    ballast.unlink()
    assert cramped.backup("home")["status"] in ("complete", "unchanged")


# ---- a cartridge is full before its time


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_smaller_than_its_label_says_is_filled_and_the_next_is_taken(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    tmp_path: Path,
    kind: str,
) -> None:
    fill(source, files=30, size=400_000)
    made = [loop_volume(8, kind=kind), *cartridges(1)]
    program.init("home", [source], made, capacity="50MB")
    done = program.backup("home")
    assert (done["status"], done["cartridges"]) == ("complete", [1, 2])
    assert "suspect" not in states(program)
    all_is_well(program, source, made, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_without_any_room_gives_way_to_the_next(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    tmp_path: Path,
    kind: str,
) -> None:
    made = held_up(program, source, [loop_volume(25, kind=kind), *cartridges(1)])
    process = stopped(program, "placed.jsonl", made[0])
    take_room(made[0], 0)
    done = ended(process)
    assert done.get("status") == "complete", done
    all_is_well(program, source, made, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0, 24_000])
def test_nothing_is_lost_when_somebody_else_fills_a_volume(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    tmp_path: Path,
    kind: str,
    left: int,
) -> None:
    """However the run ended, the next one makes it good."""
    made = held_up(program, source, [loop_volume(25, kind=kind), *cartridges(1)])
    process = stopped(program, "placed.jsonl", made[0])
    ballast = take_room(made[0], left)
    done = ended(process)
    assert "suspect" not in states(program), done
    ballast.unlink()
    again = program.backup("home")
    assert again["status"] in ("complete", "unchanged"), (done, again)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.slow
def test_a_volume_that_takes_no_more_names_gives_way_to_the_next(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    tmp_path: Path,
) -> None:
    """All inodes are used up; there are bytes enough."""
    made = held_up(program, source, [loop_volume(25), *cartridges(1)])
    process = stopped(program, "placed.jsonl", made[0])
    names = take_names(made[0])
    done = ended(process)
    subprocess.run(["rm", "-r", names], check=True)
    assert "suspect" not in states(program), done
    assert program.backup("home")["status"] in ("complete", "unchanged"), done
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- a cartridge turns read-only


@pytest.mark.parametrize(
    "moment", ["placed.jsonl", pytest.param("written/001.json", marks=pytest.mark.night)]
)
def test_a_volume_that_turns_read_only_is_set_aside_and_the_next_is_taken(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    tmp_path: Path,
    moment: str,
) -> None:
    fill(source, files=60, size=250_000)
    volume = loop_volume(8)
    program.init("home", [source], [volume, *cartridges(2)])
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    process = stopped(program, moment)
    turn_read_only(volume, process)
    done = ended(process)
    assert done.get("status") == "complete", done
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    subprocess.run(["mount", "-o", "remount,rw", volume], check=True)
    assert program.backup("home")["status"] == "unchanged"
    program.restore("home", tmp_path / "again")
    assert_same_tree(source, tmp_path / "again" / "source")


# ---- a cartridge is taken away


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "moment",
    [
        "placed.jsonl",
        pytest.param("plan.json", marks=pytest.mark.night),
        pytest.param("written/001.json", marks=pytest.mark.night),
    ],
)
def test_a_volume_that_is_taken_away_is_waited_for(
    program: Program,
    source: Path,
    loop_volume: MakeVolume,
    tmp_path: Path,
    kind: str,
    moment: str,
) -> None:
    fill(source, files=60, size=250_000)
    volume = loop_volume(40, kind=kind)
    program.init("home", [source], [volume])
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    process = stopped(program, moment)
    subprocess.run(["umount", "-l", volume], check=True)
    told = ended(process)
    if moment == "written/001.json" and told["status"] == "complete":
        return  # it had been read back already
    assert (told["status"], told["error"]) == ("waiting", "CartridgeWanted")
    assert "home 1" in told["message"]
    assert os.listdir(volume) == [], "the disk below the mount point was written"
    assert program.backup("home", code=4)["snapshot"] == told["snapshot"]
    assert os.listdir(volume) == [], "the disk below the mount point was written"
    mount_again(tmp_path / "volume-1.img", volume, kind)
    assert "suspect" not in states(program)
    assert program.backup("home")["snapshot"] == told["snapshot"]
    all_is_well(program, source, [volume], tmp_path / "out")


# ---- how it is done


def take_room(volume: Path, left: int) -> Path:
    """Fill a volume until at most some bytes are left; return the file that does."""
    facts = os.statvfs(volume)
    size = max(facts.f_bavail * facts.f_frsize - left, 0)
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while (missing := size - file.tell()) > 0:
                file.write(bytes(min(missing, 1 << 16)))
            while not left:
                file.write(bytes(512))
        except OSError:
            pass
    return ballast


def take_names(volume: Path) -> Path:
    """Use up all inodes of a volume; return the folder that holds them."""
    folder = volume / "lost+found" / "names"
    folder.mkdir(parents=True)
    try:
        for number in range(1_000_000):
            (folder / str(number)).touch()
    except OSError:
        return folder
    raise AssertionError("there is no end of inodes")


def held_up(program: Program, source: Path, made: list[Path]) -> list[Path]:
    """A profile whose packer has much to do when the first archives are placed."""
    fill(source, files=60, size=250_000)
    program.init("home", [source], made)
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    return made


def stopped(program: Program, moment: str, quiet: Path | None = None) -> Process:
    """Start a backup and hold it when the run has a certain file, and a volume has no draft."""
    process = program.start("backup", "--json", "home")
    runs = program.workspace / "state" / "home" / "runs"

    def is_there() -> bool:
        return any(runs.glob(f"*/{moment}"))

    if not processes.wait_for(is_there, process, pause=0):
        raise AssertionError(processes.end_of(process))
    processes.stop_all(process)
    while quiet is not None and any(quiet.rglob("*.tmp")):
        processes.go_on(process)
        time.sleep(0.001)
        processes.stop_all(process)
    return process


def ended(process: Process, code: int | None = None) -> dict[str, Any]:
    """Let a held backup go on to its end and return what it says."""
    processes.go_on(process)
    got, out, err = processes.end_of(process, timeout=120)
    assert code is None or got == code, out + err
    told: dict[str, Any] = json.loads(out)
    return told


def turn_read_only(volume: Path, process: Process) -> None:
    """Remount between two files: while one is being written the kernel refuses."""
    for _ in range(500):
        done = subprocess.run(
            ["mount", "-o", "remount,ro", volume], check=False, capture_output=True
        )
        if done.returncode == 0:
            return
        processes.go_on(process)
        time.sleep(0.001)
        processes.stop_all(process)
    raise AssertionError("the volume was always being written")


def mount_again(image: Path, volume: Path, kind: str) -> None:
    """Mount a volume once nobody holds its former mount any more."""
    deadline = time.monotonic() + 20
    while subprocess.run(["losetup", "-j", image], check=True, capture_output=True).stdout:
        assert time.monotonic() < deadline, "the former mount is still held"
        time.sleep(0.05)
    mount(image, volume, kind)


def states(program: Program) -> set[str]:
    return {row["state"] for row in program.json("cartridges", "home")["cartridges"]}


def all_is_well(program: Program, source: Path, made: list[Path], out: Path) -> None:
    """The snapshot comes back exactly, and every cartridge with a list is as it says."""
    program.restore("home", out)
    assert_same_tree(source, out / "source")
    for folder in made:
        if (folder / "SHA256SUMS").exists():
            (folder / "ballast").unlink(missing_ok=True)
            check_cartridge(folder)
