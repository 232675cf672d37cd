"""A disk may hold other files beside a cartridge: nobody lists, counts, reads or removes them."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Home
from tests.helpers.compare import assert_same_tree, snapshot_of

NAMES = [
    "mine.txt",
    "mine.txt.tmp",
    ".DS_Store",
    "caf\udce9",
    "two\nlines",
    "photos/archives/20200101T000000Z/0001000000.tar.lz4",
    ".Trash-1000/files/catalog/deleted.tmp",
]


@pytest.fixture
def shared(home: Home) -> Home:
    """A profile whose cartridge lies among other files; one of them is changed after each seal."""
    program, source, cartridge = home
    for name in NAMES:
        path = cartridge / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (cartridge / "photos" / "loop").symlink_to(cartridge)
    with (cartridge / "large").open("wb") as file:
        file.truncate(1 << 30)
    (source / "new").write_text("new")
    program.backup("home")
    (cartridge / "mine.txt").write_text("changed")
    return home


def others(cartridge: Path) -> list[str]:
    """Return what lies on a cartridge and is not the program's."""
    ours = {"archives", "catalog", "CARTRIDGE.json", "journal.jsonl", "SHA256SUMS"}
    return sorted(set(os.listdir(cartridge)) - ours - {"README.txt", "restore.sh"})


def test_other_files_are_no_damage(shared: Home) -> None:
    program, _, cartridge = shared
    assert program.json("verify", "home")["cartridges"][0]["damaged"] == []
    assert program.json("verify", cartridge)["cartridges"][0]["damaged"] == []
    assert b"mine" not in (cartridge / "SHA256SUMS").read_bytes()


def test_other_files_do_not_count_as_the_cartridges(shared: Home) -> None:
    program, source, _ = shared
    program.edit_profile("home", {"cartridges": {"capacity": "20MB"}})
    (source / "more").write_text("more")
    assert program.backup("home")["status"] == "complete"
    [facts] = program.json("cartridges", "home")["cartridges"]
    assert facts["used"] < 20_000_000


def test_other_files_stay_when_room_is_made(shared: Home) -> None:
    program, source, cartridge = shared
    before = snapshot_of(cartridge / "photos")
    names = others(cartridge)
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    (source / "new").unlink()
    program.backup("home")
    assert program.json("prune", "home")["freed"] >= 0
    assert others(cartridge) == names
    assert_same_tree(before, cartridge / "photos")


def test_other_files_are_no_hindrance_to_a_recover(shared: Home, tmp_path: Path) -> None:
    program, source, cartridge = shared
    for folder in ("state", "profiles"):
        shutil.rmtree(program.workspace / folder)
    program.json("recover", cartridge)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
