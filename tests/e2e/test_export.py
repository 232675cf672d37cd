"""`export` writes a snapshot as one tar that any tar reads, whole and true, or says what is not."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of, without
from tests.helpers.damage import put_back
from tests.helpers.farm import Farm
from tests.helpers.faults import Fault, Faults
from tests.helpers.media import fill
from tests.helpers.program import NOBODY, Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]

MIB = 1 << 20
QUIET = ("--warning=no-timestamp", "--warning=no-unknown-keyword")
GNU = ("tar", *QUIET, "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner")
BSD = ("bsdtar", "-x", "-p", "--numeric-owner")


def export(program: Program, file: Path, *args: str, code: int = 0) -> dict[str, Any]:
    return program.json("export", "home", *args, "-o", str(file), code=code)


def extract(file: Path, out: Path, command: tuple[str, ...] = GNU) -> Path:
    """Extract with a real tar, which has to find nothing to complain of."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    out.mkdir()
    done = subprocess.run(
        [*command, "-f", file, "-C", out], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


def known_to_bsdtar(tree: Mapping[bytes, Facts]) -> dict[bytes, Facts]:
    return {
        path: dataclasses.replace(
            facts,
            mtime_ns=0 if path.startswith(b"times/") else facts.mtime_ns,
            xattrs=tuple(pair for pair in facts.xattrs if pair[0].startswith("user.t")),
        )
        for path, facts in tree.items()
    }


@pytest.fixture(scope="module")
def farm_tar(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole farm as a tar; no test may change it."""
    file = tmp_path_factory.mktemp("export") / "farm.tar"
    found = export(farm.program, file)
    assert set(found) == {
        *("snapshot", "file", "entries", "files", "bytes", "cartridges", "damaged", "seconds"),
    }
    assert found["snapshot"] == farm.outcome["snapshot"]
    assert found["damaged"] == []
    assert found["entries"] == farm.outcome["entries"] + 1  # the source itself
    assert len(found["cartridges"]) > 1
    return file


# ---- what a tar of a snapshot is


def test_gnu_tar_brings_everything_odd_back(farm: Farm, farm_tar: Path, tmp_path: Path) -> None:
    out = extract(farm_tar, tmp_path / "out")
    assert_same_tree(without(farm.facts, "socket"), out / "farm")


def test_bsdtar_brings_everything_odd_back(farm: Farm, farm_tar: Path, tmp_path: Path) -> None:
    """But for what it reads wrong in any tar: access lists, times before 1970, `=` in attributes"""
    found = snapshot_of(extract(farm_tar, tmp_path / "out", BSD) / "farm")
    expected = without(farm.facts, "socket")
    assert_same_tree(known_to_bsdtar(expected), known_to_bsdtar(found))


def test_tar_compares_the_archive_with_the_source(farm: Farm, farm_tar: Path) -> None:
    """GNU tar reads every member back and holds it against the files that were backed up."""
    command = [
        "tar",
        *QUIET,
        "--compare",
        "--numeric-owner",
        "-f",
        farm_tar,
        "-C",
        farm.source.parent,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_user_without_rights_can_extract_it(
    as_nobody: Program, commons: Path, needs_root: None
) -> None:
    """Folders that nobody may write into, and those that inherit, come behind what lies in them."""
    source, cartridge = commons / "source", commons / "c1"
    (source / "read only" / "below").mkdir(parents=True)
    (source / "read only" / "below" / "file").write_text("below")
    (source / "read only" / "file").write_text("file")
    cartridge.mkdir()
    (source / "read only" / "link").symlink_to("/elsewhere")
    (source / "read only" / "below" / "link").symlink_to("../../elsewhere")
    for path in (source / "read only" / "below", source / "read only"):
        path.chmod(0o555)
        os.utime(path, ns=(5, 5))
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", source, cartridge], check=True)
    as_nobody.init("home", [source], [cartridge])
    as_nobody.backup("home")
    export(as_nobody, commons / "all.tar")
    for extracting in (("tar", "--warning=no-timestamp", "-xp"), ("bsdtar", "-xp")):
        out = commons / f"out of {extracting[0]}"
        out.mkdir()
        os.chown(out, NOBODY, NOBODY)
        command = [*as_nobody.prefix, *extracting, "-f", commons / "all.tar", "-C", out]
        assert subprocess.run(command, check=True, capture_output=True).stderr == b""
        assert_same_tree(source, out / "source")


def test_contents_follow_the_archives(farm: Farm, farm_tar: Path) -> None:
    """Each archive is read from its begin to its end."""
    with tarfile.open(farm_tar, encoding="utf-8", errors="surrogateescape") as tar:
        names = [os.fsencode(member.name) for member in tar]
    assert len(names) == len(set(names))
    places = {
        b"farm/" + (row["raw_path"] or row["path"].encode()): parts[0]
        for row in farm.rows
        if len(parts := [p for p in row["parts"] or () if p["archive"]]) == 1
    }
    order = [
        (places[name]["archive"], places[name]["frame"], places[name]["skip"])
        for name in names
        if name in places
    ]
    assert len(order) > 100
    assert order == sorted(order)


def test_patterns_choose_what_is_in_it(farm: Farm, tmp_path: Path) -> None:
    """As with restore: folders on the way are there, and a link without its first name is a file"""
    patterns = ("sizes/text", "hard links/z after/twin of first", "modes/")
    export(farm.program, tmp_path / "some.tar", *patterns)
    out = extract(tmp_path / "some.tar", tmp_path / "tar")
    farm.program.restore("home", tmp_path / "restored", *patterns)
    assert_same_tree(tmp_path / "restored", out, ignore=["mtime_ns"])
    assert_same_tree(tmp_path / "restored" / "farm", out / "farm")
    assert (out / "farm" / "hard links" / "z after" / "twin of first").is_file()
    error = export(farm.program, tmp_path / "none.tar", "no such", code=1)
    assert error["error"] == "NothingSelected"
    assert not (tmp_path / "none.tar").exists()


def test_it_goes_through_a_pipe(farm: Farm, farm_tar: Path) -> None:
    process = farm.program.start("export", "home", "-o", "-", "--json", encoding=None, errors=None)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    told = json.loads(err)
    assert (told["file"], told["damaged"]) == ("-", [])
    assert out == farm_tar.read_bytes()  # type: ignore[comparison-overlap]


def test_a_pipe_that_closes_is_no_success(farm: Farm) -> None:
    process = farm.program.start("export", "home", "-o", "-", encoding=None, errors=None)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 1)


def test_older_snapshots_and_files_in_parts(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(10 * MIB)
    small_tree(source)
    trees: dict[str, dict[bytes, Facts]] = {}
    program.init("home", [source], cartridges(6), capacity="8MB")
    for image in (data, data[: 3 * MIB] + b"inserted" + data[3 * MIB :]):
        (source / "disk.img").write_bytes(image)
        with (source / "holes.img").open("wb") as file:  # in parts, with holes between them
            file.truncate(40 * MIB)
            for place in (0, 17 * MIB, 30 * MIB):
                file.seek(place)
                file.write(image[place // 4 : place // 4 + MIB])
        trees[program.backup("home")["snapshot"]] = snapshot_of(source)
        (source / "later").write_text("later")
    for number, (snapshot, tree) in enumerate(trees.items()):
        file = tmp_path / f"{number}.tar"
        assert export(program, file, "--snapshot", snapshot)["snapshot"] == snapshot
        assert file.stat().st_size < 20 * MIB  # holes take no room
        for command in (GNU, BSD):
            out = extract(file, tmp_path / f"{number} {command[0]}", command)
            assert_same_tree(tree, out / "source")
    first = next(s for s in program.json("snapshots", "home")["snapshots"])
    assert export(program, tmp_path / "at.tar", "--at", first["time"])["snapshot"] == first["id"]


@pytest.mark.night
def test_memory_does_not_grow_with_the_content(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    (source / "small").write_bytes(b"small")
    fill(source / "many", files=4, size=100_000)
    for name, size in (("whole", 50 * MIB), ("in parts", 150 * MIB)):
        with (source / name).open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(1 << 10) * 1024)
    program.init("home", [source], cartridges(1))
    program.backup("home")
    few = program.measure("export", "home", "small", "-o", str(tmp_path / "few.tar"))
    for target in (str(tmp_path / "all.tar"), "-"):
        everything = program.measure("export", "home", "-o", target)
        assert (few.code, everything.code) == (0, 0)
        assert everything.memory < few.memory + (400 if target == "-" else 64) * MIB
    assert_same_tree(source, extract(tmp_path / "all.tar", tmp_path / "out") / "source")


# ---- what cannot be had


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> tuple[Program, list[Path]]:
    """Small and large files over several cartridges, with a twin of each."""
    small_tree(source, files=20)
    fill(source / "big", files=10, size=400_000)
    (source / "disk.img").write_bytes(random.Random(2).randbytes(6 * MIB))
    (source / "a twin").hardlink_to(source / "disk.img")
    (source / "z twin").hardlink_to(source / "big" / "000.bin")
    media = cartridges(6)
    program.init("home", [source], media, capacity="4MB")
    program.backup("home")
    return program, media


Home = tuple[Program, list[Path]]


def test_all_cartridges_that_are_missing_are_named_before_anything_is_written(
    home: Home, tmp_path: Path
) -> None:
    program, media = home
    needed = {c["serial"] for c in program.json("restore", "home", "x", "--plan")["cartridges"]}
    assert len(needed) > 2
    away = [m for m in media if Medium(path=m).label["serial"] in sorted(needed)[:2]]
    for medium in away:
        medium.rename(tmp_path / medium.name)
    error = export(program, tmp_path / "all.tar", code=4)
    assert error["error"] == "CartridgeWanted"
    assert all(f"home {serial}" in error["message"] for serial in sorted(needed)[:2])
    assert f"home {max(needed)}" not in error["message"]
    assert not list(tmp_path.glob("*.tar*"))
    assert program.run("export", "home", "-o", "-", code=4).stdout == ""


@pytest.mark.parametrize("target", ["a file", "a pipe"])
def test_damaged_files_are_listed_and_not_in_the_tar(
    home: Home, source: Path, tmp_path: Path, target: str
) -> None:
    program, media = home
    chance, expected = random.Random(target), snapshot_of(source)
    told: list[str] = []
    for number in range(4):
        file = tmp_path / f"{number}.tar"
        with put_back(*media):
            archives = sorted(a for m in media for a in Medium(path=m).archives)
            archive = archives[len(archives) * number // 4]
            bad = bytearray(archive.read_bytes())
            place = chance.randrange(len(bad) * 3 // 4)
            bad[place : place + 1000] = bytes(1000)
            archive.write_bytes(bad)
            if target == "a file":
                found = export(program, file, code=5)
            else:
                with file.open("wb") as out:
                    process = program.start("export", "home", "-o", "-", "--json", stdout=out)
                    _, err = process.communicate(timeout=60)
                found = json.loads(err)
            restored = program.restore("home", tmp_path / f"{number} restored", code=5)
        assert (found["error"], found["exit_code"]) == ("DamageFound", 5)
        assert found["damaged"] == sorted(restored["damaged"])
        assert all(path in found["message"] for path in found["damaged"][:10])
        lost = {path.removeprefix("source/").encode() for path in found["damaged"]}
        assert lost < set(expected)
        left = {path: facts for path, facts in expected.items() if path not in lost}
        out_tree = snapshot_of(extract(file, tmp_path / f"{number} out") / "source")
        assert_same_tree(left, out_tree)
        told += found["damaged"]
    assert {"source/disk.img", "source/a twin"} <= set(told)


def test_an_archive_that_is_gone_takes_only_its_own_files(home: Home, tmp_path: Path) -> None:
    program, media = home
    [archive, *_] = [a for m in media for a in Medium(path=m).archives]
    archive.unlink()
    found = export(program, tmp_path / "some.tar", code=5)
    assert 0 < len(found["damaged"]) < found["entries"]


# ---- the file that it is written to


def test_a_file_that_is_there_is_never_overwritten(home: Home, tmp_path: Path) -> None:
    program, _ = home
    there = tmp_path / "there.tar"
    there.write_text("precious")
    (tmp_path / "dangling.tar").symlink_to("nowhere")
    for file in (there, tmp_path / "dangling.tar", tmp_path):
        error = export(program, file, code=2)
        assert error["error"] == "UsageError"
        assert str(file) in error["message"]
    assert there.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_what_was_killed_leaves_no_tar_and_can_be_run_again(
    home: Home, source: Path, tmp_path: Path
) -> None:
    program, _ = home
    folder = tmp_path / "tars"
    folder.mkdir()
    file, draft = folder / "all.tar", folder / "all.tar.tmp"
    fault = Fault(roots=(folder,), error=signal.SIGSTOP, kinds=("write",), at=2, whom="parent")
    faults = Faults(program, fault)
    process = faults.program.start("export", "home", "-o", file)
    assert processes.wait_for(lambda: faults.hits == 1, process)
    error = export(program, file, code=2)
    assert "Another export" in error["message"]
    processes.kill_all(process)
    assert not file.exists()
    export(program, file)
    assert not draft.exists()
    assert_same_tree(source, extract(file, tmp_path / "out") / "source")


def test_an_interrupt_leaves_nothing(home: Home, tmp_path: Path) -> None:
    program, _ = home
    out = tmp_path / "out"
    out.mkdir()
    fault = Fault(roots=(out,), error=signal.SIGTERM, kinds=("write",), at=2, whom="parent")
    faults = Faults(program, fault)
    done = faults.program.run("export", "home", "-o", str(out / "all.tar"), code=130)
    assert faults.hits == 1, done.stderr
    assert not list(out.iterdir())


def test_a_full_disk_leaves_nothing_and_is_told(
    home: Home, loop_volume: Callable[..., Path]
) -> None:
    program, _ = home
    place = loop_volume(8)
    error = export(program, place / "all.tar", code=1)
    assert error["error"] == "DestinationUnusable"
    assert "No space left" in error["message"]
    assert not list(place.glob("*.tar*"))
    error = export(program, place / "no" / "such.tar", code=1)
    assert "No such file" in error["message"]


def test_people_are_told_in_a_sentence(home: Home, tmp_path: Path) -> None:
    program, _ = home
    told = program.run("export", "home", "-o", str(tmp_path / "all.tar")).stdout
    assert told.count("\n") == 1
    assert "every checksum is right" in told
    digest = hashlib.sha256((tmp_path / "all.tar").read_bytes()).hexdigest()
    export(program, tmp_path / "again.tar")
    assert hashlib.sha256((tmp_path / "again.tar").read_bytes()).hexdigest() == digest
