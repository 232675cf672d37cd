"""What is stored already is not stored again, wherever and whenever it turns up."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import MIB

MakeCartridges = Callable[[int], list[Path]]

LITTLE = 50_000


def start(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """Make the profile `home` with one cartridge."""
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    return cartridge


def stored_in(cartridge: Path) -> int:
    return sum(line["bytes"] for line in Medium(path=cartridge).journal)


def test_duplicates_are_stored_once_even_where_different_processes_pack_them(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source / "a first", files=20, size=MIB)
    fill(source / "b middle", files=24, size=MIB, seed=2)
    fill(source / "c between", files=3, size=MIB, seed=1)
    shutil.copytree(source / "a first", source / "z last")
    cartridge = start(program, source, cartridges)
    outcome = program.backup("home", "--workers", "4")
    bundles = {line["archive"].rpartition("/")[2][:4] for line in Medium(path=cartridge).journal}
    assert len(bundles) >= 3, "the tree was too small to be packed by several processes"
    assert outcome["bytes_read"] == 67 * MIB
    assert outcome["bytes_stored"] < 44 * MIB + MIB // 2
    assert stored_in(cartridge) == outcome["bytes_stored"]
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.slow
def test_many_equal_small_files_are_stored_once(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    chance = random.Random(1)
    contents = [chance.randbytes(20_000) for _ in range(5)]
    for number in range(1500):
        folder = source / f"{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.bin").write_bytes(contents[number % 5])
    start(program, source, cartridges)
    outcome = program.backup("home", "--workers", "4")
    assert 100_000 < outcome["bytes_stored"] < 200_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.night
@pytest.mark.parametrize("size", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_what_two_large_files_share_is_stored_once(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, size: int
) -> None:
    chance = random.Random(1)
    shared = chance.randbytes(size * MIB)
    ours, theirs = chance.randbytes(2 * MIB), chance.randbytes(3 * MIB + 17)
    (source / "one.img").write_bytes(ours + shared)
    (source / "other.img").write_bytes(shared[: size * MIB // 2] + theirs + shared[size // 2 :])
    start(program, source, cartridges)
    program.edit_profile("home", {"archive": {"split_size": "8MiB"}})
    outcome = program.backup("home")
    assert outcome["bytes_read"] > 2 * size * MIB
    assert outcome["bytes_stored"] < (size + 5 + 24) * MIB
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_links_moves_and_copies_store_nearly_nothing(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source / "folder" / "below", files=10, size=300_000)
    (source / "folder" / "large.img").write_bytes(random.Random(3).randbytes(10 * MIB))
    for number in range(5):
        os.link(source / "folder" / "below" / "001.bin", source / f"twin {number}")
    start(program, source, cartridges)
    program.edit_profile("home", {"archive": {"split_size": "4MiB"}})
    first = program.backup("home")
    assert first["bytes_stored"] < 3_000_000 + 10 * MIB + MIB
    expected = {}

    def back_up() -> dict[str, Any]:
        outcome = program.backup("home")
        assert outcome["bytes_stored"] < LITTLE
        expected[outcome["snapshot"]] = snapshot_of(source)
        return outcome

    (source / "folder").rename(source / "moved")
    moved = back_up()
    assert moved["moved"] >= 11
    assert (moved["bytes_read"], moved["deleted"]) == (0, 0)
    shutil.copytree(source / "moved", source / "copied")
    os.link(source / "moved" / "below" / "002.bin", source / "new twin")
    assert back_up()["added"] >= 12
    (source / "moved" / "large.img").rename(source / "renamed.img")
    shutil.rmtree(source / "copied")
    shutil.copyfile(source / "renamed.img", source / "copy again.img")
    back_up()
    for snapshot, facts in expected.items():
        program.restore("home", tmp_path / snapshot, "--snapshot", snapshot)
        assert_same_tree(facts, tmp_path / snapshot / "source")


@pytest.mark.slow
def test_what_is_deleted_and_comes_back_is_not_stored_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=8, size=200_000)
    start(program, source, cartridges)
    program.backup("home")
    shutil.copytree(source, tmp_path / "aside")
    for number in range(4):
        (source / f"{number:03}.bin").unlink()
    program.backup("home")
    shutil.copytree(tmp_path / "aside", source, dirs_exist_ok=True)
    assert program.backup("home")["bytes_stored"] < LITTLE
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_full_backup_stores_everything_again_and_needs_nothing_older(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=10, size=200_000)
    shutil.copytree(source, source / "copies")
    (source / "large.img").write_bytes(random.Random(3).randbytes(9 * MIB))
    [first] = cartridges(1)
    program.init("home", [source], [first])
    program.edit_profile("home", {"archive": {"split_size": "4MiB"}})
    once = program.backup("home")
    fill(source / "new", files=1, size=100_000, seed=9)
    again = program.backup("home", "--full")
    assert again["bytes_stored"] >= once["bytes_stored"] + 100_000
    assert (again["added"], again["modified"]) == (2, 0)
    older, away = first / "archives" / once["snapshot"], tmp_path / "away"
    older.rename(away)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")

    away.rename(older)
    shutil.copyfile(source / "large.img", source / "copy.img")
    assert program.backup("home")["bytes_stored"] < LITTLE
    older.rename(away)
    program.restore("home", tmp_path / "later")
    assert_same_tree(source, tmp_path / "later" / "source")


@pytest.mark.slow
def test_a_full_backup_of_what_has_not_changed_is_a_snapshot_of_its_own(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=10, size=200_000)
    cartridge = start(program, source, cartridges)
    once = program.backup("home")
    again = program.backup("home", "--full")
    assert again["status"] == "complete"
    assert again["snapshot"] > once["snapshot"]
    assert again["bytes_stored"] == once["bytes_stored"]
    check_cartridge(cartridge)
    shutil.rmtree(cartridge / "archives" / once["snapshot"])
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
