"""A destination without room is refused before anything is written, and never called damage."""

import os
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges, MakeVolume
from tests.helpers.compare import assert_same_tree
from tests.helpers.program import Program

MEGABYTE = 1_000_000


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Program:
    """A backup of ten files of a megabyte in two folders."""
    for number in range(10):
        folder = source / f"folder {number % 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(os.urandom(MEGABYTE))
    program.init("home", [source], cartridges(1))
    program.backup("home")
    return program


def test_it_is_refused_before_the_first_byte(home: Program, loop_volume: MakeVolume) -> None:
    out = loop_volume(6) / "out"
    error = home.restore("home", out, code=1)
    assert error["error"] == "DestinationUnusable"
    assert "10.0 MB" in error["message"]
    assert "there is no room" in error["message"]
    assert list(out.iterdir()) == []


def test_what_is_there_already_needs_no_room(
    home: Program, source: Path, loop_volume: MakeVolume
) -> None:
    out = loop_volume(20) / "out"
    home.restore("home", out)
    assert os.statvfs(out).f_bavail * os.statvfs(out).f_frsize < 8 * MEGABYTE
    again = home.restore("home", out)
    assert (again["files"], again["present"]) == (0, 10)
    altered = out / "source" / "folder 1" / "1"
    altered.write_bytes(b"x" * MEGABYTE)
    assert home.restore("home", out)["files"] == 1
    assert_same_tree(source, out / "source")


def test_names_need_room_where_each_becomes_a_copy(
    program: Program, source: Path, cartridges: MakeCartridges, loop_volume: MakeVolume
) -> None:
    (source / "photo").write_bytes(os.urandom(2 * MEGABYTE))
    for number in range(4):
        os.link(source / "photo", source / f"name {number}")
    program.init("home", [source], cartridges(1))
    program.backup("home")
    out = loop_volume(8, kind="exfat")
    error = program.restore("home", out, code=1)
    assert "it needs 10.0 MB" in error["message"]
    assert list(out.iterdir()) == []
    program.restore("home", loop_volume(6))
    roomy = loop_volume(16, kind="exfat")
    for _ in range(2):  # copies that are there need no room a second time
        assert program.restore("home", roomy)["damaged"] == []


def test_holes_need_no_room(
    program: Program, source: Path, cartridges: MakeCartridges, loop_volume: MakeVolume
) -> None:
    with (source / "disk.img").open("wb") as file:
        file.truncate(500 * MEGABYTE)
        file.seek(250 * MEGABYTE)
        file.write(os.urandom(300_000))
    program.init("home", [source], cartridges(1))
    program.backup("home")
    out = loop_volume(6)
    program.restore("home", out)
    restored = (out / "source" / "disk.img").stat()
    assert restored.st_size == 500 * MEGABYTE
    assert restored.st_blocks * 512 < MEGABYTE
    program.restore("home", loop_volume(6, kind="exfat"), code=1)
