"""A sample has some of everything that the cartridges present hold, and keeps to its limits."""

from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog.sample import Limits, draw
from tasks.catalog.store import ARCHIVES, Store, write_rows
from tasks.formats.manifest import read_info
from tasks.model.words import ArchiveRow, SnapshotInfo
from tests.helpers.rows import Row, row, write

SNAPSHOT = "20260101T000000Z"
DIGEST = bytes(32)
Places = dict[str, int]


def archive(number: int, serial: int) -> ArchiveRow:
    snapshot = f"2025010{number % 5 + 1}T000000Z"
    return ArchiveRow(
        archive=f"archives/{snapshot}/{number:010}.tar.lz4",
        snapshot=snapshot,
        bytes=1,
        sha256="",
        content_bytes=1,
        members=1,
        contents=1,
        cartridge=serial,
        state="stored",
    )


def file(path: str, sizes: list[int], archives: list[ArchiveRow]) -> Row:
    parts = [
        {"archive": a.archive, "member": None, "frame": 0, "skip": 0, "length": n, "sha256": DIGEST}
        for n, a in zip(sizes, archives, strict=True)
    ]
    return row(path, size=sum(sizes), sha256=DIGEST, parts=parts)


def catalog(folder: Path, rows: list[Row], archives: list[ArchiveRow]) -> Store:
    store = Store(str(folder / "catalog"))
    store.create()
    info = SnapshotInfo(
        snapshot=SNAPSHOT,
        profile="home",
        time="",
        previous=None,
        complete=True,
        entries=len(rows),
        files=len(rows),
        bytes=0,
        roots=[],
        archives=[a.archive for a in archives],
        troubles=[],
    )
    write(store.manifest_path(SNAPSHOT), rows, info)
    assert read_info(store.manifest_path(SNAPSHOT), SnapshotInfo) == info
    write_rows(store.archives_path, ARCHIVES, archives)
    return store


FILES = st.lists(
    st.tuples(
        st.lists(st.integers(1, 10**9), min_size=0, max_size=3),
        st.lists(st.integers(0, 11), min_size=3, max_size=3),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(FILES, st.sets(st.integers(1, 4)), st.integers(1, 30), st.integers(0, 3 * 10**9))
def test_it_keeps_to_what_is_present_and_to_its_limits(
    tmp_path_factory: Any, files: Any, present: set[int], count: int, most: int
) -> None:
    archives = [archive(n, n % 4 + 1) for n in range(12)]
    rows, needs, sizes = [], {}, {}
    for number, (lengths, where) in enumerate(files):
        used = [archives[n] for n in where[: len(lengths)]]
        rows.append(file(f"{number:03}", lengths, used))
        needs[f"s/{number:03}".encode()] = {a.cartridge for a in used}
        sizes[f"s/{number:03}".encode()] = sum(lengths)
    store = catalog(tmp_path_factory.mktemp("sample"), rows, archives)
    limits = Limits(files=count, bytes=most)
    drawn = draw(store, present, limits, 1).get(SNAPSHOT, [])
    assert draw(store, present, limits, 1).get(SNAPSHOT, []) == drawn
    assert all(needs[name] <= present for name in drawn)
    assert sum(sizes[name] for name in drawn) <= most
    assert len(drawn) == len(set(drawn)) <= count + len(present) + count // 10 + 1
    fitting = [n for n in needs if needs[n] and needs[n] <= present and sizes[n] + 8192 <= most]
    assert drawn or not fitting
    assert any(needs[name] for name in drawn) or not drawn


def test_every_cartridge_gets_its_share_of_old_and_new_and_of_all_sizes(tmp_path: Path) -> None:
    archives = [archive(n, n % 4 + 1) for n in range(20)]
    rows = [
        file(f"{n:05}", [16 ** (n // 20 % 5) + n % 3], [archives[n * 7 % 20]]) for n in range(3000)
    ]
    where = {f"s/{n:05}".encode(): archives[n * 7 % 20] for n in range(3000)}
    store = catalog(tmp_path, rows, archives)
    drawn = draw(store, {1, 2, 3, 4}, Limits(files=100, bytes=10**9), 5)[SNAPSHOT]
    assert Counter(where[name].cartridge for name in drawn) == dict.fromkeys((1, 2, 3, 4), 25)
    kinds = {(where[n].cartridge, where[n].snapshot, int(n[2:]) // 20 % 5) for n in drawn}
    assert len(kinds) > 90, "of each size and of each age, on each cartridge"


def test_a_few_files_among_a_million_bytes_are_found(tmp_path: Path) -> None:
    """A cartridge with one file is not forgotten for another with many."""
    archives = [archive(1, 1), archive(2, 2)]
    rows = [file(f"{n:05}", [10], [archives[0]]) for n in range(500)]
    rows.append(file("rare", [10], [archives[1]]))
    store = catalog(tmp_path, rows, archives)
    for seed in range(10):
        assert b"s/rare" in draw(store, {1, 2}, Limits(files=2, bytes=10**6), seed)[SNAPSHOT]
