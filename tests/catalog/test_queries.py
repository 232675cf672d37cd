"""Lookups say what plain Python says row by row, however the columns are gone through."""

import fnmatch
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.catalog import moves
from tasks.catalog.changes import OLD_COLUMNS, Change, ChangeWriter, Judge, compare, listed
from tasks.catalog.compared import KINDS, compare_snapshots
from tasks.catalog.history import Version, history
from tasks.catalog.masks import expression
from tasks.catalog.queries import entries, times
from tasks.catalog.rowgroups import ahead, row_groups, rows_at
from tasks.catalog.search import Match, Wanted, find
from tasks.catalog.store import Store
from tasks.formats.manifest import batches, keys
from tasks.model.errors import FormatDamaged, NothingSelected, UsageError
from tasks.model.units import iso_ns
from tests.helpers.catalogs import add_archives, add_snapshot, archive_name, part, regroup
from tests.helpers.rows import WHEN, Row, key, raw_path, row

DAYS = [f"202601{day:02}T000000Z" for day in range(1, 29)]
SECOND = 1_000_000_000
NAMES = (b"a", b"b", b"A", b"a-", b"a.b", b"a b", b"\n", b"*", b"[a]", b"\xff", b"\xfe", b"-", b"!")
TWINS = ("\N{REPLACEMENT CHARACTER}".encode(), "caf\u00e9".encode(), "\N{SNOWMAN}".encode())

Stores = pytest.TempPathFactory


def new_store(stores: Stores) -> Store:
    store = Store(str(stores.mktemp("catalog")))
    store.create()
    return store


def fits(path: str, masks: Sequence[str]) -> bool:
    """Whether fnmatch takes the name, the path below the source, or all of `<source>/<path>`."""
    texts = (path.rpartition("/")[2], path.partition("/")[2], path)
    return any(fnmatch.fnmatchcase(text, mask) for text in texts for mask in masks)


def found_in(paths: Sequence[str], masks: Sequence[str]) -> list[str]:
    hits = pc.match_substring_regex(pa.array(paths, pa.string()), expression(masks)).to_pylist()
    return [path for path, hit in zip(paths, hits, strict=True) if hit]


LETTERS = "ab/-!^[]*?.\\z\n&~|A\u00e9\N{REPLACEMENT CHARACTER}\N{PILE OF POO}{},$()+#: "


def masks() -> st.SearchStrategy[list[str]]:
    """Masks, rich in brackets that mean odd things."""
    brackets = st.from_regex(r"[ab*]?\[!?[ab\-!^zA/\\\[]{0,6}\][b*?]?", fullmatch=True)
    mask = st.text(LETTERS, max_size=9) | brackets | st.text("[]!-ab^*/?", max_size=9)
    return st.lists(mask, min_size=1, max_size=3)


def shown_paths() -> st.SearchStrategy[list[str]]:
    name = st.text(LETTERS.replace("/", ""), min_size=1, max_size=5)
    return st.lists(st.lists(name, min_size=2, max_size=4).map("/".join), min_size=1, max_size=20)


@given(masks(), shown_paths())
@settings(max_examples=500)
@example(["[!a]"], ["s/b", "s/a", "s/\n"])
@example(["[z-a]", "[b-a!]"], ["s/z", "s/-", "s/a"])
@example(["a[/]b", "a?b", "a*b"], ["s/a/b", "a/b", "x/y/a/b"])
@example([""], ["s/a"])
def test_a_mask_means_exactly_what_fnmatch_says(masks: list[str], paths: list[str]) -> None:
    assert found_in(paths, masks) == [path for path in paths if fits(path, masks)]


def test_brackets_mean_what_fnmatch_says_in_all_their_oddities() -> None:
    paths = [f"s/{chr(code)}" for code in range(1, 160) if chr(code) != "/"]
    for length in range(1, 5):
        for inside in itertools.product("a-!^]\\", repeat=length):
            mask = f"[{''.join(inside)}]"
            assert found_in(paths, [mask]) == [p for p in paths if fits(p, [mask])], mask


def test_a_mask_as_long_as_a_path_may_be_is_no_trouble() -> None:
    longest = "x" * 4095
    for mask in ("?" * 4095, "x*" * 2000, "[!a]" * 1000 + "*", longest):
        assert found_in([f"s/{longest}", "s/x"], [mask]) == [f"s/{longest}"]


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    """The rows of a snapshot: two sources, odd names, every kind of content."""
    name = st.sampled_from(NAMES + TWINS)
    raw = st.lists(name, min_size=1, max_size=3).map(b"/".join)
    places = draw(st.sets(st.tuples(st.sampled_from(("s", "s-2", "a")), raw), max_size=25))
    return sorted((draw(_rows(*place)) for place in places), key=key)


