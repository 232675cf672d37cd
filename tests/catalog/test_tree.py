"""A snapshot's tree says what a plain look through all rows says, however little of it is read."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.catalog import listing
from tasks.catalog.filesystem import Filesystem
from tasks.catalog.retrieval import Retrieval
from tasks.catalog.rowgroups import RowGroup
from tasks.catalog.store import Store
from tasks.catalog.tree import SnapshotTree, new_cache
from tasks.model.errors import FormatDamaged
from tests.helpers.catalogs import add_snapshot, regroup
from tests.helpers.rows import WHEN, Row, key, raw_path, row

DAY = "20260101T000000Z"
NAMES = (b"a", b"a-", b"a.b", b"a-b", b"a0", b"a!", b"b", b"\n", b"\xff", b"\xfe", b"\xef\xbf\xbd")

Names = dict[bytes, dict[bytes, str]]


@st.composite
def snapshots(draw: st.DrawFn) -> list[Row]:
    """Rows of honest trees in two sources; every folder on the way has a row."""
    name = st.sampled_from(NAMES) | st.binary(min_size=1, max_size=3).filter(is_nameable)
    path = st.lists(name, min_size=1, max_size=4).map(b"/".join)
    rows: dict[tuple[str, bytes], str] = {}
    for source, leaf in draw(st.lists(st.tuples(st.sampled_from(("s", "s-2")), path), max_size=30)):
        folders = [leaf[:i] for i in range(len(leaf)) if leaf[i : i + 1] == b"/"]
        if all(rows.get((source, folder), "dir") == "dir" for folder in folders):
            rows.update(((source, folder), "dir") for folder in folders)
            rows.setdefault((source, leaf), draw(st.sampled_from(("file", "dir", "fifo"))))
    return [row(raw, kind, source=source, size=len(raw)) for (source, raw), kind in rows.items()]


def is_nameable(name: bytes) -> bool:
    return b"/" not in name and b"\0" not in name and name not in (b".", b"..")


def folders_of(rows: list[Row]) -> Names:
    """What every folder has, found by going through all rows."""
    found: Names = {r["source"].encode(): {} for r in rows}
    for r in rows:
        path = r["source"].encode() + b"/" + raw_path(r)
        folder, _, name = path.rpartition(b"/")
        found.setdefault(folder, {})[name] = r["type"]
        if r["type"] == "dir":
            found.setdefault(path, {})
    return found


def new_store(stores: pytest.TempPathFactory) -> Store:
    store = Store(str(stores.mktemp("catalog")))
    store.create()
    return store


def tree_of(store: Store, rows: list[Row], group: int) -> SnapshotTree:
    add_snapshot(store, DAY, rows)
    manifest = store.manifest_path(DAY)
    if rows:
        regroup(manifest, group)
    return SnapshotTree(manifest, DAY, new_cache())


def listed(tree: SnapshotTree, folder: bytes) -> dict[bytes, str]:
    names = list(tree.names(folder))
    assert len({name for name, _, _ in names}) == len(names)
    return {name: kind for name, kind, _ in names}


@given(snapshots(), st.integers(1, 9))
@settings(max_examples=100)
@example([row("a", "dir"), row("a/b"), row("a-b"), row("a.b"), row("a0", "dir")], 1)
def test_folders_have_the_entries_that_the_rows_say(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], group: int
) -> None:
    tree = tree_of(new_store(tmp_path_factory), rows, group)
    expected = folders_of(rows)
    assert tree.sources() == sorted({r["source"].encode() for r in rows})
    assert {folder: listed(tree, folder) for folder in expected} == expected
    for r in rows:
        path = r["source"].encode() + b"/" + raw_path(r)
        entry = tree.entry(path)
        assert (entry.path, entry.kind, entry.size) == (path, r["type"], r["size"])
        with pytest.raises(FileNotFoundError):
            tree.entry(path + b"~")


@given(snapshots(), st.integers(1, 9), st.randoms())
@settings(max_examples=60)
def test_folders_without_a_row_are_there_when_something_lies_in_them(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    group: int,
    chance: random.Random,
) -> None:
    full = folders_of(rows)
    kept = [r for r in rows if r["type"] != "dir" or chance.random() < 0.5]
    present = {key(r).rstrip(b"/") for r in kept}
    needed = {p for p in full if any(k.startswith(p + b"/") for k in present)} | present
    tree = tree_of(new_store(tmp_path_factory), kept, group)
    groups = tree._footer().groups
    for folder in full:
        expected = {n: k for n, k in full[folder].items() if folder + b"/" + n in needed}
        names = set(listing.list_folder(groups, folder, complete=False).implied)
        rowless = {n for n in expected if folder + b"/" + n not in present}
        assert names == rowless


def test_a_folder_is_found_without_reading_what_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.create()
    folders = [row(f"{n:03}", "dir") for n in range(50)]
    rows = [*folders, *(row(f"{n:03}/{m:03}") for n in range(50) for m in range(40))]
    tree = tree_of(store, rows, 10)
    tree.sources()
    read: list[int] = []
    whole = RowGroup.read

    def reading(group: RowGroup, columns: list[str]) -> object:
        read.append(group.number)
        return whole(group, columns)

    monkeypatch.setattr(RowGroup, "read", reading)
    assert len(listed(tree, b"s/007")) == 40
    assert len(read) <= 6  # of 205
    read.clear()
    assert len(listed(tree, b"s")) == 50
    assert len(read) <= 110  # half of the groups lie below one folder
    read.clear()
    assert len(listed(tree, b"s")) == 50
    assert read == []


def test_an_entry_is_described_as_its_row_says(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.create()
    first = row(
        "f", size=3, mode=0o4755, uid=7, gid=3_000_000_000, mtime=-1, ctime=WHEN + 1, nlink=2
    )
    first |= {"xattrs": [("user.a", b"1"), ("\0ff", b"2")], "parts": [], "size": 0}
    rows = [first, row("z", "hardlink", link_target=b"f", nlink=2), row("d", "dir", nlink=9)]
    rows += [row("n", "char", rdev=259), row("l", "symlink", link_target=b"\xff", size=1)]
    tree = tree_of(store, rows, 2)
    for path in (b"s/f", b"s/z"):
        entry = tree.entry(path)
        assert (entry.path, entry.kind, entry.mode, entry.nlink) == (b"s/f", "file", 0o4755, 2)
        assert (entry.uid, entry.gid) == (7, 3_000_000_000)
        assert (entry.mtime_ns, entry.ctime_ns) == (-1, WHEN + 1)
        assert tree.attributes(path) == [("user.a", b"1"), (os.fsdecode(b"\xff"), b"2")]
        assert tree.parts(path) == []
    assert tree.entry(b"s/d").nlink == 1
    assert tree.entry(b"s/n").rdev == 259
    assert tree.entry(b"s/l").link_target == b"\xff"
    assert tree.attributes(b"s") == tree.attributes(b"s/d") == []


def test_names_that_are_none_are_not_shown(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.create()
    odd = [row(b".."), row(b"a//b"), row(b"."), row(b"x" * 256), row(b"nul\0"), row(b"fine")]
    tree = tree_of(store, [*odd, row("e", source=".."), row("e", source="a/b")], 10)
    assert tree.sources() == [b"s"]
    assert set(listed(tree, b"s")) == {b"fine"}


def test_links_that_go_in_circles_and_lost_first_names_are_errors(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.create()
    rows = [row("a", "hardlink", link_target=b"b"), row("b", "hardlink", link_target=b"a")]
    tree = tree_of(store, [*rows, row("c", "hardlink", link_target=b"gone")], 10)
    for path in (b"s/a", b"s/c"):
        with pytest.raises(FormatDamaged):
            tree.entry(path)


def test_a_manifest_that_is_gone_or_replaced_is_not_read_from_memory_for_long(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path))
    store.create()
    files = Filesystem(store, Retrieval(store, lambda serial: None))
    add_snapshot(store, DAY, [row("old", "dir"), row("old/a")])
    path = DAY.encode()
    assert [name for name, _, _ in files.names(path + b"/s")] == [b".", b"..", b"old"]
    tree = files._tree(path)
    os.unlink(store.manifest_path(DAY))
    with pytest.raises(FileNotFoundError):
        files.status(path + b"/s/old")
    with pytest.raises(OSError) as caught:
        list(tree.names(b"s/old"))
    assert caught.value.errno == errno.ESTALE
    add_snapshot(store, DAY, [row("new")])
    assert [name for name, _, _ in files.names(path + b"/s")] == [b".", b"..", b"new"]


@pytest.fixture
def damage(tmp_path: Path) -> Callable[[], SnapshotTree]:
    def make() -> SnapshotTree:
        store = Store(str(tmp_path))
        store.create()
        tree = tree_of(store, [row(f"{n:05}") for n in range(3000)], 1000)
        manifest = Path(store.manifest_path(DAY))
        data = bytearray(manifest.read_bytes())
        data[1000:1600] = bytes(600)
        manifest.write_bytes(data)
        return tree

    return make


def test_a_damaged_manifest_is_said_to_be(damage: Callable[[], SnapshotTree]) -> None:
    with pytest.raises(FormatDamaged):
        list(damage().names(b"s"))
