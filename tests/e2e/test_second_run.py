"""A second run stores what has changed, and nothing else."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tasks.media.cartridge import file_digest
from tasks.model.units import parse_size
from tests.conftest import Home, MakeCartridges
from tests.helpers.compare import assert_same_tree, bytes_on
from tests.helpers.damage import flip_a_bit
from tests.helpers.media import check_cartridge
from tests.helpers.program import Medium, Program
from tests.helpers.trees import MIB


def test_an_unchanged_source_adds_no_snapshot_and_touches_no_cartridge(home: Home) -> None:
    program, _, cartridge = home
    before, snapshots = bytes_on(cartridge), program.snapshots("home")
    outcome = program.backup("home")
    assert (outcome["status"], outcome["snapshot"]) == ("unchanged", None)
    assert bytes_on(cartridge) == before
    assert program.snapshots("home") == snapshots


def test_an_unchanged_source_needs_no_cartridge(home: Home) -> None:
    program, _, cartridge = home
    cartridge.rename(cartridge.parents[1] / "on the shelf")
    assert program.backup("home")["status"] == "unchanged"


def test_only_what_changed_is_stored(home: Home, tmp_path: Path) -> None:
    program, source, cartridge = home
    (source / "letters" / "new.txt").write_text("a letter\n")
    with (source / "x" / "0004.txt").open("a") as file:
        file.write("one more line\n")
    (source / "0000.txt").unlink()
    outcome = program.backup("home")
    counts = {key: outcome[key] for key in ("added", "modified", "moved", "deleted")}
    assert counts == {"added": 1, "modified": 1, "moved": 0, "deleted": 1}
    assert 0 < outcome["bytes_stored"] < 100_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    check_cartridge(cartridge)


def test_moved_files_are_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    (source / "big" / "001.bin").rename(source / "x" / "renamed.bin")
    outcome = program.backup("home")
    assert (outcome["moved"], outcome["added"], outcome["deleted"]) == (1, 0, 0)
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_file_that_was_renamed_and_written_to_is_not_taken_for_the_old_one(
    home: Home, tmp_path: Path
) -> None:
    """Its size and its mtime are as before, and its ctime would be new in any case."""
    program, source, _ = home
    renamed, in_moved = source / "x" / "renamed.bin", source / "moved" / "002.bin"
    (source / "big" / "001.bin").rename(renamed)
    (source / "big").rename(source / "moved")
    for path in (renamed, in_moved):
        facts = path.stat()
        with path.open("r+b") as file:
            file.write(b"another beginning")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    outcome = program.backup("home")
    assert outcome["moved"] >= 6
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_moved_folder_is_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    (source / "big").rename(source / "letters" / "large")
    outcome = program.backup("home")
    assert outcome["moved"] >= 6
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_copied_files_are_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    shutil.copyfile(source / "big" / "002.bin", source / "copy.bin")
    outcome = program.backup("home")
    assert outcome["added"] == 1
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_changed_metadata_makes_a_snapshot_without_content(home: Home, tmp_path: Path) -> None:
    program, source, cartridge = home
    (source / "big" / "003.bin").chmod(0o600)
    outcome = program.backup("home")
    assert (outcome["status"], outcome["archives"]) == ("complete", 0)
    assert (outcome["metadata"], outcome["modified"]) == (1, 0)
    assert Medium(path=cartridge).manifest(outcome["snapshot"]).exists()
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_an_edit_that_hides_behind_size_and_mtime_is_found(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    file = source / "big" / "004.bin"
    before = file.stat().st_mtime_ns
    with file.open("r+b") as opened:
        opened.write(b"not as it was")
    os.utime(file, ns=(before, before))
    assert program.backup("home")["modified"] == 1
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_byte_inserted_into_a_large_file_stores_little(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    data = random.Random(7).randbytes(100 * MIB)
    (source / "disk.img").write_bytes(data)
    program.init("home", [source], cartridges(1))
    first = program.backup("home")
    assert first["bytes_stored"] > 100 * MIB
    (source / "disk.img").write_bytes(b"!" + data)
    second = program.backup("home")
    assert 0 < second["bytes_stored"] < 20 * MIB
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_dry_run_may_come_before_any_run(program: Program, source: Path) -> None:
    (source / "file").write_text("new")
    program.run("init", "home", "--source", source)
    shutil.rmtree(program.workspace / "state", ignore_errors=True)
    assert program.json("backup", "home", "--dry-run")["added"] == 1


def test_a_dry_run_tells_what_would_be_stored_again(home: Home) -> None:
    program, source, _ = home
    whole = sum(path.lstat().st_size for path in source.rglob("*") if path.is_file())
    for reason, options in (("forced", ["--full"]), ("lost", [])):
        if reason == "lost":
            program.run("lost", "home", "1")
        told = program.json("backup", "home", "--dry-run", *options)
        files = {f"source/{path.relative_to(source)}" for path in source.rglob("*.bin")}
        again = {(c["path"], c["change"], c["reason"]) for c in told["changes"]}
        assert {(path, "again", reason) for path in files} <= again
        said = program.run("backup", "home", "--dry-run", *options).stdout
        size = said.rpartition("At most ")[2].partition(" would")[0]
        assert abs(parse_size(size.replace(" ", "")) - whole) < whole / 10


def test_a_prune_before_any_run_has_nothing_to_do(program: Program, source: Path) -> None:
    program.run("init", "home", "--source", source)
    assert program.json("prune", "home")["freed"] == 0


@pytest.mark.parametrize("kind", ["manifests", "recipes"])
def test_a_bit_that_flipped_in_an_older_catalog_is_put_right(home: Home, kind: str) -> None:
    """A seal that took the file for what it is now would leave nobody to notice."""
    program, source, cartridge = home
    [older] = (cartridge / "catalog" / kind).iterdir()
    whole = older.read_bytes()
    flip_a_bit(older, random.Random(7))
    (source / "new").write_text("new")
    program.backup("home")
    assert older.read_bytes() == whole
    check_cartridge(cartridge)


def test_a_seal_does_not_read_all_older_catalogs_and_takes_none_for_right(home: Home) -> None:
    """To read them would take longer with every snapshot. Who verifies finds the damage."""
    program, source, cartridge = home
    [older] = program.snapshots("home")
    name = f"catalog/recipes/{older}.tar.lz4"
    (source / "second").write_text("new")
    program.backup("home")
    enlarge(cartridge, name, program.catalog("home").parent / name)
    whole = (cartridge / name).read_bytes()
    flip_a_bit(cartridge / name, random.Random(7))
    (source / "third").write_text("new")
    assert program.backup("home")["status"] == "complete"
    verified = program.json("verify", "home", code=5)
    assert verified["cartridges"][0]["damaged"] == [name]
    (source / "fourth").write_text("new")
    program.backup("home")
    assert (cartridge / name).read_bytes() == whole
    check_cartridge(cartridge)
    assert program.json("verify", "home")["cartridges"][0]["damaged"] == []


def enlarge(cartridge: Path, name: str, original: Path) -> None:
    """Have a file on a cartridge, with its original, be larger than what is read at a seal."""
    before = file_digest(original)
    with original.open("ab") as file:
        file.truncate(70 * MIB)
    shutil.copyfile(original, cartridge / name)
    sums = cartridge / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, file_digest(original)))
