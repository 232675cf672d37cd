"""Whichever call fails, with whatever error: nothing is lost, and no failure is told as success."""

import errno
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges
from tests.helpers.compare import assert_same_tree
from tests.helpers.faults import Fault, Faults
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Program


@pytest.fixture
def mixed(program: Program, source: Path, cartridges: MakeCartridges) -> list[Path]:
    """Small files before and behind one of 13 MB that is stored in parts; two cartridges."""
    fill(source / "a", files=40, size=5_000)
    fill(source / "b", files=1, size=13_000_000, seed=7)
    fill(source / "c", files=10, size=5_000, seed=9)
    made = cartridges(2)
    program.init("home", [source], made)
    program.edit_profile("home", {"archive": {"split_size": "1MiB"}})
    return made


def spool(program: Program) -> Path:
    return program.workspace / "state" / "home" / "spool"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_an_archive_that_could_not_be_written_whole_is_never_stored(
    program: Program, source: Path, mixed: list[Path], tmp_path: Path, error: int
) -> None:
    fault = Fault(roots=(spool(program),), error=error, kinds=("write",), at=3)
    faults = Faults(program, fault)
    told = faults.program.backup("home", code=1)
    assert faults.hits == 1
    assert told["error"] == ("WorkspaceFull" if error == errno.ENOSPC else "StageFailed")
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.parametrize("at", [1, 4])
def test_a_write_that_took_only_a_part_goes_on_or_fails(
    program: Program, source: Path, mixed: list[Path], tmp_path: Path, at: int
) -> None:
    fault = Fault(roots=(spool(program),), error=0, kinds=("write",), at=at)
    faults = Faults(program, fault)
    told = faults.program.backup("home", code=None)
    assert faults.hits == 1
    assert told.get("status", "failed") in ("complete", "failed"), told
    states = {c["state"] for c in program.json("cartridges", "home")["cartridges"]}
    assert "suspect" not in states
    program.backup("home")
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.parametrize("at", [10, 30])
def test_a_large_file_whose_parts_lay_on_a_failed_cartridge_is_packed_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, at: int
) -> None:
    fill(source, files=4, size=280_000)
    made = cartridges(3)
    program.init("home", [source], made, capacity="2MB")
    faults = Faults(program, Fault(roots=(made[0],), kinds=("sync",), at=at))
    assert faults.program.backup("home")["status"] == "complete"
    assert faults.hits == 1
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.parametrize(("error", "kind"), [(errno.ENOSPC, "write"), (0, "write")])
def test_an_archive_that_the_journal_could_not_name_does_not_stay(
    program: Program, source: Path, cartridges: MakeCartridges, error: int, kind: str
) -> None:
    fill(source, files=20, size=50_000)
    made = cartridges(2)
    program.init("home", [source], made, capacity="3MB")
    program.edit_profile("home", {"archive": {"archive_size": "200KB"}})
    journal = made[0] / "journal.jsonl"
    faults = Faults(program, Fault(roots=(journal,), error=error, kinds=(kind,), at=3))
    faults.program.backup("home")
    assert faults.hits == 1
    for cartridge in made:
        check_cartridge(cartridge)


@pytest.mark.parametrize("name", ["catalog/cartridges.parquet.tmp", "SHA256SUMS.tmp"])
def test_a_catalog_that_could_not_be_brought_up_to_date_is_no_damage(
    program: Program, source: Path, cartridges: MakeCartridges, name: str
) -> None:
    fill(source, files=20, size=200_000)
    made = cartridges(2)
    program.init("home", [source], made, capacity="3MB")
    # The first write is that of the seal, the second that of the end of the run.
    root = made[0] / name
    faults = Faults(program, Fault(roots=(root,), kinds=("open",), at=2))
    faults.program.backup("home")
    assert faults.hits == 1
    check_cartridge(made[0])
    program.json("verify", "home")
