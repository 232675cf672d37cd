"""Lookups say what plain Python says row by row, however the columns are gone through."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.catalog.queries import entries, times
from tasks.catalog.rowgroups import ahead, row_groups, rows_at
from tasks.catalog.search import Match, Wanted, find
from tasks.formats.manifest import keys
from tasks.model.errors import FormatDamaged
from tasks.model.units import iso_ns
from tests.helpers.catalogs import add_archives, add_snapshot, archive_name, part, regroup
from tests.helpers.manifests import DAYS, NAMES, TWINS, manifests, new_store, raw_name
from tests.helpers.masks import fits, masks
from tests.helpers.rows import WHEN, Row, key, raw_path, row

SECOND = 1_000_000_000


def shown(of: Row) -> str:
    return f"{of['source']}/{of['path']}"


def told(pages: Iterable[list[Match]]) -> list[tuple[str, str]]:
    """What was found, as snapshot and path."""
    return [(m.snapshot, f"{m.entry.source}/{m.entry.path}") for page in pages for m in page]


@given(manifests(), masks())
@settings(max_examples=60)
def test_find_takes_the_rows_that_a_mask_fits(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], masks: list[str]
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    add_snapshot(store, DAYS[0], rows)
    regroup(store.manifest_path(DAYS[0]), 4)
    add_snapshot(store, DAYS[1], rows[::2])
    found = told(find(store, DAYS[:2], Wanted(masks=(*masks, "a*"))))
    asked = [(DAYS[0], r) for r in rows] + [(DAYS[1], r) for r in rows[::2]]
    assert found == [(day, shown(r)) for day, r in asked if fits(shown(r), [*masks, "a*"])]


limits = st.none() | st.integers(-4, 6)


@given(manifests(), limits, limits, limits, limits)
@settings(max_examples=60)
def test_limits_leave_out_what_is_at_or_beyond_them(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    larger: int | None,
    smaller: int | None,
    newer: int | None,
    older: int | None,
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    add_snapshot(store, DAYS[0], rows)
    newer, older = (None if limit is None else WHEN + limit for limit in (newer, older))
    wanted = Wanted(masks=("*",), larger=larger, smaller=smaller, newer=newer, older=older)

    def is_within(of: Row) -> bool:
        if (larger, smaller) != (None, None) and of["type"] not in ("file", "hardlink"):
            return False
        return all(
            (
                larger is None or of["size"] > larger,
                smaller is None or of["size"] < smaller,
                newer is None or of["mtime"] > newer,
                older is None or of["mtime"] < older,
            )
        )

    found = told(find(store, DAYS[:1], wanted))
    assert found == [(DAYS[0], shown(r)) for r in rows if is_within(r)]


@given(manifests(), st.sets(st.integers(0, 24)), manifests())
@settings(max_examples=40)
def test_deleted_is_what_the_newest_snapshot_has_no_longer(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], stay: set[int], others: list[Row]
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    here = {raw_name(r): r for r in [*others, *(r for i, r in enumerate(rows) if i in stay)]}
    for day, given_rows in zip(DAYS, (rows, rows[::3], here.values()), strict=False):
        add_snapshot(store, day, given_rows)
        regroup(store.manifest_path(day), 5)
    present = {key(r) for r in here.values()}
    found = told(find(store, DAYS[:3], Wanted(masks=("*",), gone=True)))
    asked = [(DAYS[0], r) for r in rows] + [(DAYS[1], r) for r in rows[::3]]
    assert found == [(day, shown(r)) for day, r in asked if key(r) not in present]


def test_the_bytes_of_a_mask_that_are_not_utf_8_are_taken_as_they_are_shown(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_snapshot(store, DAYS[0], [row(b"caf\xe9"), row(b"cafe")])
    mask = os.fsdecode(b"caf\xe9")
    assert told(find(store, DAYS[:1], Wanted(masks=(mask,)))) == [(DAYS[0], "s/caf\ufffd")]


def test_find_names_the_cartridges_of_every_part_and_those_of_a_link_are_its_files(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path)
    add_archives(store, 40_000, cartridges=3)
    wide = [part(archive_name(number)) for number in (3, 1, None, 1, 2) if number is not None]
    rows = [
        row("a", parts=[part(archive_name(0)), part(None)]),
        row("b", "hardlink", link_target=b"z/\xff"),
        row("c", "hardlink", link_target=b"lost"),
        row("d", parts=[]),
        row("e", "dir"),
        row("f", parts=[part("archives/unknown")]),
        row("g", source="t", parts=wide),
        row("h", "hardlink", source="t", link_target=b"g"),
        row(b"z/\xfe", parts=[part(archive_name(2))]),
        row(b"z/\xff", parts=[part(archive_name(1)), part(archive_name(0))]),
        row(b"z/\xff", source="t", parts=[part(archive_name(2))]),
    ]
    add_snapshot(store, DAYS[0], rows)
    regroup(store.manifest_path(DAYS[0]), 3)
    found = [m for page in find(store, DAYS[:1], Wanted(masks=("*",))) for m in page]
    held = [m.cartridges for m in found]
    assert held == [[1], [1, 2], [], [], [], [], [3], [1, 2], [1, 2, 3], [1, 2, 3], [3]]


def test_many_rows_are_told_page_by_page_without_mixing_them_up(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_archives(store, 60_000, cartridges=7)
    kinds = ("file", "dir", "symlink", "file", "fifo")
    rows = []
    for n in range(30_000):
        kind = kinds[n * n % 5] if n > 10_000 else "file"  # not all words are in the first pages
        held = [part(archive_name(n % 3)), part(archive_name(n % 5))] if kind == "file" else None
        source = "s" if n < 20_000 else "t"
        rows.append(row(f"{n:05}", kind, source=source, size=n, parts=held))
    add_snapshot(store, DAYS[0], rows)
    expected = [
        (
            r["source"],
            r["path"],
            r["type"],
            r["size"],
            sorted({n % 3 + 1, n % 5 + 1} if r["parts"] else ()),
        )
        for n, r in enumerate(rows)
    ]
    for mask, wanted in (("*", expected), ("*[37]", [e for e in expected if e[1][-1] in "37"])):
        found = [m for page in find(store, DAYS[:1], Wanted(masks=(mask,))) for m in page]
        told = [
            (m.entry.source, m.entry.path, m.entry.type, m.entry.size, m.cartridges) for m in found
        ]
        assert told == sorted(wanted, key=lambda e: f"{e[0]}/{e[1]}")


def test_a_cartridge_that_is_lost_holds_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_archives(store, 40_000, cartridges=3, lost=2)
    held = [part(archive_name(number)) for number in range(3)]
    add_snapshot(store, DAYS[0], [row("a", parts=held), row("b", parts=held[1:2])])
    [page] = find(store, DAYS[:1], Wanted(masks=("*",)))
    assert [m.cartridges for m in page] == [[1, 3], []]


def test_a_snapshot_that_was_pruned_meanwhile_is_left_out(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_snapshot(store, DAYS[1], [row("a")])
    assert told(find(store, DAYS[:2], Wanted(masks=("a",)))) == [(DAYS[1], "s/a")]


@given(
    manifests(),
    st.sampled_from(("", "s", "s/", "a", "/s/a", "s-2/a", "s/a/b", "a/\udcff", "\udcff", "\ufffd")),
)
@settings(max_examples=100)
def test_ls_takes_what_is_at_and_below_a_path(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], below: str
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    add_snapshot(store, DAYS[0], rows)
    regroup(store.manifest_path(DAYS[0]), 3)
    wanted = os.fsencode(below.strip("/"))

    def is_below(of: Row) -> bool:
        texts: list[bytes] = [raw_name(of), raw_path(of), of["source"].encode()]
        if wanted.decode("utf-8", "replace").encode() == wanted:
            texts = [shown(of).encode(), of["path"].encode(), of["source"].encode()]
        return not wanted or any(t == wanted or t.startswith(wanted + b"/") for t in texts)

    found = [entry for page in entries(store, DAYS[0], below) for entry in page]
    expected = [r for r in rows if is_below(r)]
    assert [(e.source, e.path, e.type, e.size, e.mtime) for e in found] == [
        (r["source"], r["path"], r["type"], r["size"], iso_ns(r["mtime"])) for r in expected
    ]


def test_only_row_groups_that_may_have_a_path_are_read(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    manifest = store.manifest_path(DAYS[0])
    add_snapshot(store, DAYS[0], [row(f"{n:04}/f") for n in range(100)])
    regroup(manifest, 10)
    groups = row_groups(manifest)
    assert len(groups) == 10
    for wanted, places in (("0042", [4]), ("0042/f", [4]), ("00", []), ("0042/f/x", [4])):
        assert [g.number for g in groups if g.has_at_or_below(wanted)] == places
    wanted = pa.array(["0015/f", "0099/f"])
    assert [g.number for g in groups if len(g.among(wanted))] == [1, 9]


@given(manifests(), st.sets(st.sampled_from(NAMES + TWINS), min_size=1))
@settings(max_examples=50)
def test_rows_are_found_by_their_paths_in_every_source(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], wanted: set[bytes]
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    manifest = store.manifest_path(DAYS[0])
    add_snapshot(store, DAYS[0], rows)
    for size in (100, 4):
        regroup(manifest, size)
        paths = sorted({name.decode("utf-8", "replace") for name in wanted})
        found = rows_at(manifest, pa.array(paths), ["source", "path", "raw_path", "type"])
        names = [name for batch in found for name in keys(batch).to_pylist()]
        assert names == [key(r) for r in rows if r["path"] in paths]


def test_a_damaged_page_is_named_and_not_taken_for_an_answer(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    manifest = Path(store.manifest_path(DAYS[0]))
    add_snapshot(store, DAYS[0], [row(f"{n:05}", sha256=os.urandom(32)) for n in range(2000)])
    data = bytearray(manifest.read_bytes())
    for place in range(10, len(data) // 2, 100):
        data[place] ^= 1
    manifest.write_bytes(data)
    with pytest.raises(FormatDamaged, match=DAYS[0]):
        list(find(store, DAYS[:1], Wanted(masks=("*",))))
    with pytest.raises(FormatDamaged, match=DAYS[0]):
        list(entries(store, DAYS[0]))


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1)))
@example([0, 1, -1, SECOND, -SECOND, 2**63 - 1, -(2**63) + 1])
def test_times_are_written_as_one_time_is(moments: list[int]) -> None:
    column = pa.array(moments, pa.int64()).view(pa.timestamp("ns", "UTC"))
    assert times(column) == [iso_ns(moment) for moment in moments]


def test_work_done_ahead_comes_in_order_and_its_errors_too() -> None:
    assert list(ahead(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    stream = ahead(lambda n: 1 // (n - 3), range(50))
    assert [next(stream) for _ in range(3)] == [1 // -3, 1 // -2, -1]
    with pytest.raises(ZeroDivisionError):
        next(stream)