@st.composite
def _rows(draw: st.DrawFn, source: str, raw: bytes) -> Row:
    kind = draw(st.sampled_from(("file", "file", "file", "dir", "symlink", "hardlink")))
    facts: dict[str, Any] = {
        "mtime": WHEN + draw(st.integers(-3, 3)),
        "ctime": WHEN + draw(st.integers(0, 1)),
        "inode": draw(st.integers(1, 5)),
        "mode": draw(st.sampled_from((0o644, 0o600))),
    }
    if kind == "file":
        facts["size"] = draw(st.integers(0, 5))
        names = st.none() | st.integers(0, 4).map(archive_name)
        facts["parts"] = [part(name) for name in draw(st.lists(names, max_size=3))]
        facts["sha256"] = bytes([facts["size"]]) * 32
        facts["xattrs"] = draw(st.sampled_from((None, [("user.a", b"1")])))
    elif kind != "dir":
        facts["link_target"] = draw(st.sampled_from(NAMES))
    return row(raw, kind, source=source, **facts)


def shown(of: Row) -> str:
    return f"{of['source']}/{of['path']}"


def told(pages: Iterable[list[Match]]) -> list[tuple[str, str]]:
    """What was found, as snapshot and path."""
    return [(m.snapshot, f"{m.entry.source}/{m.entry.path}") for page in pages for m in page]


@given(manifests(), masks())
@settings(max_examples=60)
def test_find_takes_the_rows_that_a_mask_fits(
    tmp_path_factory: Stores, rows: list[Row], masks: list[str]
) -> None:
    store = new_store(tmp_path_factory)
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
    tmp_path_factory: Stores,
    rows: list[Row],
    larger: int | None,
    smaller: int | None,
    newer: int | None,
    older: int | None,
) -> None:
    store = new_store(tmp_path_factory)
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
    tmp_path_factory: Stores, rows: list[Row], stay: set[int], others: list[Row]
) -> None:
    store = new_store(tmp_path_factory)
    here = {raw_name(r): r for r in [*others, *(r for i, r in enumerate(rows) if i in stay)]}
    for day, given_rows in zip(DAYS, (rows, rows[::3], here.values()), strict=False):
        add_snapshot(store, day, given_rows)
        regroup(store.manifest_path(day), 5)
    present = {key(r) for r in here.values()}
    found = told(find(store, DAYS[:3], Wanted(masks=("*",), gone=True)))
    asked = [(DAYS[0], r) for r in rows] + [(DAYS[1], r) for r in rows[::3]]
    assert found == [(day, shown(r)) for day, r in asked if key(r) not in present]


def raw_name(of: Row) -> bytes:
    return key(of).removesuffix(b"/")


