"""Contents come whole and checked, or not at all; what is kept stays within its bounds."""

import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.catalog import retrieval
from tasks.catalog.cache import Cache
from tasks.catalog.retrieval import Part, Retrieval, parts_from
from tasks.catalog.store import Store
from tasks.formats.archive import ArchiveWriter
from tasks.media.cartridge import Cartridge
from tasks.model.errors import CartridgeWanted, FormatDamaged
from tests.helpers.catalogs import add_archives, archive_name, part

ARCHIVE = archive_name(0)
MIB = 1 << 20


class Shelf:
    """An archive of some contents on a cartridge that may be taken away; looks are counted."""

    def __init__(self, folder: Path, contents: list[bytes]) -> None:
        self.store = Store(str(folder / "catalog"))
        self.store.create()
        add_archives(self.store, 10, cartridges=1)
        self.place: Path | None = folder / "c1"
        self.file = self.place / ARCHIVE
        self.file.parent.mkdir(parents=True)
        self.looks = 0
        places = []
        with self.file.open("wb") as file:
            writer = ArchiveWriter(file)
            places += [writer.add(b"h" * 512, content, len(content)) for content in contents]
            writer.finish()
        self.parts = [
            Part(
                offset=0,
                length=len(content),
                archive=ARCHIVE,
                frame=writer.frames[number],
                skip=skip,
                sha256=hashlib.sha256(content).digest(),
            )
            for (number, skip), content in zip(places, contents, strict=True)
        ]

    def find(self, serial: int) -> Cartridge | None:
        assert serial == 1
        self.looks += 1
        return Cartridge.nameless(str(self.place)) if self.place else None


CONTENTS = [random.Random(n).randbytes(size) for n, size in enumerate((0, 1, 5000, 9 * MIB, 70))]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, CONTENTS)


