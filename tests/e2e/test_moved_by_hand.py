"""Folders that moved come back by hand in bulk, and whatever else happened to their files."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.byhand import Stranger
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.damage import flip_a_bit
from tests.helpers.program import Medium, Program
from tests.helpers.trees import ODD_NAMES, small_tree

MakeCartridges = Callable[[int], list[Path]]
SHELLS = [
    "sh",
    pytest.param(
        "busybox",
        marks=pytest.mark.skipif(not shutil.which("busybox"), reason="there is no busybox"),
    ),
]
BYTES = 25  # of a recipe, for each file that moved with its folder


def before_moves(source: Path) -> None:
    for seed, name in enumerate(("whole", "east", "west", "parts", "twins")):
        small_tree(source / name, files=15, seed=min(seed, 3))  # some have the content of others
        (source / name / "called alike").write_text(name)
    odd = source / "odd"
    odd.mkdir()
    for number, name in enumerate(ODD_NAMES):
        (odd / os.fsdecode(name)).mkdir()
        (odd / os.fsdecode(name) / "inside").write_bytes(b"%d" % number)
    os.link(source / "whole" / "called alike", source / "whole" / "twin")
    with (source / "whole" / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"not all of it")
    with contextlib.suppress(OSError):
        os.setxattr(source / "whole" / "0000.txt", "user.kept", b"yes")


def move(source: Path) -> None:
    (source / "new").mkdir()
    (source / "whole").rename(source / "new" / "whole, moved")
    moved = source / "new" / "whole, moved"
    (moved / "0005.bin").write_bytes(b"changed as well")
    (moved / "x" / "0004.txt").chmod(0o600)
    os.utime(moved / "letters" / "0001.bin", ns=(7, 1_111_111_111))
    (moved / "letters" / "0006.txt").rename(source / "moved out.txt")
    (source / "parts" / "0000.txt").rename(moved / "moved in.txt")
    (source / "parts" / "letters").rename(moved / "letters" / "inner")
    (moved / "added").write_text("added")
    (moved / "pictures" / "0002.txt").unlink()
    shutil.copytree(source / "parts", source / "copy")  # the same contents, other times
    shutil.copytree(source / "parts", source / "copy 2", symlinks=True)
    (source / "east").rename(source / "aside")
    (source / "west").rename(source / "east")
    (source / "aside").rename(source / "west")
    (source / "odd").rename(source / "odd, too")
    for number, name in enumerate(ODD_NAMES[::3]):
        (source / "odd, too" / os.fsdecode(name)).rename(source / "new" / f"was odd {number}")


class Moved:
    """A snapshot of a tree, and two after moves; the first is pruned."""

    def __init__(self, base: Path) -> None:
        self.program, self.source = Program(base / "program"), base / "source"
        self.cartridge = base / "c1"
        for folder in (self.source, self.cartridge):
            folder.mkdir(parents=True)
        before_moves(self.source)
        self.program.init("home", [self.source], [self.cartridge])
        self.program.edit_profile("home", {"retention": {"keep_last": 1}})
        self.program.backup("home")
        move(self.source)
        self.program.backup("home")
        (self.source / "one more").touch()
        self.snapshot = self.program.backup("home")["snapshot"]
        assert self.program.snapshots("home") == [self.snapshot]
        self.facts: dict[bytes, Facts] = snapshot_of(self.source)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Moved:
    """A history that no test may change."""
    return Moved(tmp_path_factory.mktemp("moved"))


@pytest.fixture(params=SHELLS)
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Stranger:
    return Stranger.with_tools(tmp_path / "stranger", busybox=request.param == "busybox")


def files_of_recipe(cartridge: Path, snapshot: str, folder: Path) -> dict[str, bytes]:
    recipe = cartridge / "catalog" / "recipes" / f"{snapshot}.tar.lz4"
    folder.mkdir()
    plain = subprocess.run(["lz4", "-dc", recipe], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=plain, check=True)
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def listed(files: dict[str, bytes], kind: str) -> set[bytes]:
    """Return the files that lists of a kind name; those of moved ones have two names for each."""
    dots, step = (1, 2) if kind == "moved" else (0, 1)
    lists = [t for n, t in files.items() if n.startswith(f"{kind}/") and n.count(".") == dots]
    return {name for text in lists for name in text.split(b"\0")[:-1][::step]}


def test_moved_folders_come_back_whatever_happened_in_them(
    moved: Moved, stranger: Stranger, tmp_path: Path
) -> None:
    stranger.restore(moved.cartridge, tmp_path / "out")
    assert_same_tree(moved.facts, tmp_path / "out" / "source", ["sparse"])


def test_the_bulk_goes_through_tar_itself_and_exceptions_do_not(
    moved: Moved, tmp_path: Path
) -> None:
    files = files_of_recipe(moved.cartridge, moved.snapshot, tmp_path / "recipe")
    bulk, one_by_one = listed(files, "moved"), listed(files, "redo")
    new = b"source/new/whole, moved/"
    for name in (b"pictures/0007.bin", b"x/0009.bin", b"letters/inner/0001.bin"):
        assert new + name in bulk
    for name in (b"x/0004.txt", b"letters/0001.bin", b"0000.txt", b"called alike"):
        assert new + name in one_by_one, "its metadata changed, or there is more to it"
    for name in (b"source/east/x/0004.txt", b"source/west/x/0004.txt", b"source/copy 2/0005.bin"):
        assert name in bulk
    assert b"source/moved out.txt" in one_by_one
    assert len(bulk) > 2 * len(one_by_one)


def test_a_pattern_brings_some_of_a_moved_folder(
    moved: Moved, stranger: Stranger, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stranger.restore(moved.cartridge, "--only", "source/east/*.txt", out)
    wanted = {p for p in moved.facts if p.startswith(b"east/") and p.endswith(b".txt")}
    found = {p for p, f in snapshot_of(out / "source").items() if f.kind == "file"}
    assert found == wanted
    assert_same_tree(
        {p: moved.facts[p] for p in wanted},
        {p: f for p, f in snapshot_of(out / "source").items() if p in wanted},
    )


def test_a_damaged_archive_costs_its_moved_files_and_names_them_as_they_are_now(
    moved: Moved, stranger: Stranger, tmp_path: Path
) -> None:
    cartridge = tmp_path / "c1"
    shutil.copytree(moved.cartridge, cartridge)
    flip_a_bit(Medium(path=cartridge).archives[0], random.Random(1))
    told = stranger.restore(cartridge, tmp_path / "out", code=5)
    assert "damaged: source/new/whole, moved/x/0009.bin" in told.stdout
    assert "source/whole/" not in told.stdout
    lost = {line.removeprefix("damaged: source/") for line in told.stdout.splitlines()}
    found = snapshot_of(tmp_path / "out" / "source")
    there = {p.decode("utf-8", "replace") for p, f in found.items() if f.kind == "file"}
    assert not lost & there


def test_it_stays_so_after_the_workspace_was_lost(moved: Moved, tmp_path: Path) -> None:
    """What is known of members is found again in the manifests of the cartridges."""
    program, source, cartridge = Program(tmp_path / "program"), tmp_path / "source", tmp_path / "c1"
    for folder in (source, cartridge):
        folder.mkdir()
    small_tree(source / "before", files=30)
    program.init("home", [source], [cartridge])
    program.backup("home")
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    program.run("recover", cartridge)
    (source / "before").rename(source / "after")
    snapshot = program.backup("home")["snapshot"]
    files = files_of_recipe(cartridge, snapshot, tmp_path / "recipe")
    assert len(listed(files, "moved")) == 30
    assert not listed(files, "redo")
    Stranger.with_tools(tmp_path / "stranger").restore(cartridge, tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_recipe_is_small_where_a_large_tree_moved(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    for number in range(4000):
        path = source / "photos" / f"year {number // 400}" / f"picture {number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 9)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.backup("home")
    (source / "photos").rename(source / "pictures")
    snapshot = program.backup("home")["snapshot"]
    recipe = cartridge / "catalog" / "recipes" / f"{snapshot}.tar.lz4"
    assert recipe.stat().st_size < BYTES * 4000
