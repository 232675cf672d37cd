"""Volumes of any size are filled and never overfilled, and no wrong one is ever written."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import check_cartridge, fill, used
from tests.helpers.program import Medium, Program
from tests.helpers.trees import MIB, small_tree

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]

FOREIGN = {"lost+found"}


def search(program: Program, *patterns: Path | str, **more: Any) -> None:
    """Have the profile look for cartridges in some places."""
    program.edit_profile("home", {"cartridges": {"search": [str(p) for p in patterns], **more}})


def journal_of(folder: Path) -> list[dict[str, Any]]:
    return Medium(path=folder).journal


def bytes_on(folder: Path) -> object:
    """All that can be told of a folder, to see whether it was touched."""
    return snapshot_of(folder)


def many_small(folder: Path, files: int, seed: int = 1) -> None:
    """Write files of few bytes and long names, whose catalog is as large as their content."""
    chance = random.Random(seed)
    for number in range(files):
        below = folder / f"{number % 30:02}"
        below.mkdir(parents=True, exist_ok=True)
        (below / chance.randbytes(60).hex()).write_bytes(chance.randbytes(chance.randrange(700)))


# ---- real volumes


def large_files(folder: Path) -> None:
    fill(folder, files=9, size=9_000_000)


def middling_files(folder: Path) -> None:
    fill(folder, files=180, size=450_000)


def small_files(folder: Path) -> None:
    many_small(folder / "many", files=12_000)
    fill(folder, files=60, size=900_000)


@pytest.mark.night
@pytest.mark.parametrize(
    "make",
    [
        middling_files,
        *(pytest.param(make, marks=pytest.mark.night) for make in (large_files, small_files)),
    ],
)
def test_volumes_of_all_sizes_are_filled_and_never_overfilled(
    program: Program,
    source: Path,
    loop_volume: MakeVolume,
    tmp_path: Path,
    make: Callable[[Path], None],
) -> None:
    make(source)
    volumes = [loop_volume(size) for size in (20, 35, 27, 60)]
    program.init("home", [source], volumes)
    outcome = program.backup("home")
    assert outcome["status"] == "complete"
    assert len(outcome["cartridges"]) >= 3
    for volume in volumes:
        if journal_of(volume):
            shutil.rmtree(volume / "lost+found")
            check_cartridge(volume)
    *full, last = volumes[: len(outcome["cartridges"])]
    for volume in full:
        facts = os.statvfs(volume)
        # Room is kept for all lists; they get there if it takes the old and the new ones at once.
        kept = used(last / "catalog") - used(volume / "catalog")
        free = facts.f_bavail - kept // facts.f_frsize
        assert free / facts.f_blocks < 0.1, f"{volume.name} was left half empty"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.night
@pytest.mark.parametrize("seed", range(2))
def test_snapshot_after_snapshot_fills_volumes_without_an_error(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    volumes = [loop_volume(chance.randrange(20, 45)) for _ in range(8)]
    program.init("home", [source], volumes)
    expected = {}
    for turn in range(6):
        many_small(source / f"many {turn}", files=chance.choice([0, 500, 6000]), seed=turn)
        fill(source / f"big {turn}", chance.randrange(1, 30), chance.randrange(1, MIB), seed=turn)
        outcome = program.backup("home")
        assert outcome["status"] == "complete"
        expected[outcome["snapshot"]] = snapshot_of(source)
    for volume in volumes:
        shutil.rmtree(volume / "lost+found")
        if journal_of(volume):
            check_cartridge(volume)
    for snapshot, facts in expected.items():
        program.restore("home", tmp_path / snapshot, "--snapshot", snapshot)
        assert_same_tree(facts, tmp_path / snapshot / "source")


@pytest.mark.night
def test_a_volume_that_others_have_nearly_filled_is_passed_over(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path
) -> None:
    fill(source, files=40, size=400_000)
    small, large = loop_volume(20), loop_volume(30)
    program.init("home", [source], [small, large])
    facts = os.statvfs(small)
    film = bytes(facts.f_bavail * facts.f_frsize - 700_000)
    (small / "holiday.mp4").write_bytes(film)
    outcome = program.backup("home")
    assert outcome["status"] == "complete"
    assert (small / "holiday.mp4").read_bytes() == film
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- capacity


@pytest.mark.night
def test_large_cartridges_are_filled_to_98_percent(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    capacity = 10**9
    with (source / "disk.img").open("wb") as file:
        chance = random.Random(1)
        for _ in range(1200):
            file.write(chance.randbytes(10**6))
    fill(source / "films", files=20, size=40_000_000, seed=2)
    fill(source / "music", files=75, size=4_000_000, seed=3)
    program.init("home", [source], cartridges(4), capacity="1GB")
    outcome = program.backup("home", timeout=900)
    assert (outcome["status"], outcome["cartridges"]) == ("complete", [1, 2, 3])
    media = sorted(tmp_path.glob("media/*"))
    taken = [used(folder) for folder in media[:3]]
    assert max(taken) <= capacity
    assert min(taken[:2]) >= 0.98 * capacity, taken
    for folder in media[:3]:
        check_cartridge(folder)
    program.restore("home", tmp_path / "out", timeout=900)
    command = ["diff", "-r", source, tmp_path / "out" / "source"]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.night
def test_a_label_and_a_profile_both_limit_what_is_written(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=40, size=250_000)
    program.init("home", [source], cartridges(1), capacity="4MB")
    for folder in cartridges(2):
        program.run("label", folder, "--set", "home", "--capacity", "6MB")
    search(program, tmp_path / "media" / "*", capacity="5MB")
    outcome = program.backup("home")
    assert outcome["cartridges"] == [1, 2, 3]
    taken = [used(folder) for folder in sorted(tmp_path.glob("media/*"))]
    assert [size <= limit for size, limit in zip(taken, (4e6, 5e6, 5e6), strict=True)] == [True] * 3
    assert taken[0] > 3.4e6
    assert taken[1] > 4.4e6


# ---- blank volumes


def test_blank_directories_are_labelled_where_the_profile_says_so(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=40, size=250_000)
    program.init("home", [source], [])
    folders = cartridges(5)
    (folders[1] / "letter.txt").write_text("not blank\n")
    search(program, tmp_path / "media" / "*", capacity="5MB", auto_label=True)
    outcome = program.backup("home")
    assert (outcome["status"], outcome["cartridges"]) == ("complete", [1, 2, 3])
    labelled = [folder for folder in folders if (folder / "CARTRIDGE.json").exists()]
    assert labelled == [folders[0], folders[2], folders[3]]
    assert [Medium(path=f).label["serial"] for f in labelled] == [1, 2, 3]
    assert os.listdir(folders[1]) == ["letter.txt"]
    assert os.listdir(folders[4]) == []
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.night
def test_blank_directories_are_left_alone_where_it_does_not(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=3, size=1000)
    program.init("home", [source], [])
    [folder] = cartridges(1)
    search(program, tmp_path / "media" / "*")
    assert program.backup("home", code=4)["status"] == "waiting"
    assert os.listdir(folder) == []


def test_a_blank_directory_inside_the_source_is_never_labelled(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=3, size=1000)
    (source / "blank").mkdir()
    program.init("home", [source], [])
    search(program, source / "*", auto_label=True)
    program.backup("home", code=None)
    assert os.listdir(source / "blank") == []


@pytest.mark.night
def test_a_blank_volume_that_cannot_be_written_does_not_keep_others_from_it(
    program: Program, source: Path, loop_volume: MakeVolume, cartridges: MakeCartridges
) -> None:
    fill(source, files=3, size=1000)
    locked = loop_volume(20)
    remount(locked, "ro")
    [folder] = cartridges(1)
    program.init("home", [source], [])
    search(program, locked, folder, auto_label=True)
    assert program.backup("home")["status"] == "complete"
    assert journal_of(folder)


# ---- wrong cartridges


def remount(volume: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", volume], check=True)


class Shelf:
    """A profile with one snapshot on one cartridge, and something new to back up."""

    def __init__(self, program: Program, source: Path, cartridge: Path) -> None:
        self.program, self.source, self.cartridge = program, source, cartridge
        small_tree(source, files=10)
        fill(source, files=4, size=100_000)
        program.init("home", [source], [cartridge])
        program.backup("home")
        fill(source, files=4, size=100_000, seed=2)

    def refuses(self, *reasons: str) -> None:
        """A backup ends with an error that says why, and touches no cartridge."""
        self.program.workspace.chmod(0o755)
        places = [self.cartridge, *sorted(self.cartridge.parent.glob("c*"))]
        before = [bytes_on(place) for place in places if place.exists()]
        error = self.program.backup("home", code=1)
        assert error["error"] == "WrongCartridge"
        for reason in reasons:
            assert reason in error["message"]
        assert [bytes_on(place) for place in places if place.exists()] == before


@pytest.fixture
def shelf(program: Program, source: Path, cartridges: MakeCartridges) -> Shelf:
    return Shelf(program, source, cartridges(1)[0])


def test_a_clone_of_a_cartridge_is_refused(shelf: Shelf) -> None:
    clone = shelf.cartridge.with_name("clone")
    shutil.copytree(shelf.cartridge, clone)
    search(shelf.program, shelf.cartridge, clone)
    before = bytes_on(clone)
    shelf.refuses("UUID", str(shelf.cartridge), str(clone))
    assert bytes_on(clone) == before
    shutil.rmtree(clone)
    assert shelf.program.backup("home")["status"] == "complete"


def test_a_cartridge_whose_list_lost_a_line_is_refused(shelf: Shelf) -> None:
    journal = shelf.cartridge / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    shelf.refuses("home 1")
    journal.write_bytes(whole)
    assert shelf.program.backup("home")["status"] == "complete"


@pytest.mark.night
def test_a_cartridge_that_another_workspace_wrote_is_refused(
    shelf: Shelf, tmp_path: Path, cartridges: MakeCartridges
) -> None:
    """Two workspaces with the same profile: what one has written, the other does not know."""
    other = Program(tmp_path / "other")
    shutil.copytree(shelf.program.workspace, other.workspace, dirs_exist_ok=True)
    other.backup("home")
    fill(shelf.source, files=2, size=50_000, seed=3)
    shelf.refuses("another workspace")


@pytest.mark.night
def test_a_cartridge_from_an_older_copy_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """A copy made before the last run would be written over by the next one."""
    shutil.copytree(shelf.cartridge, tmp_path / "older")
    shelf.program.backup("home")
    shutil.rmtree(shelf.cartridge)
    shutil.copytree(tmp_path / "older", shelf.cartridge)
    fill(shelf.source, files=2, size=50_000, seed=3)
    shelf.refuses("not as it was written")


def test_a_cartridge_inside_the_source_is_refused(
    program: Program, source: Path, tmp_path: Path
) -> None:
    fill(source, files=3, size=1000)
    inside = source / "cartridge"
    program.init("home", [source], [inside])
    before = bytes_on(inside)
    error = program.backup("home", code=1)
    assert error["error"] == "WrongCartridge"
    assert "inside the source" in error["message"]
    assert bytes_on(inside) == before


def test_a_cartridge_that_is_mounted_read_only_is_refused(
    program: Program, source: Path, loop_volume: MakeVolume
) -> None:
    volume = loop_volume(20)
    shelf = Shelf(program, source, volume)
    remount(volume, "ro")
    shelf.refuses("read-only")
    remount(volume, "rw")
    assert program.backup("home")["status"] == "complete"


@pytest.mark.parametrize("other", ["other set", "other profile"])
def test_cartridges_of_others_are_never_written(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, other: str
) -> None:
    fill(source, files=3, size=1000)
    program.init("home", [source], [])
    [folder] = cartridges(1)
    if other == "other set":
        program.run("label", folder, "--set", "archive")
    else:
        Program(tmp_path / "theirs").init("work", [source], [])
        Program(tmp_path / "theirs").edit_profile("work", {"cartridges": {"set": "home"}})
        Program(tmp_path / "theirs").run("label", folder, "--set", "home")
    search(program, tmp_path / "media" / "*", auto_label=True)
    before = bytes_on(folder)
    waiting = program.backup("home", code=4)
    assert waiting["status"] == "waiting"
    assert "home 1" in waiting["message"]
    assert bytes_on(folder) == before