def test_any_stretch_of_any_content_is_what_was_stored(shelf: Shelf) -> None:
    reading = Retrieval(shelf.store, shelf.find)
    for part_, content in zip(shelf.parts, CONTENTS, strict=True):
        for start in (0, 1, len(content) // 2, max(0, len(content) - 1), len(content)):
            for size in (0, 1, 4096, 200_000, len(content)):
                assert reading.read(part_, start, size) == content[start : start + size]
    assert shelf.looks == 1


def test_a_hole_is_zeros_and_needs_no_cartridge(shelf: Shelf) -> None:
    hole = Part(offset=7, length=1 << 60, archive=None, frame=0, skip=0, sha256=b"")
    assert Retrieval(shelf.store, shelf.find).read(hole, 1 << 59, 10) == bytes(10)
    assert shelf.looks == 0


def test_a_content_that_is_not_what_was_stored_is_refused(shelf: Shelf) -> None:
    for good in shelf.parts[1:]:
        for facts in (
            {"sha256": bytes(32)},
            {"length": good.length + 1},
            {"skip": good.skip + 1},
            {"skip": 1 << 40},
            {"frame": good.frame + 1},
            {"frame": 1 << 60},
            {"archive": archive_name(1)},
        ):
            bad = Part(**{n: getattr(good, n) for n in Part.__slots__} | facts)
            with pytest.raises(FormatDamaged):
                Retrieval(shelf.store, shelf.find).read(bad, 0, 1)


def test_a_manifest_made_to_attack_gives_no_parts() -> None:
    for odd in (
        part("../../etc/passwd"),
        part("/etc/passwd"),
        part(archive_name(0), -1),
        part(archive_name(0), 1 << 62),
        {**part(archive_name(0)), "skip": -1},
        {**part(archive_name(0)), "frame": -1},
    ):
        with pytest.raises(FormatDamaged):
            parts_from([odd], "m")


def test_a_cartridge_that_comes_back_is_found_on_the_next_read(shelf: Shelf) -> None:
    reading = Retrieval(shelf.store, shelf.find)
    place, shelf.place = shelf.place, None
    with pytest.raises(CartridgeWanted) as caught:
        reading.read(shelf.parts[2], 0, 10)
    assert caught.value.facts["label"] == "home 1"
    shelf.place = place
    assert reading.read(shelf.parts[2], 0, 10) == CONTENTS[2][:10]


def test_a_cartridge_that_is_elsewhere_now_is_looked_for(shelf: Shelf, tmp_path: Path) -> None:
    reading = Retrieval(shelf.store, shelf.find)
    assert reading.read(shelf.parts[2], 0, 10) == CONTENTS[2][:10]
    assert shelf.place is not None
    shelf.place = shelf.place.rename(tmp_path / "elsewhere")
    assert reading.read(shelf.parts[4], 0, 10) == CONTENTS[4][:10]


def test_a_wrong_volume_in_the_same_place_is_not_remembered(shelf: Shelf) -> None:
    right = shelf.file.read_bytes()
    with shelf.file.open("wb") as file:
        writer = ArchiveWriter(file)
        for content in CONTENTS:
            writer.add(b"h" * 512, bytes(len(content)), len(content))
        writer.finish()
    reading = Retrieval(shelf.store, shelf.find)
    with pytest.raises(FormatDamaged):
        reading.read(shelf.parts[2], 0, 10)
    shelf.file.write_bytes(right)
    assert reading.read(shelf.parts[2], 0, 10) == CONTENTS[2][:10]


def test_no_file_on_a_cartridge_stays_open(shelf: Shelf) -> None:
    reading = Retrieval(shelf.store, shelf.find)
    for each in shelf.parts:
        reading.read(each, 0, 1)
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [path for path in held if path.startswith(str(shelf.place))]


def test_large_parts_lie_in_files_that_go_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [random.Random(n).randbytes(9 * MIB) for n in range(4)]
    shelf = Shelf(tmp_path, contents)
    monkeypatch.setattr(retrieval, "_LARGE_PARTS", 20 * MIB)
    reading = Retrieval(shelf.store, shelf.find)
    before = len(os.listdir("/proc/self/fd"))
    for each, content in zip(shelf.parts * 2, contents * 2, strict=True):
        assert reading.read(each, 8 * MIB, 100) == content[8 * MIB :][:100]
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    del reading
    assert len(os.listdir("/proc/self/fd")) <= before


def test_many_readers_get_what_was_stored(shelf: Shelf) -> None:
    reading = Retrieval(shelf.store, shelf.find)

    def one(number: int) -> bool:
        chance = random.Random(number)
        for _ in range(30):
            which = chance.randrange(len(CONTENTS))
            start, size = chance.randrange(9 * MIB), chance.randrange(100_000)
            if reading.read(shelf.parts[which], start, size) != CONTENTS[which][start:][:size]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(16)))


def test_a_value_is_made_once_however_many_want_it() -> None:
    cache: Cache[bytes] = Cache(100, len)
    made = []

    def slow() -> bytes:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return b"value"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: cache.get("key", slow), range(8))) == {b"value"}
    assert len(made) == 1


def test_a_value_that_could_not_be_made_is_tried_again() -> None:
    cache: Cache[bytes] = Cache(100, len)

    def fails() -> bytes:
        raise ValueError

    with pytest.raises(ValueError):
        cache.get("key", fails)
    assert cache.get("key", lambda: b"value") == b"value"


def test_what_was_used_last_stays_within_the_bound() -> None:
    cache: Cache[bytes] = Cache(30, len)
    for key in "abc":
        cache.get(key, lambda: bytes(10))
    cache.get("a", lambda: pytest.fail("it is there"))
    cache.get("d", lambda: bytes(10))
    assert cache.weight == 30
    cache.get("a", lambda: pytest.fail("it is there"))
    assert cache.get("b", lambda: b"again") == b"again"
    cache.get("large", lambda: bytes(50))
    assert cache.weight == 50
    cache.clear()
    assert cache.weight == 0
