"""`cat` writes one file's content and nothing else, never a wrong byte, and says what it needs."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.farm import Farm
from tests.helpers.program import Medium, Program

MakeCartridges = Callable[[int], list[Path]]
Arg = str | bytes | Path

MIB = 1 << 20
# Kinds of content in the farm: empty, one byte, several frames, holes, odd names, twins.
OF_THE_FARM = (
    *(b"sizes/of 0", b"sizes/of 1", b"sizes/of 65536", b"sizes/random", b"sizes/text"),
    *(b"sparse/leading hole", b"sparse/all hole", b"sparse/many holes", b"sparse/uneven"),
    *(b"names/new\nline", b"names/-rf", b"names/latin1 caf\xe9", b"names/\xff\xfe\xfd"),
    *(b"twins/other/big copy", b"hard links/z after/twin of first", b"sparse/one hole, twin"),
    *(b"modes/file 0400", b"xattrs/file", b"hard links/a before/twin of empty"),
)


def content(program: Program, *args: Arg, code: int | None = 0) -> bytes:
    """Return what `cat` writes to standard output, to the byte."""
    return program.run("cat", *args, code=code).stdout.encode("utf-8", "surrogateescape")


class Large(NamedTuple):
    """A file in parts over several cartridges, of which one changed since the first snapshot."""

    program: Program
    media: list[Path]
    versions: dict[str, bytes]

    def needed(self, snapshot: str) -> set[int]:
        [match] = self.program.json("find", "home", "disk.img", "--snapshot", snapshot)["matches"]
        return set(match["cartridges"])

    def medium(self, serial: int) -> Path:
        return next(m for m in self.media if Medium(path=m).label["serial"] == serial)


@pytest.fixture
def large(program: Program, source: Path, cartridges: MakeCartridges) -> Large:
    chance = random.Random(1)
    first = chance.randbytes(12 * MIB)
    second = first[: 5 * MIB] + b"inserted" + first[5 * MIB :]
    media = cartridges(6)
    program.init("home", [source], media, capacity="8MB")
    versions = {}
    for data in (first, second):
        (source / "disk.img").write_bytes(data)
        versions[program.backup("home")["snapshot"]] = data
    return Large(program, media, versions)


# ---- the content, to the byte


@pytest.mark.parametrize("path", OF_THE_FARM, ids=lambda path: path.decode("utf-8", "replace"))
def test_any_file_comes_out_exactly(farm: Farm, path: bytes) -> None:
    with open(os.fsencode(farm.source) + b"/" + path, "rb") as file:
        expected = file.read()
    for prefix in (b"", b"farm/"):
        assert content(farm.program, "home", "--", prefix + path) == expected


def test_a_file_in_parts_is_put_together_from_several_cartridges(large: Large) -> None:
    for snapshot, data in large.versions.items():
        assert len(large.needed(snapshot)) > 1
        assert content(large.program, "home", "disk.img", "--snapshot", snapshot) == data


def test_snapshots_are_chosen_by_id_by_time_or_the_newest(large: Large) -> None:
    (first, old), (_, new) = large.versions.items()
    when = next(s["time"] for s in large.program.json("snapshots", "home")["snapshots"])
    assert content(large.program, "home", "disk.img") == new
    assert content(large.program, "home", "/source/disk.img/", "--at", when) == old
    args = ("home", "disk.img", "--at", when, "--snapshot", first)
    assert content(large.program, *args, code=2) == b""
    assert content(large.program, "home", "disk.img", "--at", "2001-01-01", code=1) == b""


def test_a_path_means_what_log_takes_it_for(
    program: Program, tmp_path: Path, cartridges: MakeCartridges
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        (folder / "b").mkdir(parents=True)
        (folder / "same").write_text(f"same in {folder.name}")
        (folder / "b" / "same").write_text(f"b/same in {folder.name}")
    program.init("home", folders, cartridges(1))
    program.backup("home")
    assert content(program, "home", "b/same") == b"same in b"  # a source goes first
    assert content(program, "home", "a/b/same") == b"b/same in a"
    error = program.run("cat", "home", "same", code=2)
    assert "a/same, b/same" in error.stderr
    assert error.stdout == ""


def test_whoever_stops_reading_is_no_trouble(large: Large) -> None:
    [*_, data] = large.versions.values()
    process = large.program.start("cat", "home", "disk.img", encoding=None, errors=None)
    assert process.stdout is not None
    assert process.stderr is not None
    began = process.stdout.read(1000)
    process.stdout.close()
    told = process.stderr.read()
    assert (process.wait(60), told) == (0, b"")
    assert began == data[:1000]


@pytest.mark.parametrize("size", [60 * MIB, 200 * MIB], ids=["in one piece", "in parts"])
def test_memory_does_not_grow_with_the_file(
    program: Program, source: Path, cartridges: MakeCartridges, size: int
) -> None:
    (source / "small").write_bytes(b"small")
    with (source / "large").open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(1 << 10) * 1024)
    program.init("home", [source], cartridges(1))
    program.backup("home")
    small, large = (program.measure("cat", "home", name) for name in ("small", "large"))
    assert (small.code, large.code) == (0, 0)
    assert large.memory < small.memory + 64 * MIB


def test_a_full_disk_is_told_in_a_sentence(farm: Farm) -> None:
    with open("/dev/full", "wb") as full:
        process = farm.program.start("cat", "home", "sizes/text", stdout=full)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.startswith("cartridge: Cannot write to standard output: No space left on device.")


# ---- what cannot be had


def test_only_the_cartridges_that_hold_the_file_are_needed(large: Large, tmp_path: Path) -> None:
    [*_, newest] = large.versions
    needed = large.needed(newest)
    for medium in large.media:
        if Medium(path=medium).label["serial"] not in needed:
            medium.rename(tmp_path / medium.name)
    assert content(large.program, "home", "disk.img") == large.versions[newest]
    [lost, *_] = sorted(needed)
    large.medium(lost).rename(tmp_path / "lost")
    done = large.program.run("cat", "home", "disk.img", code=4)
    assert done.stdout == ""
    assert f"cartridge home {lost}:" in done.stderr
    assert not any(f"home {serial}:" in done.stderr for serial in needed - {lost})


def test_no_wrong_byte_leaves(large: Large) -> None:
    """What has left before damage is met is right; the exit code and a sentence tell of the rest"""
    chance, (snapshot, data) = random.Random(3), list(large.versions.items())[-1]
    for _ in range(6):
        serial = chance.choice(sorted(large.needed(snapshot)))
        archive = chance.choice(Medium(path=large.medium(serial)).archives)
        sound = archive.read_bytes()
        bad = bytearray(sound)
        bad[chance.randrange(len(bad) // 8, len(bad))] ^= 1 << chance.randrange(8)
        archive.write_bytes(bad)
        done = large.program.run("cat", "home", "disk.img", code=None)
        found = done.stdout.encode("utf-8", "surrogateescape")
        assert data.startswith(found)
        assert (done.returncode == 0) == (found == data)
        if done.returncode:
            assert done.returncode == 5
            assert "disk.img" in done.stderr
            assert archive.name in done.stderr
        archive.write_bytes(sound)
    for medium in large.media:
        for archive in Medium(path=medium).archives:
            archive.unlink()
    assert content(large.program, "home", "disk.img", code=5) == b""


def test_what_has_no_content_is_an_error(farm: Farm, needs_root: None) -> None:
    for path, what in (
        ("sizes/empty", "a folder"),
        ("symlinks/to file", "a symbolic link"),
        ("specials/fifo", "a fifo"),
        ("specials/null", "a device"),
        ("hard links/a before/twin of symlink", "a symbolic link"),
    ):
        done = farm.program.run("cat", "home", path, code=2)
        assert done.stdout == ""
        assert f"'{path}' is {what}" in done.stderr
    assert "no such" in farm.program.run("cat", "home", "no such", code=1).stderr
    assert content(farm.program, "nobody", "a", code=2) == b""


def test_json_tells_errors_beside_the_content(farm: Farm) -> None:
    done = farm.program.run("cat", "home", "no such", "--json", code=1)
    told = json.loads(done.stderr)
    assert (done.stdout, told["error"], told["exit_code"]) == ("", "NothingSelected", 1)
    done = farm.program.run("cat", "home", "sizes/of 1", "--json")
    assert (len(done.stdout.encode("utf-8", "surrogateescape")), done.stderr) == (1, "")
