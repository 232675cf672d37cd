"""A cartridge made to attack: a sentence instead of a traceback, and no memory without bounds."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest

from tests.helpers import forked
from tests.helpers.compare import snapshot_of
from tests.helpers.damage import put_back
from tests.helpers.media import fill
from tests.helpers.program import Measured, Medium, Program
from tests.helpers.trees import small_tree

MB = 10**6
# The most that the program may take, whatever lies on a cartridge; and where it is stopped.
MEMORY, STOP = 900 * MB, 8000 * MB


class Home:
    """One snapshot on one cartridge."""

    def __init__(self, folder: Path) -> None:
        self.program, self.source = Program(folder / "program"), folder / "source"
        self.cartridge = folder / "c1"
        small_tree(self.source, files=10)
        fill(self.source, files=3, size=300_000)
        self.program.init("home", [self.source], [self.cartridge])
        self.program.backup("home")

    def ends_well(self, *args: str | Path, codes: tuple[int, ...], timeout: float = 60) -> Measured:
        """A command ends with a sentence and one of the exit codes, within the memory."""
        ended = forked.run(self.program, *args, limit=STOP, timeout=timeout)
        shown = ended.out + ended.err
        assert ended.code in codes, shown[-2000:]
        assert "Error:" not in shown, shown[-2000:]
        assert ended.memory < MEMORY, f"{ended.memory:,} bytes of memory"
        return ended


@pytest.fixture(scope="module")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def home(home_of_all: Home):  # type: ignore[no-untyped-def]
    with put_back(home_of_all.cartridge):
        yield home_of_all


# ---- lists


@pytest.mark.slow
def test_a_journal_of_a_gigabyte_in_one_line_is_damage(home: Home) -> None:
    with (home.cartridge / "journal.jsonl").open("wb") as file:
        file.truncate((1 << 30) - 1)
        file.seek(0, 2)
        file.write(b"\n")
    for what in ("home", home.cartridge):
        ended = home.ends_well("verify", "--json", what, codes=(5,))
        assert "journal.jsonl" in ended.out


def test_a_journal_larger_than_any_honest_one_is_damage(home: Home) -> None:
    with (home.cartridge / "journal.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    for what in ("home", home.cartridge):
        ended = home.ends_well("verify", "--json", what, codes=(1, 5))
        assert "journal.jsonl" in ended.out


SUMS_LINES = {
    "above": "../outside",
    "absolute": "/etc/passwd",
    "a link": "link",
    "a nul": "archives/\0",
    "a newline": "archives/a\\nb",
    "a folder": "archives",
    "itself": "SHA256SUMS",
    "a device": "/dev/zero",
}


@pytest.mark.parametrize("name", SUMS_LINES.values(), ids=SUMS_LINES)
def test_sums_of_files_outside_are_not_read(home: Home, name: str) -> None:
    """Nothing outside is hashed, so nothing outside can be found out; and no device blocks."""
    outside = home.cartridge.parent / "outside"
    outside.write_bytes(b"secret" * 10_000)
    (home.cartridge / "link").symlink_to(outside)
    with (home.cartridge / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    ended = home.ends_well("verify", "--json", home.cartridge, codes=(5,), timeout=10)
    read = sum(c["bytes"] for c in json.loads(ended.out)["cartridges"])
    files = (p for p in home.cartridge.rglob("*") if p.is_file() and not p.is_symlink())
    there = sum(p.stat().st_size for p in files)
    assert read <= there


JOURNAL_NAMES = {
    "above": "../outside",
    "absolute": "{outside}",
    "a nul": "archives/20260101T000000Z/\0",
    "a label": "CARTRIDGE.json",
}


@pytest.mark.parametrize("name", JOURNAL_NAMES.values(), ids=JOURNAL_NAMES)
def test_a_journal_that_names_files_outside_has_nothing_done_to_them(home: Home, name: str) -> None:
    outside = home.cartridge.parent / "outside"
    outside.write_bytes(b"precious")
    line = {"archive": name.format(outside=outside), "bytes": 8, "sha256": "0" * 64}
    with (home.cartridge / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({**line, "snapshot": "20260101T000000Z"}) + "\n")
    before = snapshot_of(home.cartridge)
    fill(home.source, files=1, size=1000, seed=len(name))
    for command in (("verify", home.cartridge), ("verify", "home"), ("backup", "home")):
        home.ends_well(command[0], "--json", *command[1:], codes=(1, 5))
        assert outside.read_bytes() == b"precious"
        assert snapshot_of(home.cartridge) == before


# ---- labels


@pytest.mark.parametrize(
    "facts",
    [
        {"serial": 10**30},
        {"serial": -1},
        {"capacity": 10**40},
        {"set": "x" * 500_000},
        {"set": "\x1b[2J\x07"},
        {"profile": "../../etc"},
        {"uuid": "'; --"},
        {"format_version": 99},
        {"format_version": "1"},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_a_label_of_nonsense_gets_a_sentence(home: Home, facts: dict[str, object]) -> None:
    label = Medium(path=home.cartridge).label | facts
    (home.cartridge / "CARTRIDGE.json").write_text(json.dumps(label))
    ended = home.ends_well("verify", home.cartridge, codes=(1, 5))
    assert not set("\x1b\x07") & set(ended.out + ended.err), "control characters were sent"
    for command in (("verify", "home"), ("cartridges", "home"), ("backup", "home", "--dry-run")):
        home.ends_well(*command, codes=(0, 1, 4, 5))


def test_a_label_of_deep_nesting_gets_a_sentence(home: Home) -> None:
    (home.cartridge / "CARTRIDGE.json").write_text("[" * 500_000 + "]" * 500_000)
    home.ends_well("verify", home.cartridge, codes=(1, 5))
    home.ends_well("verify", "home", codes=(1, 4, 5))


@pytest.mark.parametrize("what", ["CARTRIDGE.json", "journal.jsonl", "SHA256SUMS"])
def test_a_list_that_is_a_link_out_of_the_cartridge_is_not_followed(home: Home, what: str) -> None:
    """A link to a device would be read for ever, one to a secret would be shown."""
    (home.cartridge / what).unlink()
    (home.cartridge / what).symlink_to("/dev/zero")
    home.ends_well("verify", home.cartridge, codes=(1, 5))


# ---- archives


def bomb(size: int) -> bytes:
    """Return an LZ4 frame that expands to as many zeros, some 250 times what it takes."""
    return lz4.frame.compress(bytes(size), content_checksum=True, store_size=True)


def lying(size: int) -> bytes:
    """Return a frame whose header says that it holds so many bytes."""
    frame = bytearray(lz4.frame.compress(bytes(1000), content_checksum=True, store_size=True))
    frame[6:14] = struct.pack("<Q", size)
    return bytes(frame)


def nested(layers: int) -> bytes:
    """Return a frame of frames, each a bomb."""
    content = bomb(60 * MB)
    for _ in range(layers):
        content = lz4.frame.compress(content * 8, content_checksum=True, store_size=True)
    return content


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "a bomb": lambda: bomb(600 * MB),
    "many bombs": lambda: bomb(60 * MB) * 40,
    "a lie of 2^63": lambda: lying((1 << 63) - 1),
    "a lie of 2^64": lambda: lying((1 << 64) - 1),
    "nested": lambda: nested(2),
    "noise": lambda: bytes(range(256)) * 1000,
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=list(ARCHIVES))
def test_an_archive_that_expands_without_end_takes_no_memory(
    home: Home, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    for archive in Medium(path=home.cartridge).archives:
        archive.write_bytes(make())
    ended = home.ends_well("restore", "--json", "home", tmp_path / "out", codes=(5,))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert json.loads(ended.out)["damaged"]


def test_an_archive_that_is_a_link_or_a_pipe_is_not_read(home: Home, tmp_path: Path) -> None:
    """A pipe would be waited for as long as nobody writes."""
    archives = Medium(path=home.cartridge).archives
    for number, archive in enumerate(archives):
        archive.unlink()
        if number % 2:
            archive.symlink_to("/dev/zero")
        else:
            os.mkfifo(archive)
    forked.run(home.program, "restore", "--json", "home", tmp_path / "out", timeout=6)
    forked.run(home.program, "verify", "--json", "home", timeout=6)
