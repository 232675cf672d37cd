"""A wrong cartridge is refused by name and stays as it was, byte for byte.

What `test_spanning.py` proves of clones, older copies, lists that lost a line, read-only volumes,
other sets and profiles, and of folders inside a source is not proved again here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.media.cartridge import Cartridge
from tasks.model.errors import CartridgeWanted
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]
LABEL = "CARTRIDGE.json"


class Shelf:
    """A profile with one snapshot on its cartridge, and something new to back up."""

    def __init__(self, program: Program, source: Path, cartridge: Path) -> None:
        self.program, self.source, self.cartridge = program, source, cartridge
        small_tree(source, files=8)
        program.init("home", [source], [cartridge])
        program.backup("home")
        fill(source, files=2, size=100_000, seed=2)

    def relabel(self, **facts: Any) -> None:
        """Write other facts into the label."""
        label = Medium(path=self.cartridge).label | facts
        (self.cartridge / LABEL).write_text(json.dumps(label), "utf-8")

    def refuses(self, *codes: int) -> dict[str, Any]:
        """A backup does not use the cartridge, and leaves it as it is; return what it says."""
        before = self.there()
        told = self.program.backup("home", code=None)
        assert self.there() == before, told
        assert told["exit_code"] in codes, told
        return told

    def there(self) -> dict[bytes, Facts]:
        return snapshot_of(self.cartridge.parent)


@pytest.fixture
def shelf(program: Program, source: Path, cartridges: MakeCartridges) -> Shelf:
    return Shelf(program, source, cartridges(1)[0])


@pytest.mark.parametrize("facts", [{"set": "office"}, {"profile": "office"}], ids=str)
def test_a_cartridge_that_went_to_others_is_refused(shelf: Shelf, facts: dict[str, str]) -> None:
    """It has the UUID that is looked for, but says that it is another's."""
    shelf.relabel(**facts)
    shelf.refuses(1, 4)


def test_another_cartridge_under_the_same_name_is_refused(
    shelf: Shelf, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """The label says `home 1`, as the one on the sticker; its UUID says that it is another."""
    other = Program(tmp_path / "other")
    [impostor] = cartridges(1)
    other.init("home", [shelf.source], [impostor])
    aside = tmp_path / "aside"
    shelf.cartridge.rename(aside)
    impostor.rename(shelf.cartridge)
    told = shelf.refuses(1, 4)
    assert "home 1" in told["message"]
    shutil.rmtree(shelf.cartridge)
    aside.rename(shelf.cartridge)
    assert shelf.program.backup("home")["status"] == "complete"


def test_a_clone_of_a_cartridge_is_never_written_by_a_prune(shelf: Shelf, tmp_path: Path) -> None:
    program = shelf.program
    program.backup("home")
    clone = shelf.cartridge.with_name("clone")
    shutil.copytree(shelf.cartridge, clone)
    program.edit_profile(
        "home",
        {
            "cartridges": {"search": [str(shelf.cartridge), str(clone)]},
            "retention": {"keep_last": 1},
        },
    )
    before = shelf.there()
    program.run("prune", "home", code=None)
    assert shelf.there() == before


def test_a_cartridge_that_was_rolled_back_is_refused_until_the_right_one_is_there(
    shelf: Shelf, tmp_path: Path
) -> None:
    """Its whole folder is put back as it was two runs ago, and all its lists agree."""
    program, cartridge = shelf.program, shelf.cartridge
    shutil.copytree(cartridge, tmp_path / "earlier")
    program.backup("home")
    fill(shelf.source, files=2, size=100_000, seed=3)
    program.backup("home")
    shutil.move(cartridge, tmp_path / "right")
    shutil.copytree(tmp_path / "earlier", cartridge)
    fill(shelf.source, files=2, size=100_000, seed=4)
    told = shelf.refuses(1)
    assert (told["error"], "home 1" in told["message"]) == ("WrongCartridge", True)
    shutil.rmtree(cartridge)
    shutil.move(tmp_path / "right", cartridge)
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param("an archive is gone"),
        pytest.param("an archive is shorter"),
        "a stray archive",
    ],
)
def test_a_cartridge_that_was_altered_since_is_refused(shelf: Shelf, deed: str) -> None:
    [archive] = Medium(path=shelf.cartridge).archives
    if deed == "an archive is gone":
        archive.unlink()
    elif deed == "an archive is shorter":
        os.truncate(archive, 1000)
    else:
        shutil.copy(archive, archive.with_name("0009000000.tar.lz4"))
    told = shelf.refuses(1)
    assert (told["error"], "home 1" in told["message"]) == ("WrongCartridge", True)


def test_a_mount_point_without_its_volume_is_never_written(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path
) -> None:
    """Not even where empty volumes may be labelled: the root disk is not filled."""
    volume = loop_volume(20)
    shelf = Shelf(program, source, volume)
    program.edit_profile(
        "home", {"cartridges": {"auto_label": True, "search": [str(tmp_path / "volume-*[0-9]")]}}
    )
    subprocess.run(["umount", volume], check=True)
    assert os.listdir(volume) == []
    told = program.backup("home", code=4)
    assert told["status"] == "waiting"
    assert "home 1" in told["message"]
    assert os.listdir(volume) == [], "the disk below the mount point was written"
    subprocess.run(["mount", "-o", "loop", tmp_path / "volume-1.img", volume], check=True)
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


