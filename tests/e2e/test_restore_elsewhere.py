"""Restoring to where owners, links, modes or names cannot be kept loses no content and says so."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeCartridges, MakeVolume
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import fill
from tests.helpers.program import NOBODY, Program

TWINS = {
    b"README.txt": b"loud",
    b"readme.txt": b"quiet",
    b"ReadMe.txt": b"proper",
    b"Docs/a": b"upper",
    b"docs/a": b"lower",
    b"docs/A": b"lower upper",
    "\N{LATIN SMALL LETTER SHARP S}".encode(): b"sharp s",
    b"ss": b"two of them",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode(): b"composed",
    "cafe\N{COMBINING ACUTE ACCENT}".encode(): b"decomposed",
}
ODD = {
    b"10:30": b"colon",
    b"what?": b"question",
    b"back\\slash": b"backslash",
    b"end.": b"dot",
    b"blank ": b"blank",
    b"\xff\xfe": b"no UTF-8",
    b"10_30": b"what 10:30 could become",
    b"star*/below": b"in a folder",
}
TREE = TWINS | ODD


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Program:
    """A backup of names that not every file system takes, and of all kinds of entries."""
    plant(source)
    program.init("home", [source], cartridges(1))
    program.backup("home")
    return program


def plant(source: Path) -> None:
    for name, data in TREE.items():
        path = os.path.join(os.fsencode(source), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(data)
        os.utime(path, ns=(1_234_567_890_123_456_789,) * 2)
    (source / "linked").write_bytes(b"one content")
    os.link(source / "linked", source / "twice")
    (source / "pointer").symlink_to("linked")
    os.mkfifo(source / "pipe")
    os.setxattr(source / "linked", "user.note", b"kept?")
    with (source / "holes.img").open("wb") as file:
        file.truncate(2_000_000)
        file.seek(1_000_000)
        file.write(b"an island")
    if os.geteuid() == 0:
        for name in ("README.txt", "10_30"):
            os.chown(source / name, 1234, 1234)
        (source / "ss").chmod(0o4755)


def contents(folder: Path) -> dict[bytes, bytes]:
    """Return the content of every file, by its path."""
    root = os.fsencode(folder)
    found = {}
    for at, _, names in os.walk(root):
        for name in names:
            path = os.path.join(at, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found[os.path.relpath(path, root)] = Path(os.fsdecode(path)).read_bytes()
    return found


# ---- a file system without owners, links and case


@pytest.mark.parametrize("workers", ["1", "4"])
def test_exfat_gets_every_content_and_what_it_cannot_keep_is_told_once(
    home: Program, source: Path, loop_volume: MakeVolume, workers: str
) -> None:
    out = loop_volume(40, kind="exfat")
    told = home.restore("home", out, "--workers", workers)
    assert told["damaged"] == told["missing"] == told["failed"] == []
    wanted = contents(source)
    found = contents(out / "source")
    assert sorted(found.values()) == sorted(wanted.values())
    renamed = {one["path"]: one["as"] for one in told["renamed"]}
    for key, data in wanted.items():
        path = b"source/" + key
        if path.decode("utf-8", "replace") not in renamed and b"docs/" not in path.lower():
            assert found.get(key) == data or b"*" in path, key
    assert {p for p in renamed if "readme" in p.lower()} == {
        "source/ReadMe.txt",
        "source/readme.txt",
    }
    for odd in ("source/10:30", "source/what?", "source/back\\slash", "source/star*"):
        assert "~" in renamed[odd]
    assert "source/10_30" not in renamed
    assert "source/docs" in renamed
    kinds = told["not_kept"]
    assert (kinds["links"], kinds["fifos"], kinds["hard links"]) == (1, 1, 1)
    assert told["not_kept_paths"]["links"] == ["source/pointer"]
    assert told["not_kept_paths"]["hard links"] == ["source/twice"]
    assert "source/linked" in told["not_kept_paths"]["attributes"]
    assert {"source/README.txt", "source/10_30"} <= set(told["not_kept_paths"]["owners"])
    assert kinds["modes"] >= len(wanted)
    assert kinds["fractions of seconds"] >= len(TREE)
    assert not [p for p in (out / "source").rglob("*") if p.name.startswith(".cartridge")]


def test_restored_again_to_exfat_nothing_is_read_renamed_or_made_twice(
    home: Program, loop_volume: MakeVolume
) -> None:
    out = loop_volume(40, kind="exfat")
    first = home.restore("home", out)
    before = contents(out)
    again = home.restore("home", out)
    assert contents(out) == before
    assert again["renamed"] == first["renamed"]
    assert (again["files"], again["cartridges"]) == (0, [])
    assert again["present"] == first["files"]
    assert again["not_kept"] == first["not_kept"]


def test_a_file_of_the_user_that_differs_in_case_is_never_overwritten(
    home: Program, source: Path, loop_volume: MakeVolume
) -> None:
    out = loop_volume(40, kind="exfat")
    (out / "source").mkdir()
    (out / "source" / "rEADME.TXT").write_bytes(b"mine")
    (out / "source" / "SS").write_bytes(b"mine too")
    told = home.restore("home", out)
    found = contents(out / "source")
    assert (found[b"rEADME.TXT"], found[b"SS"]) == (b"mine", b"mine too")
    renamed = {one["path"] for one in told["renamed"]}
    assert {"source/README.txt", "source/readme.txt", "source/ss"} <= renamed
    assert sorted(found.values()) == sorted([*contents(source).values(), b"mine", b"mine too"])
    assert contents(out / "source") == found


def test_what_a_name_without_links_stands_for_is_left_alone(
    home: Program, loop_volume: MakeVolume
) -> None:
    out = loop_volume(40, kind="exfat")
    (out / "source").mkdir()
    (out / "source" / "pointer").write_bytes(b"mine")
    home.restore("home", out)
    assert (out / "source" / "pointer").read_bytes() == b"mine"


def test_people_are_told_in_counts_and_get_the_names(
    home: Program, loop_volume: MakeVolume
) -> None:
    out = loop_volume(40, kind="exfat")
    shown = home.run("restore", "home", out).stdout.splitlines()
    [line] = [line for line in shown if "links of 1" in line]
    assert "owners of " in line
    assert "not made (links): source/pointer" in shown
    assert any(line.startswith("renamed: source/readme.txt -> source/readme~") for line in shown)


@pytest.mark.parametrize("moment", [1, 20, 60])
def test_killed_on_exfat_it_goes_on_and_keeps_twins_apart(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    loop_volume: MakeVolume,
    moment: int,
) -> None:
    chance = random.Random(1)
    for number in range(40):
        for name in (f"file {number}", f"FILE {number}", f"File {number}"):
            (source / name).write_bytes(chance.randbytes(20_000))
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"archive": {"archive_size": "1MB"}})
    program.backup("home")
    out = loop_volume(40, kind="exfat")
    process = program.start("restore", "--json", "home", out, "--workers", "2")
    target = out / "source"
    assert processes.wait_for(lambda: target.is_dir() and len(os.listdir(target)) > moment, process)
    os.killpg(process.pid, signal.SIGKILL)
    processes.end_of(process)
    told = program.restore("home", out)
    assert told["present"] + told["files"] == 120
    found = contents(target)
    assert len(found) == 120
    assert sorted(found.values()) == sorted(contents(source).values())
    names = {one["path"]: one["as"] for one in told["renamed"]}
    for key, data in contents(source).items():
        path = f"source/{key.decode()}"
        assert (out / names.get(path, path)).read_bytes() == data
    assert program.restore("home", out)["renamed"] == told["renamed"]


# ---- a user who is not root


def test_a_user_gets_all_but_owners_and_is_told_how_many(commons: Path, needs_root: None) -> None:
    source, cartridge = commons / "source", commons / "c1"
    source.mkdir()
    cartridge.mkdir()
    plant(source)
    os.mknod(source / "null", 0o600 | 0o020000, os.makedev(1, 3))
    program = Program(commons / "program")
    program.init("home", [source], [cartridge])
    program.backup("home")
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", program.directory], check=True)
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", cartridge], check=True)
    out = commons / "out"
    told = program.as_user().restore("home", out)
    expected = snapshot_of(source)
    assert told["not_kept"]["owners"] == len(expected) - 2  # a device, a second name
    assert told["not_kept_paths"]["devices"] == ["source/null"]
    assert told["not_kept_paths"]["modes"] == ["source/ss"]
    assert told["failed"] == told["renamed"] == []
    del expected[b"null"]
    found = snapshot_of(out / "source")
    assert found[b"ss"].mode == 0o755, "it would give the rights of who restored"
    assert {facts.uid for facts in found.values()} == {NOBODY}
    assert_same_tree(
        {path: facts for path, facts in expected.items() if path != b"ss"},
        {path: facts for path, facts in found.items() if path != b"ss"},
        ignore=["owner"],
    )


# ---- entries that cannot be restored


def test_a_folder_of_the_user_in_the_way_costs_that_file_alone(
    home: Program, source: Path, tmp_path: Path
) -> None:
    way = tmp_path / "out" / "source" / "10_30"
    way.mkdir(parents=True)
    (way / "mine").write_bytes(b"mine")
    error = home.restore("home", tmp_path / "out", code=1)
    assert error["error"] == "DestinationUnusable"
    assert [one["path"] for one in error["failed"]] == ["source/10_30"]
    assert "10_30" in error["message"]
    assert (way / "mine").read_bytes() == b"mine"
    wanted = contents(source)
    del wanted[b"10_30"]
    assert contents(tmp_path / "out" / "source") == wanted | {b"10_30/mine": b"mine"}


def test_two_restores_into_one_folder_do_not_meet(
    home: Program, source: Path, tmp_path: Path
) -> None:
    fill(source / "more", files=40, size=300_000)
    home.backup("home")
    process = home.start("restore", "--json", "home", tmp_path / "out")
    target = tmp_path / "out" / "source" / "more"
    assert processes.wait_for(lambda: target.is_dir() and len(os.listdir(target)) > 2, process)
    processes.stop_all(process)
    try:
        error = home.restore("home", tmp_path / "out", code=1)
        assert "another restore" in error["message"]
    finally:
        processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    assert_same_tree(source, tmp_path / "out" / "source")
