"""The change set, held against a dictionary: whatever the windows, the same changes and reasons."""

import dataclasses
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog import moves
from tasks.catalog.changes import ChangeWriter, Found, Judge, compare, listed
from tasks.catalog.windows import windows
from tasks.formats.manifest import RESTLESS, keys
from tests.helpers.rows import WHEN, Row, batch, key, read, row

STRICT = Judge(lenient=frozenset(), unread=[], forced=False)
FILES = ("changes", "pack", "carry", "kept")
PATHS = (b"a", b"a!", b"a/b", b"a/b/c", b"a/b.c", b"a0", b"b", b"b\xff", b"b\xfe", b"c/d")


@dataclasses.dataclass(frozen=True, slots=True)
class Diff:
    """What a comparison left: its files as rows, and its counts."""

    changes: list[Row]
    pack: list[Row]
    carry: list[int | None]
    kept: list[tuple[int, int]]
    found: Found
    paths: tuple[str, ...]


def pieces(rows: Sequence[Row], chance: random.Random) -> Iterator[pa.RecordBatch]:
    """Rows in batches of one to three, so that there are many windows."""
    rest = list(rows)
    while rest:
        count = chance.randint(1, 3)
        yield batch(rest[:count])
        rest = rest[count:]


def diff(folder: Path, new: list[Row], old: list[Row], judge: Judge, seed: int = 0) -> Diff:
    chance = random.Random(seed)
    paths = tuple(str(folder / f"{name}.parquet") for name in FILES)
    writer = ChangeWriter(*paths)
    found = compare(pieces(new, chance), pieces(old, chance), judge, writer)
    writer.close()
    return result(paths, found)


def result(paths: tuple[str, ...], found: Found) -> Diff:
    changes, pack, carry, kept = (read(path) for path in paths)
    return Diff(
        changes=changes,
        pack=pack,
        carry=[line["carry"] for line in carry],
        kept=[(line["old_row"], line["row"]) for line in kept],
        found=found,
        paths=paths,
    )


def judged(new: Row, old: Row, judge: Judge) -> tuple[str, str]:
    """What has changed between two rows of one path, rule by rule."""

    def differ(name: str) -> bool:
        return bool((new[name] or 0) != (old[name] or 0))

    kind = new["type"]
    strict = new["source"] not in judge.lenient
    change = ("", "")
    if kind != old["type"]:
        change = ("modified", "type")
    elif kind == "file":
        looked_at = ("size", "mtime", "ctime", "inode") if strict else ("size", "mtime")
        for name in looked_at:
            if differ(name) and not change[0]:
                change = ("modified", name)
    elif new["link_target"] != old["link_target"]:
        change = ("modified", "target")
    elif kind != "hardlink" and differ("rdev"):
        change = ("modified", "device")
    if not change[0] and kind != "hardlink":
        if kind != "file" and differ("mtime"):
            change = ("metadata", "mtime")
        elif differ("mode"):
            change = ("metadata", "mode")
        elif differ("uid") or differ("gid"):
            change = ("metadata", "owner")
        elif new["xattrs"] != old["xattrs"]:
            change = ("metadata", "xattrs")
    if judge.forced and (not change[0] or (kind == "file" and change[0] == "metadata")):
        change = (change[0], "forced")
    return change


def is_unread(path: bytes, unread: Sequence[bytes]) -> bool:
    return any(path == place or path.startswith(place + b"/") for place in unread)


def expected(new: list[Row], old: list[Row], judge: Judge) -> Diff:
    """The same by dictionary."""
    olds = {key(r): (number, r) for number, r in enumerate(old)}
    news = {key(r) for r in new}
    changes, pack, carry = [], [], []
    counts: Counter[str] = Counter()
    for number, entry in enumerate(new):
        old_number, before = olds.get(key(entry), (-1, None))
        change = ("added", "new") if before is None else judged(entry, before, judge)
        goes_in = change[0] in ("added", "modified") or change[1] == "forced"
        carry.append(None if goes_in else old_number)
        tagged = tags(entry, *change, number, old_number)
        if change[0]:
            counts[change[0]] += 1
            changes.append(tagged)
        if goes_in:
            was = before["sha256"] if before and change[0] == "modified" else None
            pack.append({**tagged, "old_sha256": was})
    kept = []
    for number, entry in enumerate(old):
        if key(entry) in news:
            continue
        if is_unread(key(entry), judge.unread):
            kept.append((number, sum(k < key(entry) for k in news)))
        else:
            counts["deleted"] += 1
            changes.append(tags(entry, "deleted", "gone", -1, number))
    counts.setdefault("deleted", 0)
    found = Found(counts=counts, entries=len(new))
    return Diff(changes, pack, carry, kept, found, ())