def test_a_volume_that_is_taken_away_while_it_is_written_leaves_the_root_disk_alone(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path
) -> None:
    from tests.helpers import processes

    fill(source, files=30, size=250_000)
    volume = loop_volume(30)
    program.init("home", [source], [volume])
    process = program.start("backup", "--json", "home")
    placed = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(placed.glob("*/placed.jsonl")), process)
    processes.stop_all(process)
    subprocess.run(["umount", "-l", volume], check=True)
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code in (1, 4), out + err
    assert os.listdir(volume) == [], "the disk below the mount point was written"
    subprocess.run(["mount", "-o", "loop", tmp_path / "volume-1.img", volume], check=True)
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_the_source_itself_is_no_cartridge(program: Program, source: Path) -> None:
    small_tree(source, files=5)
    before = snapshot_of(source)
    program.run("init", "home", "--source", source, "--cartridge", source, code=None)
    assert snapshot_of(source) == before
    if not program.profile("home").exists():
        program.init("home", [source], [])
    program.edit_profile("home", {"cartridges": {"search": [str(source)], "auto_label": True}})
    program.backup("home", code=None)
    assert snapshot_of(source) == before


def test_a_source_that_holds_a_cartridge_by_another_name_is_refused(
    shelf: Shelf, tmp_path: Path
) -> None:
    """A link to a folder inside the source is inside the source."""
    inside = shelf.source / "inside"
    shutil.move(shelf.cartridge, inside)
    shelf.cartridge.symlink_to(inside)
    before = snapshot_of(inside)
    told = shelf.program.backup("home", code=1)
    assert told["error"] == "WrongCartridge"
    assert snapshot_of(inside) == before


def test_a_cartridge_that_may_not_be_written_by_its_user_is_refused(
    as_nobody: Program, commons: Path
) -> None:
    source, cartridge = commons / "source", commons / "media" / "c1"
    small_tree(source, files=5)
    cartridge.mkdir(parents=True)
    subprocess.run(["chmod", "-R", "a+rwX", commons], check=True)
    as_nobody.init("home", [source], [cartridge])
    as_nobody.backup("home")
    fill(source, files=1, size=1000)
    subprocess.run(["chown", "-R", "0:0", cartridge], check=True)
    subprocess.run(["chmod", "-R", "a-w", cartridge], check=True)
    before = snapshot_of(cartridge)
    told = as_nobody.backup("home", code=1)
    assert told["error"] == "WrongCartridge"
    assert snapshot_of(cartridge) == before


def test_a_disk_that_is_pulled_before_it_is_written_leaves_nothing_in_its_mount_point(
    shelf: Shelf,
) -> None:
    """It was looked at, and is gone when it is opened to be written."""
    cartridge = Cartridge.open(str(shelf.cartridge))
    shelf.cartridge.rename(shelf.cartridge.with_name("pulled"))
    shelf.cartridge.mkdir()
    with pytest.raises(CartridgeWanted, match="home 1"), cartridge.writing():
        raise AssertionError("it may be written")
    assert os.listdir(shelf.cartridge) == []


def test_what_another_workspace_needs_is_not_removed_though_it_stored_nothing(
    shelf: Shelf, tmp_path: Path
) -> None:
    """Its snapshot of changed metadata refers to archives that this one would prune."""
    program, other = shelf.program, tmp_path / "other"
    for new in shelf.source.glob("*.bin"):
        new.unlink()
    program.run("recover", shelf.cartridge, "--workspace", other)
    for file in shelf.source.iterdir():
        file.chmod(0o600)
    expected = snapshot_of(shelf.source)
    theirs = program.json("backup", "home", "--workspace", other)
    assert (theirs["status"], theirs["archives"]) == ("complete", 0)
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    fill(shelf.source, files=2, size=100_000, seed=2)
    told = shelf.refuses(1)
    assert theirs["snapshot"] in told["message"]
    program.run("prune", "home", code=None)
    out = tmp_path / "out"
    program.run("restore", "home", out, "--workspace", other)
    assert_same_tree(expected, out / "source")


def test_after_a_recover_a_manifest_that_nobody_can_read_is_no_hindrance(
    shelf: Shelf, tmp_path: Path
) -> None:
    """The catalog knows then that there was such a snapshot, and frees nothing of it."""
    planted = shelf.cartridge / "catalog" / "manifests" / "20200101T000000Z.parquet"
    planted.write_bytes(b"no manifest")
    assert "20200101T000000Z" in shelf.refuses(1)["message"]
    other = tmp_path / "other"
    shelf.program.run("recover", shelf.cartridge, "--workspace", other, code=5)
    told = shelf.program.json("backup", "home", "--workspace", other)
    assert told["status"] == "complete"
    assert planted.exists()
