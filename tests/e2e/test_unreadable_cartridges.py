"""A cartridge that cannot be read is set aside or passed over; no run goes round in circles."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.compare import assert_same_tree
from tests.helpers.home import Home
from tests.helpers.media import fill
from tests.helpers.program import Program

MakeCartridges = Callable[[int], list[Path]]


@pytest.fixture
def pair(program: Program, source: Path, cartridges: MakeCartridges) -> Home:
    """A profile with a snapshot on the first of two cartridges, and something new to back up."""
    folders = cartridges(2)
    fill(source, files=3, size=10_000)
    program.init("home", [source], folders)
    program.backup("home")
    fill(source / "new", files=3, size=10_000, seed=2)
    return Home(program, source, folders)


def unreadable(file: Path) -> None:
    """Make a file one that no system reads, root or not."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("name", ["journal.jsonl", "SHA256SUMS"])
def test_one_whose_lists_cannot_be_read_is_set_aside_and_another_is_written(
    pair: Home, name: str
) -> None:
    unreadable(pair.cartridges[0] / name)
    done = pair.program.run("backup", "home", "--json")
    told = json.loads(done.stdout)
    assert (told["status"], told["cartridges"]) == ("complete", [2])
    assert done.stderr.count("goes to another cartridge") == 1
    assert pair.states()[1] == "suspect"


def test_where_there_is_no_other_the_run_waits_for_one(pair: Home) -> None:
    shutil.rmtree(pair.cartridges[1])
    unreadable(pair.cartridges[0] / "journal.jsonl")
    assert pair.program.backup("home", code=4)["status"] == "waiting"


@pytest.mark.parametrize("journal", [None, b"garbage\n"])
def test_an_unknown_one_that_cannot_be_read_is_no_concern_of_a_run(
    pair: Home, tmp_path: Path, journal: bytes | None
) -> None:
    program = pair.program
    stranger = pair.cartridges[0].with_name("stranger")
    stranger.mkdir()
    program.run("label", stranger, "--set", "home", "--workspace", tmp_path / "other")
    file = stranger / "journal.jsonl"
    file.mkdir() if journal is None else file.write_bytes(journal)
    program.edit_profile("home", {"cartridges": {"search": [f"{stranger.parent}/*"]}})
    assert program.backup("home")["cartridges"] == [1]
    program.restore("home", tmp_path / "out")
    assert_same_tree(pair.source, tmp_path / "out" / "source")


def test_a_copy_of_one_that_is_not_needed_is_no_concern_of_a_run(pair: Home) -> None:
    program = pair.program
    shutil.copytree(pair.cartridges[1], pair.cartridges[1].with_name("copy"))
    search = [f"{pair.cartridges[1].parent}/*"]
    program.edit_profile("home", {"cartridges": {"search": search, "parallel": 2}})
    assert program.backup("home")["cartridges"] == [1]