def test_the_bytes_of_a_mask_that_are_not_utf_8_are_taken_as_they_are_shown(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_snapshot(store, DAYS[0], [row(b"caf\xe9"), row(b"cafe")])
    mask = os.fsdecode(b"caf\xe9")
    assert told(find(store, DAYS[:1], Wanted(masks=(mask,)))) == [(DAYS[0], "s/caf\ufffd")]


def new_store_at(folder: Path) -> Store:
    store = Store(str(folder / "catalog"))
    store.create()
    return store


def test_find_names_the_cartridges_of_every_part_and_those_of_a_link_are_its_files(
    tmp_path: Path,
) -> None:
    store = new_store_at(tmp_path)
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
    store = new_store_at(tmp_path)
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
    store = new_store_at(tmp_path)
    add_archives(store, 40_000, cartridges=3, lost=2)
    held = [part(archive_name(number)) for number in range(3)]
    add_snapshot(store, DAYS[0], [row("a", parts=held), row("b", parts=held[1:2])])
    [page] = find(store, DAYS[:1], Wanted(masks=("*",)))
    assert [m.cartridges for m in page] == [[1, 3], []]


def test_a_snapshot_that_was_pruned_meanwhile_is_left_out(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_snapshot(store, DAYS[1], [row("a")])
    assert told(find(store, DAYS[:2], Wanted(masks=("a",)))) == [(DAYS[1], "s/a")]


@given(
    manifests(),
    st.sampled_from(("", "s", "s/", "a", "/s/a", "s-2/a", "s/a/b", "a/\udcff", "\udcff", "\ufffd")),
)
@settings(max_examples=100)
def test_ls_takes_what_is_at_and_below_a_path(
    tmp_path_factory: Stores, rows: list[Row], below: str
) -> None:
    store = new_store(tmp_path_factory)
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
    store = new_store_at(tmp_path)
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
    tmp_path_factory: Stores, rows: list[Row], wanted: set[bytes]
) -> None:
    store = new_store(tmp_path_factory)
    manifest = store.manifest_path(DAYS[0])
    add_snapshot(store, DAYS[0], rows)
    for size in (100, 4):
        regroup(manifest, size)
        paths = sorted({name.decode("utf-8", "replace") for name in wanted})
        found = rows_at(manifest, pa.array(paths), ["source", "path", "raw_path", "type"])
        names = [name for batch in found for name in keys(batch).to_pylist()]
        assert names == [key(r) for r in rows if r["path"] in paths]


def test_a_damaged_page_is_named_and_not_taken_for_an_answer(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
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


# Comparing two snapshots


def merged(folder: Path, old: str, new: str, lenient: Sequence[str]) -> list[Change]:
    """What a backup would find between two manifests."""
    paths = [str(folder / name) for name in ("changes", "pack", "carry", "kept")]
    writer = ChangeWriter(*paths)
    judge = Judge(lenient=frozenset(lenient), unread=(), forced=False)
    compare(batches(new, OLD_COLUMNS), batches(old, OLD_COLUMNS), judge, writer)
    writer.close()
    moved = moves.find(paths[0], lenient)
    if moved:
        moves.apply(moved, *paths[:3])
    return list(listed(paths[0]))


@given(manifests(), manifests(), st.sets(st.integers(0, 24)), st.sampled_from(((), ("s",))))
@settings(max_examples=50)
def test_a_comparison_finds_what_a_backup_would(
    tmp_path_factory: Stores,
    old: list[Row],
    others: list[Row],
    stay: set[int],
    lenient: tuple[str, ...],
) -> None:
    store = new_store(tmp_path_factory)
    kept = {raw_name(r): r for i, r in enumerate(old) if i in stay}
    new = kept | {raw_name(r): r for r in others}
    older, newer = (store.manifest_path(day) for day in DAYS[:2])
    add_snapshot(store, DAYS[0], old)
    add_snapshot(store, DAYS[1], new.values())
    folder = Path(store.folder)
    expected = merged(folder, older, newer, lenient)
    found = compare_snapshots(newer, older, lenient, str(folder / "spool"))
    changes = [change for page in found.changes() for change in page]
    assert sorted(changes, key=repr) == sorted(expected, key=repr)
    for kind in KINDS:
        paths = [path for page in found.paths(kind) for path in page]
        assert paths == [c.path for c in changes if c.change == kind]


def test_changes_come_in_path_order_over_all_row_groups(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)

    def rows(numbers: Iterable[int], *, altered: int) -> list[Row]:
        """Every 777th file is written to, every 600th touched."""
        return [
            row(
                f"{n:06}",
                inode=n,
                mtime=WHEN + altered * (n % 600 == 0),
                size=n,
                sha256=b"%031d" % n + (b"?" if altered and n % 777 == 0 else b"."),
                ctime=WHEN + altered * (n % 777 == 0),
            )
            for n in numbers
        ]

    old = rows((n for n in range(200_000) if n % 1000 != 3), altered=0)
    new = rows((n for n in range(200_000) if n % 900 != 4), altered=1)
    add_snapshot(store, DAYS[0], old)
    add_snapshot(store, DAYS[1], new)
    older, newer = (store.manifest_path(day) for day in DAYS[:2])
    found = compare_snapshots(newer, older, (), str(tmp_path / "spool"))
    changes = [change for page in found.changes() for change in page]
    assert [c.path for c in changes] == sorted(c.path for c in changes)
    gone = {f"s/{n:06}" for n in range(4, 200_000, 900)} - {
        f"s/{n:06}" for n in range(3, 200_000, 1000)
    }
    assert {c.path for c in changes if c.change == "deleted"} == gone
    fresh = {f"s/{n:06}" for n in range(3, 200_000, 1000) if n % 900 != 4}
    assert {c.path for c in changes if c.change == "added"} == fresh
    other = {f"s/{n:06}" for n in range(0, 200_000, 777) if n % 900 != 4 and n % 1000 != 3}
    assert {c.path for c in changes if c.change == "modified"} == other
    touched = {f"s/{n:06}" for n in range(0, 200_000, 600) if n % 900 != 4 and n % 1000 != 3}
    assert {c.path for c in changes if c.change == "metadata"} == touched - other


# The history of a path


def versions_of(store: Store, path: str) -> list[tuple[str, str, str]]:
    found, _ = history(store, path)
    return [(v.change, v.snapshot, v.last) for v in found]


def file(path: bytes | str, content: int = 1, **facts: Any) -> Row:
    given_facts = {"size": content, "sha256": bytes([content]) * 32, **facts}
    return row(path, parts=[part(archive_name(content))], **given_facts)


def test_a_version_is_a_run_of_snapshots_with_the_same_content_and_metadata(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    states = [
        [row("b")],
        [file("a", ctime=1, inode=1)],
        [file("a", ctime=2, inode=2)],
        [file("a", mode=0o600)],
        [file("a", 2, mtime=WHEN + 1)],
        [],
        [file("a", 2, mtime=WHEN + 1)],
        [file("a", 2, xattrs=[("user.a", b"")], mtime=WHEN + 1)],
        [file("ab")],
        [],
    ]
    for day, rows in zip(DAYS, states, strict=False):
        add_snapshot(store, day, rows)
    found, deleted = history(store, "s/a")
    assert versions_of(store, "s/a") == [
        ("added", DAYS[1], DAYS[2]),
        ("metadata", DAYS[3], DAYS[3]),
        ("modified", DAYS[4], DAYS[4]),
        ("added", DAYS[6], DAYS[6]),
        ("metadata", DAYS[7], DAYS[7]),
    ]
    assert deleted == DAYS[8]
    assert found[2] == Version(
        snapshot=DAYS[4],
        last=DAYS[4],
        time="2026-01-05T00:00:00Z",
        path="a",
        source="s",
        size=2,
        mtime=iso_ns(WHEN + 1),
        sha256="02" * 32,
        cartridges=[3],
        change="modified",
    )
    assert history(store, "a") == (found, deleted)
    assert history(store, "ab")[1] == DAYS[9]
    assert history(store, "/s/b/")[1] == DAYS[1]


def test_the_cartridges_of_a_version_are_those_of_its_last_snapshot(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    for day, number in zip(DAYS, (0, 0, 2), strict=False):
        again = {**file("a"), "parts": [part(archive_name(number))]}
        add_snapshot(store, day, [again])
    [version], deleted = history(store, "a")
    assert (version.last, version.cartridges, deleted) == (DAYS[2], [3], None)


def test_another_name_of_a_file_has_the_history_of_its_content(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    link = row("b", "hardlink", link_target=b"a", size=9, mtime=5)
    for day, rows in zip(
        DAYS, ([file("a"), link], [file("a", 3), link], [file("b", 3)], [link]), strict=False
    ):
        add_snapshot(store, day, rows)
    found, _ = history(store, "b")
    assert versions_of(store, "b") == [
        ("added", DAYS[0], DAYS[0]),
        ("modified", DAYS[1], DAYS[2]),
        ("modified", DAYS[3], DAYS[3]),
    ]
    assert [(v.size, v.sha256, v.cartridges) for v in found] == [
        (1, "01" * 32, [2]),
        (3, "03" * 32, [4]),
        (9, None, []),
    ]


def test_folders_links_and_what_changes_its_type_have_versions(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    states = [
        row("a", "dir"),
        row("a", "dir", mtime=5),
        row("a", "symlink", link_target=b"x", mtime=5),
        row("a", "symlink", link_target=b"y", mtime=5),
        row("a", "char", rdev=1, mtime=5),
        row("a", "char", rdev=2, mtime=5),
    ]
    for day, one in zip(DAYS, states, strict=False):
        add_snapshot(store, day, [row("A"), one, row("a-"), row("a", source="t")])
    changes = [change for change, *_ in versions_of(store, "s/a")]
    assert changes == ["added", "metadata", "modified", "modified", "modified", "modified"]


def test_a_path_that_means_several_files_has_to_be_named_whole(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    rows = [file("a"), file("b", source="t"), file("a/b"), file("a", 2, source="t"), file("t/b")]
    add_snapshot(store, DAYS[0], rows)
    with pytest.raises(UsageError, match="s/a, t/a"):
        history(store, "a")
    [version], _ = history(store, "t/b")
    assert (version.source, version.path) == ("t", "b")
    [version], _ = history(store, "s/t/b")
    assert (version.source, version.path) == ("s", "t/b")
    [version], _ = history(store, "a/b")
    assert (version.source, version.path) == ("s", "a/b")


def test_names_that_are_not_utf_8_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    rows = [file(b"x\xff", 1), file(b"x\xfe", 2), file(b"y\xff", 3)]
    add_snapshot(store, DAYS[0], rows)
    [version], _ = history(store, os.fsdecode(b"x\xfe"))
    assert (version.path, version.size, version.raw_path) == ("x\ufffd", 2, "eP4=")
    assert history(store, "s/y\ufffd")[0][0].size == 3
    with pytest.raises(UsageError):
        history(store, "x\ufffd")
    with pytest.raises(NothingSelected):
        history(store, os.fsdecode(b"x\xfd"))


def test_a_path_that_no_snapshot_has_is_an_error(tmp_path: Path) -> None:
    store = new_store_at(tmp_path)
    add_snapshot(store, DAYS[0], [file("a")])
    for path in ("b", "s", "a/b", "", "s/", "t/a"):
        with pytest.raises(NothingSelected, match=DAYS[0]):
            history(store, path)