def tags(entry: Row, change: str, reason: str, number: int, old_number: int) -> Row:
    return {**entry, "change": change, "reason": reason, "row": number, "old_row": old_number}


def same_rows(got: list[Row], wanted: list[Row], *, ordered: bool) -> None:
    """Compare the columns that a file has; a window lists its deleted rows behind the others."""
    names = list(got[0]) if got else []
    trimmed = [{name: line[name] for name in names} for line in wanted]
    if ordered:
        assert got == trimmed
    else:
        assert sorted(map(repr, got)) == sorted(map(repr, trimmed))
    assert len(got) == len(wanted)


def check(got: Diff, wanted: Diff) -> None:
    same_rows(got.changes, wanted.changes, ordered=False)
    same_rows(got.pack, wanted.pack, ordered=True)
    assert got.carry == wanted.carry
    assert sorted(got.kept) == wanted.kept
    assert got.kept == sorted(got.kept, key=lambda pair: pair[1])
    assert got.found.entries == wanted.found.entries
    assert +got.found.counts == +wanted.found.counts


KINDS = st.sampled_from(("file", "file", "file", "dir", "symlink", "hardlink", "char"))
FEW = st.integers(0, 1)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    kind = draw(KINDS)
    is_link = kind in ("symlink", "hardlink")
    return row(
        b"",
        kind,
        source=draw(st.sampled_from(("s", "s-2"))),
        size=draw(FEW),
        mtime=WHEN + draw(FEW),
        ctime=WHEN + draw(FEW),
        inode=draw(st.integers(1, 2)),
        mode=draw(st.sampled_from((0o644, 0o600))),
        uid=draw(FEW),
        gid=draw(FEW),
        rdev=draw(st.sampled_from((None, 0, 2**63))) if kind == "char" else None,
        link_target=draw(st.sampled_from((b"x", b"\xff"))) if is_link else None,
        xattrs=draw(st.sampled_from((None, [], [("user.a", b"\xff")]))),
        sha256=draw(st.sampled_from((b"1" * 32, b"2" * 31 + b"\0"))) if kind == "file" else None,
    )


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    found = draw(st.dictionaries(st.sampled_from(PATHS), rows(), max_size=len(PATHS)))
    named = [
        {**entry, **{n: v for n, v in row(path).items() if n in ("path", "raw_path")}}
        for path, entry in found.items()
    ]
    return sorted(named, key=key)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Two manifests that mostly share their rows."""
    old = draw(manifests())
    fresh = {(r["source"], r["path"], r["raw_path"]): r for r in draw(manifests())}
    same = {(r["source"], r["path"], r["raw_path"]): r for r in old if draw(st.booleans())}
    new: dict[bytes, Row] = {}
    for entry in (fresh | same).values():
        new.setdefault(key(entry).rstrip(b"/"), entry)
    return sorted(new.values(), key=key), old


JUDGES = st.builds(
    Judge,
    lenient=st.sampled_from((frozenset(), frozenset({"s"}), frozenset({"s", "s-2"}))),
    unread=st.lists(st.sampled_from((b"s/a", b"s/a/b", b"s-2/b", b"s/b\xff")), max_size=2),
    forced=st.booleans(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diff")


@settings(max_examples=80)
@given(pairs(), JUDGES, st.integers(0, 5))
def test_a_change_set_is_that_of_two_dictionaries(
    folder: Path, sides: tuple[list[Row], list[Row]], judge: Judge, seed: int
) -> None:
    new, old = sides
    check(diff(folder, new, old, judge, seed), expected(new, old, judge))


@settings(max_examples=30)
@given(manifests(), st.integers(0, 5))
def test_nothing_changed_is_an_empty_change_set(folder: Path, same: list[Row], seed: int) -> None:
    got = diff(folder, same, same, STRICT, seed)
    assert (got.changes, got.pack, got.kept) == ([], [], [])
    assert got.carry == list(range(len(same)))


@settings(max_examples=30)
@given(pairs(), st.integers(0, 9))
def test_windows_hold_every_row_once_and_in_order(
    sides: tuple[list[Row], list[Row]], seed: int
) -> None:
    chance = random.Random(seed)
    seen: tuple[list[bytes], list[bytes]] = ([], [])
    for window in windows(*(pieces(side, chance) for side in sides)):
        assert (window.new_base, window.old_base) == (len(seen[0]), len(seen[1]))
        new, old = keys(window.new).to_pylist(), keys(window.old).to_pylist()
        assert new or old
        seen[0].extend(new)
        seen[1].extend(old)
        # What could match must be in one window.
        assert not set(seen[0]) - set(new) & set(old)
        assert not set(seen[1]) - set(old) & set(new)
    assert seen == tuple([key(r) for r in side] for side in sides)


def test_two_long_manifests_are_compared_in_their_true_windows(tmp_path: Path) -> None:
    chance = random.Random(3)
    old = [row(f"{n:06}", inode=n) for n in range(0, 150_000, 2)]
    new = [dict(r) for r in old if chance.random() > 0.01]
    for entry in chance.sample(new, 500):
        entry["size"] += 1
    extra = (row(f"{n:06}", inode=n) for n in range(1, 150_000, 300))
    new = sorted([*new, *extra], key=key)
    paths = tuple(str(tmp_path / f"{name}.parquet") for name in FILES)
    writer = ChangeWriter(*paths)
    found = compare(in_batches(new, 65_536), in_batches(old, 50_000), STRICT, writer)
    writer.close()
    check(result(paths, found), expected(new, old, STRICT))


def in_batches(rows: list[Row], count: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), count):
        yield batch(rows[start : start + count])


def test_people_can_read_a_change_set(folder: Path) -> None:
    got = diff(folder, [row("b", size=7)], [row("a"), row("b", size=5)], STRICT)
    told = [(c.path, c.change, c.reason, c.size) for c in listed(got.paths[0])]
    assert sorted(told) == [("s/a", "deleted", "gone", 0), ("s/b", "modified", "size", 7)]


@pytest.mark.parametrize(
    ("fact", "value", "change"),
    [
        ("size", 9, ("modified", "size")),
        ("mtime", WHEN - 1, ("modified", "mtime")),
        ("ctime", WHEN - 1, ("modified", "ctime")),
        ("inode", 99, ("modified", "inode")),
        ("nlink", 2, None),
        ("dev", 2, None),
    ],
)
def test_a_file_is_changed_for_a_reason(
    folder: Path, fact: str, value: int, change: tuple[str, str] | None
) -> None:
    got = diff(folder, [row("a", **{fact: value})], [row("a")], STRICT)
    assert [(c["change"], c["reason"]) for c in got.changes] == ([change] if change else [])


def test_a_lenient_source_looks_at_size_and_mtime_alone(folder: Path) -> None:
    judge = Judge(lenient=frozenset({"s"}), unread=[], forced=False)
    new = [row("a", ctime=1, inode=99), row("b", size=1), row("c", mode=0o600)]
    got = diff(folder, new, [row("a"), row("b"), row("c")], judge)
    told = [(c["path"], c["change"], c["reason"]) for c in got.changes]
    assert told == [("b", "modified", "size"), ("c", "metadata", "mode")]


@pytest.mark.parametrize("lenient", [frozenset(), frozenset({"s"})])
def test_what_went_on_changing_is_read_again(folder: Path, lenient: frozenset[str]) -> None:
    judge = Judge(lenient=lenient, unread=[], forced=False)
    got = diff(folder, [row("a"), row("b")], [row("a", ctime=RESTLESS), row("b")], judge)
    assert [(c["path"], c["change"]) for c in got.changes] == [("a", "modified")]


def test_a_folder_that_became_a_file_is_deleted_and_added(folder: Path) -> None:
    old = [row("a", "dir"), row("a/x")]
    got = diff(folder, [row("a")], old, STRICT)
    told = sorted((c["path"], c["type"], c["change"]) for c in got.changes)
    assert told == [("a", "dir", "deleted"), ("a", "file", "added"), ("a/x", "file", "deleted")]


def test_what_lies_below_an_unread_folder_is_kept_in_its_place(folder: Path) -> None:
    old = [row("a", "dir"), row("a/1"), row("a/2", "dir"), row("a/2/3"), row("a0"), row("b")]
    new = [row("a", "dir"), row("a0"), row("c")]
    judge = Judge(lenient=frozenset(), unread=[b"s/a"], forced=False)
    got = diff(folder, new, old, judge)
    assert got.kept == [(1, 1), (2, 1), (3, 1)]
    assert [(c["path"], c["change"]) for c in got.changes] == [("b", "deleted"), ("c", "added")]


def test_what_lies_in_an_unread_source_is_kept(folder: Path) -> None:
    from tasks.media.source import Unread, Walk
    from tasks.model.profile import Source
    from tasks.scan import _summary, _Totals

    root = os.fsencode(folder)
    walk = Walk(Source(path=str(folder), name="s"), root, [])
    walk.unread.append(Unread(b"", "Input/output error", folder=True))
    summary = _summary(Source(path=str(folder), name="s"), root, walk, _Totals())
    unread = [bytes.fromhex(place) for place in summary.unread]
    judge = Judge(lenient=frozenset(), unread=unread, forced=False)
    got = diff(folder, [], [row("a"), row("b")], judge)
    assert got.kept == [(0, 0), (1, 0)]


def moved(folder: Path, new: list[Row], old: list[Row]) -> tuple[dict[int, int], Diff, Diff]:
    """Diff, find moves and apply them; return the moves, and the diff before and after."""
    before = diff(folder, new, old, STRICT)
    found = moves.find(before.paths[0])
    if found:
        moves.apply(found, *before.paths[:3])
    return found, before, result(before.paths, before.found)


def test_a_vanished_path_with_its_inode_elsewhere_is_a_move(folder: Path) -> None:
    old = [row("a", inode=7, size=5), row("b", inode=8)]
    new = [row("b", inode=8), row("z/a", inode=7, size=5, mode=0o600)]
    found, _, after = moved(folder, new, old)
    assert found == {1: 0}
    (change,) = after.changes
    assert (change["path"], change["change"], change["reason"]) == ("z/a", "moved", "name")
    assert (change["row"], change["old_row"]) == (1, 0)
    assert after.pack == []
    assert after.carry == [1, 0]


def test_a_move_that_may_hide_a_change_is_packed_to_be_read(folder: Path) -> None:
    """A rename gives a file another ctime, and so does whoever writes to it and sets its mtime."""
    old = [row("a", inode=7), row("d", "dir", inode=8), row("e", inode=9)]
    new = [
        row("x", "dir", inode=8, ctime=WHEN + 1),
        row("y", inode=9),
        row("z", inode=7, ctime=WHEN + 1),
    ]
    found, _, after = moved(folder, new, old)
    assert found == {0: 1, 1: 2, 2: 0}
    assert {c["change"] for c in after.changes} == {"moved"}
    assert [p["path"] for p in after.pack] == ["z"]
    assert after.carry == [1, 2, None]


@pytest.mark.parametrize("fact", ["size", "mtime", "inode", "type"])
def test_what_differs_in_more_than_its_name_is_no_move(folder: Path, fact: str) -> None:
    other: dict[str, Any] = {"size": 6, "mtime": WHEN + 1, "inode": 9, "type": "fifo"}
    new = [{**row("z", inode=7, size=5), fact: other[fact]}]
    found, before, after = moved(folder, new, [row("a", inode=7, size=5)])
    assert found == {}
    assert after == before


def test_a_path_that_stays_is_no_move_though_its_inode_is_elsewhere_too(folder: Path) -> None:
    found, _, _ = moved(folder, [row("a", inode=7), row("b", inode=7)], [row("a", inode=7)])
    assert found == {}


def test_a_whole_folder_moves_with_all_that_is_in_it(folder: Path) -> None:
    old = [row("a", "dir", inode=1), *(row(f"a/{n}", inode=n + 10) for n in range(5))]
    new = [row("z", "dir", inode=1), *(row(f"z/{n}", inode=n + 10) for n in range(5))]
    found, _, after = moved(folder, new, old)
    assert found == {n: n for n in range(6)}
    assert Counter(c["change"] for c in after.changes) == {"moved": 6}


def test_what_is_below_an_unread_folder_is_kept_and_has_not_moved(folder: Path) -> None:
    judge = Judge(lenient=frozenset(), unread=[b"s/a"], forced=False)
    old, new = [row("a", "dir", inode=1), row("a/x", inode=7)], [row("z", inode=7)]
    got = diff(folder, sorted([*new, row("a", "dir", inode=1)], key=key), old, judge)
    assert moves.find(got.paths[0]) == {}


@settings(max_examples=40)
@given(pairs())
def test_moves_pair_what_vanished_with_what_appeared(
    folder: Path, sides: tuple[list[Row], list[Row]]
) -> None:
    new, old = sides
    found, before, after = moved(folder, new, old)
    assert len(set(found.values())) == len(found)
    identities = ("type", "size", "mtime", "inode")
    for now, then in found.items():
        assert [new[now][n] for n in identities] == [old[then][n] for n in identities]
        assert new[now]["type"] != "hardlink"

    def sets(change: str, number: str) -> set[int]:
        return {c[number] for c in before.changes if c["change"] == change}

    assert set(found) <= sets("added", "row")
    assert set(found.values()) <= sets("deleted", "old_row")
    expected_changes = []
    for line in before.changes:
        if line["row"] in found:
            tagged = {"change": "moved", "reason": "name", "old_row": found[line["row"]]}
            expected_changes.append({**line, **tagged})
        elif line["row"] >= 0 or line["old_row"] not in found.values():
            expected_changes.append(line)
    assert after.changes == expected_changes
    sure = {
        now: then
        for now, then in found.items()
        if new[now]["type"] != "file" or new[now]["ctime"] == old[then]["ctime"]
    }
    assert after.pack == [line for line in before.pack if line["row"] not in sure]
    assert after.carry == [sure.get(n, old_row) for n, old_row in enumerate(before.carry)]
