"""What is backed up comes back: all of it, or what is asked for."""

import datetime
import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Home, MakeCartridges
from tests.helpers.compare import assert_same_tree, snapshot_of, without
from tests.helpers.farm import Farm
from tests.helpers.program import Program
from tests.helpers.trees import MIB, small_tree

SMALL = 8_000_000


def wait_for_next_second() -> None:
    """Let a second go by, so that a time lies surely between two snapshots."""
    time.sleep(1.1)


def test_everything_odd_comes_back_exactly(farm: Farm, tmp_path: Path) -> None:
    outcome = farm.program.restore("home", tmp_path / "out")
    assert outcome["snapshot"] == farm.outcome["snapshot"]
    assert outcome["damaged"] == []
    assert_same_tree(without(farm.facts, "socket"), tmp_path / "out" / farm.source.name)


def test_the_farm_needed_several_cartridges_and_was_complete(farm: Farm) -> None:
    assert farm.outcome["status"] == "complete"
    assert farm.outcome["unreadable"] == []
    assert len(farm.written) >= 3
    serials = [medium.label["serial"] for medium in farm.written]
    assert sorted(farm.outcome["cartridges"]) == serials


def test_several_sources_come_back_side_by_side(
    program: Program, tmp_path: Path, cartridges: MakeCartridges
) -> None:
    sources = [tmp_path / "one" / "docs", tmp_path / "pictures", tmp_path / "two" / "docs"]
    for seed, folder in enumerate(sources):
        small_tree(folder, files=10, seed=seed)
    program.init("home", sources, cartridges(1))
    program.backup("home")
    program.restore("home", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 3
    assert {"docs", "pictures"} < set(names)
    suffixed = next(name for name in names if name not in ("docs", "pictures"))
    for folder, name in zip(sources, ("docs", "pictures", suffixed), strict=True):
        assert_same_tree(folder, tmp_path / "out" / name)


@pytest.mark.parametrize(
    ("size", "capacity", "number"),
    [(20 * MIB, "8MB", 5), pytest.param(100 * MIB, "40MB", 4, marks=pytest.mark.slow)],
)
def test_a_file_larger_than_a_cartridge_spans_several(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    tmp_path: Path,
    size: int,
    capacity: str,
    number: int,
) -> None:
    (source / "disk.img").write_bytes(random.Random(1).randbytes(size))
    program.init("home", [source], cartridges(number), capacity=capacity)
    outcome = program.backup("home")
    assert outcome["status"] == "complete"
    assert len(outcome["cartridges"]) >= 3
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_an_older_snapshot_comes_back_by_id_and_by_time(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    first = snapshot_of(source)
    wait_for_next_second()
    between = datetime.datetime.now(datetime.UTC)
    later = between + datetime.timedelta(days=365)
    wait_for_next_second()
    shutil.rmtree(source / "letters")
    (source / "new.txt").write_text("new\n")
    program.backup("home")
    oldest, newest = program.snapshots("home")
    assert oldest < newest

    program.restore("home", tmp_path / "id", "--snapshot", oldest)
    program.restore("home", tmp_path / "at", "--at", between.isoformat())
    program.restore("home", tmp_path / "now", "--at", later.isoformat())
    program.restore("home", tmp_path / "newest")
    assert_same_tree(first, tmp_path / "id" / "source")
    assert_same_tree(first, tmp_path / "at" / "source")
    assert_same_tree(source, tmp_path / "now" / "source")
    assert_same_tree(source, tmp_path / "newest" / "source")
    assert not (tmp_path / "newest" / "source" / "letters").exists()


def test_a_time_before_all_snapshots_is_an_error(home: Home, tmp_path: Path) -> None:
    program, _, _ = home
    args = ("--at", "2001-02-03T04:05:06Z")
    error = program.restore("home", tmp_path / "out", *args, code=None)
    assert error["exit_code"] in (1, 2)
    assert not (tmp_path / "out" / "source").exists()


def test_patterns_choose_what_is_restored(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    program.restore("home", tmp_path / "out", "source/letters/*.txt", "source/big/00[12].bin")
    whole = snapshot_of(source)
    wanted = (rb"letters/[^/]*\.txt", rb"big/00[12]\.bin", rb"letters", rb"big", rb"")
    expected = {
        path: facts
        for path, facts in whole.items()
        if any(re.fullmatch(pattern, path) for pattern in wanted)
    }
    assert_same_tree(expected, tmp_path / "out" / "source", ignore=["mtime_ns", "group"])
    for path, facts in snapshot_of(tmp_path / "out" / "source").items():
        assert facts.kind != "file" or facts.mtime_ns == whole[path].mtime_ns


def test_foreign_files_stay_unless_they_are_to_go(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    out = tmp_path / "out" / "source"
    program.restore("home", tmp_path / "out")
    (out / "foreign.txt").write_text("mine\n")
    (out / "letters" / "foreign folder").mkdir()
    (out / "letters" / "foreign folder" / "x").write_text("mine too\n")
    (out / "big" / "000.bin").write_text("altered\n")
    program.restore("home", tmp_path / "out")
    assert (out / "foreign.txt").read_text() == "mine\n"
    assert (out / "letters" / "foreign folder" / "x").read_text() == "mine too\n"
    program.restore("home", tmp_path / "out", "--delete", "--yes")
    assert_same_tree(source, out)


def test_a_plan_names_the_cartridges_and_restores_nothing(farm: Farm, tmp_path: Path) -> None:
    plan = farm.program.restore("home", tmp_path / "out", "--plan")
    serials = [cartridge["serial"] for cartridge in plan["cartridges"]]
    assert sorted(serials) == [medium.label["serial"] for medium in farm.written]
    assert all(cartridge["present"] for cartridge in plan["cartridges"])
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_left_alone_though_it_be_empty(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    (source / "empty").touch()
    program.backup("home")
    first = program.restore("home", tmp_path / "out")
    inode = (tmp_path / "out" / "source" / "empty").stat().st_ino
    again = program.restore("home", tmp_path / "out")
    assert (again["files"], again["present"]) == (0, first["files"])
    assert (tmp_path / "out" / "source" / "empty").stat().st_ino == inode


def test_delete_does_not_empty_what_is_mounted_below(
    home: Home, needs_root: None, tmp_path: Path
) -> None:
    program, _, _ = home
    out = tmp_path / "out"
    program.restore("home", out)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "precious").write_text("of somebody else")
    below = out / "source" / "foreign" / "a disk"
    below.mkdir(parents=True)
    subprocess.run(["mount", "--bind", mounted, below], check=True)
    try:
        told = program.restore("home", out, "--delete", "--yes", code=1)
        assert "foreign" in told["message"]
        assert (mounted / "precious").exists()
    finally:
        subprocess.run(["umount", below], check=True)
    program.restore("home", out, "--delete", "--yes")
    assert not (out / "source" / "foreign").exists()


def test_what_is_there_gets_its_owner_and_access_back(
    home: Home, needs_root: None, tmp_path: Path
) -> None:
    """The file of another, with a set-user-id bit, would run with that one's rights."""
    program, source, _ = home
    (source / "tool").write_text("#!/bin/sh")
    (source / "tool").chmod(0o4755)
    program.backup("home")
    program.restore("home", tmp_path / "out")
    there = tmp_path / "out" / "source" / "tool"
    os.chown(there, 1000, 1000)
    subprocess.run(["setfacl", "-m", "u:1000:rw", there], check=True)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_two_files_that_somebody_made_one_are_two_again(home: Home, tmp_path: Path) -> None:
    """An edit of one would change the other."""
    program, source, _ = home
    for name in ("a", "b"):
        (source / name).write_text("the same")
        os.utime(source / name, (0, 0))
    program.backup("home")
    program.restore("home", tmp_path / "out")
    out = tmp_path / "out" / "source"
    (out / "b").unlink()
    os.link(out / "a", out / "b")
    program.restore("home", tmp_path / "out")
    assert (out / "a").stat().st_ino != (out / "b").stat().st_ino
    assert_same_tree(source, out)


def test_attributes_come_back_and_those_that_were_added_go(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    for name in ("file", "first"):
        (source / name).write_text(name)
        os.setxattr(source / name, "user.kept", b"as it was")
    os.link(source / "first", source / "second")
    program.backup("home")
    program.restore("home", tmp_path / "out")
    out = tmp_path / "out" / "source"
    os.setxattr(out / "letters", "user.added", b"later")
    for name in ("file", "first"):
        os.setxattr(out / name, "user.added", b"later")
        os.removexattr(out / name, "user.kept")
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, out)


def test_a_foreign_tree_goes_however_deep_it_is(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    program.restore("home", tmp_path / "out")
    fd = os.open(tmp_path / "out" / "source", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    program.restore("home", tmp_path / "out", "--delete", "--yes")
    assert_same_tree(source, tmp_path / "out" / "source")
