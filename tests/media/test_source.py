"""The walk: everything once, in manifest order; what is left out is told from what fails."""

import contextlib
import os
import socket
import subprocess
import sys
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.media.source import Found, Walk, data_extents, open_beneath
from tasks.model.profile import Source
from tests.conftest import MakeVolume
from tests.helpers.compare import snapshot_of
from tests.helpers.trees import funny_farm
from tests.strategies import Tree, materialise, trees

CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# a comment\n"


def walk(root: Path, **rules: Any) -> Walk:
    return Walk(Source(path=str(root), name="s", **rules), os.fsencode(root), [])


def all_of(walked: Walk) -> Iterator[Found]:
    for found in walked.entries(walked.outline(1, 1)):
        assert len(found.paths) == len(found.stats) == len(found.targets) == len(found.xattrs)
        yield found


def paths(walked: Walk) -> list[bytes]:
    return [path for found in all_of(walked) for path in found.paths]


def in_order(root: Path, names: list[bytes]) -> list[bytes]:
    """Sort as the manifest does: raw bytes, with a slash behind directories."""

    def key(path: bytes) -> bytes:
        full = os.path.join(os.fsencode(root), path)
        is_folder = os.path.isdir(full) and not os.path.islink(full)
        return path + b"/" * is_folder

    return sorted(names, key=key)


def make(root: Path, *names: str) -> None:
    """Make files, and folders where the name ends in a slash."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())


def test_entries_come_in_the_order_of_the_manifest(source: Path) -> None:
    make(source, "a/x", "a/-", "a!", "a-b", "a.b", "a0", "ab", "a.d/", "a.d/z", "A", "b/", "z/y/x")
    found = paths(walk(source))
    assert found == in_order(source, found)
    assert found.index(b"a!") < found.index(b"a.b") < found.index(b"a") < found.index(b"a0")


@settings(max_examples=40)
@given(trees(max_entries=14))
def test_any_tree_is_walked_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree
) -> None:
    root = tmp_path_factory.mktemp("walk")
    materialise(tree, root)
    walked = walk(root)
    found = paths(walked)
    if os.geteuid() == 0:
        assert sorted(found) == sorted(tree)
        assert walked.unread == []
    assert found == in_order(root, found)


def test_a_farm_of_odd_things_is_walked_whole(tmp_path: Path) -> None:
    funny_farm(tmp_path / "farm", sockets=True)
    walked = walk(tmp_path / "farm")
    expected = snapshot_of(tmp_path / "farm")
    sockets = {path for path, facts in expected.items() if facts.kind == "socket"}
    found = {}
    for part in all_of(walked):
        facts = zip(part.paths, part.stats, part.targets, part.xattrs, strict=True)
        found.update({path: rest for path, *rest in facts})
    if os.geteuid() == 0:
        assert walked.unread == []
        assert set(found) == set(expected) - sockets - {b""}
    assert set(walked.sockets) == sockets
    for path, (status, target, xattrs) in found.items():
        facts = expected[path]
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (facts.mode, facts.mtime_ns)
        assert (target or b"") == facts.target
        assert tuple(xattrs or ()) == facts.xattrs


def test_an_attribute_of_any_name_is_kept(source: Path) -> None:
    from tasks.catalog.entryrows import EntryRows

    make(source, "a")
    try:
        os.setxattr(os.fsencode(source / "a"), b"user.caf\xe9", b"x")
    except OSError:
        pytest.skip("the file system keeps no such attributes")
    (found,) = all_of(walk(source))
    (row,) = EntryRows("s").batch(found).column("xattrs").to_pylist()
    assert len(row) == 1


@settings(max_examples=60)
@given(
    trees(max_entries=14),
    st.integers(1, 14),
    st.integers(1, 14),
    st.integers(0, 14),
    st.integers(1, 9),
)
def test_a_walk_that_is_cut_in_two_finds_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, share: int, most: int, cut: int, wide: int
) -> None:
    root = tmp_path_factory.mktemp("walk")
    materialise(tree, root)
    with unittest.mock.patch("tasks.media.source._WIDE", wide):
        walked = walk(root)
        outline = walked.outline(share, most)
        halves = [walked.branch().entries(half) for half in (outline[:cut], outline[cut:])]
        parted = [path for half in halves for found in half for path in found.paths]
    whole = paths(walk(root))
    assert parted == whole == in_order(root, whole)


WIDE = """
import os, resource, sys
from tasks.media.source import Walk
from tasks.model.profile import Source
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
walk, before = Walk(Source(path=sys.argv[1], name="s"), os.fsencode(sys.argv[1]), []), peak()
count = sum(len(found.paths) for found in walk.entries(walk.outline(64, 1000)))
print(count, peak() - before)
"""


def test_of_a_wide_folder_only_the_names_are_all_known_at_once(source: Path) -> None:
    """What lstat says of 60,000 entries takes 60 MB, and a folder may have a million."""
    for number in range(60_000):
        os.mknod(source / f"{number:08}")
    script = [sys.executable, "-c", WIDE, str(source)]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    count, growth = map(int, done.stdout.split())
    assert count == 60_000
    assert growth < 45e6


def test_what_is_met_twice_in_a_wide_folder_is_told_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.media.source._WIDE", 3)
    make(source, *"abcde")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(source):
        listener.bind("0")
    walked = walk(source)
    assert paths(walked) == [b"a", b"b", b"c", b"d", b"e"]
    assert walked.sockets == [b"0"]


def test_what_turns_from_a_file_into_a_folder_meanwhile_is_not_read(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place in the order is another, and the manifest has to be in order."""
    make(source, "a", "b", "c/d")
    walked, stat = walk(source), os.stat

    def late(name: Any, **how: Any) -> os.stat_result:
        return stat({b"b": b"c", b"c": b"b"}.get(name, name), **how)

    monkeypatch.setattr(os, "stat", late)
    assert paths(walked) == [b"a"]
    assert [(u.path, u.reason) for u in walked.unread] == [
        (b"b", "It changed while it was looked at"),
        (b"c", "It changed while it was looked at"),
    ]


def test_a_walk_comes_in_pieces_that_keep_the_order(source: Path) -> None:
    for folder in range(17):
        make(source, *(f"{folder:02}/{name:04}" for name in range(1000)))
    pieces = list(all_of(walk(source)))
    assert len(pieces) > 1
    found = [path for piece in pieces for path in piece.paths]
    assert len(found) == 17_017
    assert found == sorted(found)


@pytest.mark.parametrize("on", [True, False])
def test_a_folder_with_a_cache_tag_is_kept_empty_where_wanted(source: Path, on: bool) -> None:
    make(source, "cache/data", "cache/deep/data", "fake/data", "plain/data")
    (source / "cache" / "CACHEDIR.TAG").write_bytes(CACHE_TAG)
    (source / "fake" / "CACHEDIR.TAG").write_bytes(b"Signature: none")
    found = set(paths(walk(source, exclude_caches=on)))
    assert b"cache" in found
    assert (b"cache/data" in found, b"cache/deep/data" in found) == (not on, not on)
    assert {b"fake/data", b"fake/CACHEDIR.TAG", b"plain/data"} <= found


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "empty"])
def test_what_is_no_cache_tag_leaves_nothing_out(source: Path, tmp_path: Path, kind: str) -> None:
    make(source, "x/data")
    tag = source / "x" / "CACHEDIR.TAG"
    if kind == "folder":
        tag.mkdir()
    elif kind == "fifo":
        os.mkfifo(tag)
    elif kind == "link":
        (tmp_path / "tag").write_bytes(CACHE_TAG)
        tag.symlink_to(tmp_path / "tag")
    else:
        tag.write_bytes(b"")
    assert b"x/data" in paths(walk(source, exclude_caches=True))


def test_a_folder_with_a_marker_is_kept_empty(source: Path) -> None:
    make(source, "a/.nobackup", "a/data", "a/b/data", "c/data", "c/nobackup", "d/skip me/x")
    found = set(paths(walk(source, exclude_if_present=[".nobackup", "skip me"])))
    assert found == {b"a", b"c", b"c/data", b"c/nobackup", b"d"}


def test_a_marker_in_the_source_itself_does_not_empty_it(source: Path) -> None:
    make(source, ".nobackup", "data")
    assert b"data" in paths(walk(source, exclude_if_present=[".nobackup"], exclude_caches=True))


def test_another_file_system_is_kept_as_an_empty_folder(
    source: Path, loop_volume: MakeVolume
) -> None:
    volume = loop_volume(4)
    make(source, "here/data", "mounted/")
    (volume / "data").write_bytes(b"there")
    try:
        subprocess.run(["mount", "--bind", volume, source / "mounted"], check=True)
        one = set(paths(walk(source, one_file_system=True)))
        both = set(paths(walk(source)))
    finally:
        subprocess.run(["umount", source / "mounted"], check=False)
    assert one == {b"here", b"here/data", b"mounted"}
    assert both >= one | {b"mounted/data"}


def test_the_own_state_is_kept_as_an_empty_folder(source: Path) -> None:
    make(source, "workspace/state/home/lock", "workspace/profiles/home.toml", "z")
    state = os.stat(source / "workspace" / "state")
    walked = Walk(
        Source(path=str(source), name="s"), os.fsencode(source), [(state.st_dev, state.st_ino)]
    )
    assert paths(walked) == [
        b"workspace",
        b"workspace/profiles",
        b"workspace/profiles/home.toml",
        b"workspace/state",
        b"z",
    ]


def deepen(root: Path, depth: int) -> bytes:
    """Make folders of 200 bytes, one in the other, with a file at the bottom; return its path."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    names = [b"%03d" % number + b"d" * 197 for number in range(depth)]
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open(b"bottom", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, b"deep down")
    os.close(file)
    os.symlink(b"bottom", b"link", dir_fd=fd)
    os.close(fd)
    return b"/".join([*names, b"bottom"])


@pytest.mark.parametrize("depth", [16, 17, 18, 19, 30])
def test_paths_longer_than_the_kernel_takes_are_walked_and_opened(source: Path, depth: int) -> None:
    bottom = deepen(source, depth)
    walked = walk(source)
    assert bottom in paths(walked)
    assert walked.unread == []
    fd = open_beneath(os.fsencode(source), bottom, os.O_RDONLY)
    assert os.read(fd, 100) == b"deep down"
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    for wrong in (bottom + b"x", b"x/" + bottom):
        with pytest.raises(FileNotFoundError):
            open_beneath(os.fsencode(source), wrong, os.O_RDONLY)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def as_another_user(commons: Path) -> Iterator[Path]:
    """A folder of a user without rights, as whom this process runs meanwhile."""
    if os.geteuid() != 0:
        yield commons
        return
    os.seteuid(65534)
    try:
        yield commons
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_read_is_reported_and_the_rest_is_kept(
    as_another_user: Path,
) -> None:
    root = as_another_user
    make(root, "a/x", "b/locked/x", "b/z", "c/x")
    (root / "b" / "locked").chmod(0)
    walked = walk(root)
    assert paths(walked) == [b"a", b"a/x", b"b", b"b/locked", b"b/z", b"c", b"c/x"]
    (unread,) = walked.unread
    assert (unread.path, unread.folder) == (b"b/locked", True)
    assert "Permission" in unread.reason


def test_a_folder_that_may_be_listed_and_not_entered_is_reported_name_by_name(
    as_another_user: Path,
) -> None:
    root = as_another_user
    make(root, "locked/x", "locked/y", "z")
    (root / "locked").chmod(0o400)
    walked = walk(root)
    assert paths(walked) == [b"locked", b"z"]
    assert sorted(unread.path for unread in walked.unread) == [b"locked/x", b"locked/y"]


def test_a_folder_that_vanishes_on_the_way_is_reported(source: Path) -> None:
    make(source, *(f"{folder}/{name:05}" for folder in "ab" for name in range(8500)), "c/x")
    walked = walk(source)
    pieces = walked.entries(walked.outline(1, 1))
    next(pieces)
    (source / "c" / "x").unlink()
    (source / "c").rmdir()
    rest = [path for piece in pieces for path in piece.paths]
    assert rest[-1] == b"c"
    assert [unread.path for unread in walked.unread] == [b"c"]


def test_a_link_in_place_of_a_folder_is_never_followed(source: Path, tmp_path: Path) -> None:
    make(source, *(f"a/{name:05}" for name in range(17_000)), "z/x")
    make(tmp_path, "elsewhere/secret")
    walked = walk(source)
    pieces = walked.entries(walked.outline(1, 1))
    next(pieces)
    (source / "z" / "x").unlink()
    (source / "z").rmdir()
    (source / "z").symlink_to(tmp_path / "elsewhere")
    assert b"z/secret" not in [path for piece in pieces for path in piece.paths]
    assert [unread.path for unread in walked.unread] == [b"z"]


def test_a_source_may_itself_be_a_link(source: Path, tmp_path: Path) -> None:
    make(source, "a")
    (tmp_path / "link").symlink_to(source)
    assert paths(walk(tmp_path / "link")) == [b"a"]


def test_sockets_are_told_apart(source: Path) -> None:
    make(source, "a")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(source / "s"))
        walked = walk(source)
        assert paths(walked) == [b"a"]
    assert walked.sockets == [b"s"]
    assert walked.unread == []


def test_no_descriptor_is_left_open(source: Path) -> None:
    make(source, "a/b/c/d", "a/e/f", "g/h")
    before = len(os.listdir("/proc/self/fd"))
    paths(walk(source, exclude_caches=True, exclude_if_present=["x"]))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    "written",
    [[], [(0, 4096)], [(1 << 20, 5000)], [(0, 1), (1 << 20, 70_000), (3 << 20, 4096)]],
)
def test_extents_cover_all_data_and_holes_are_zeros(
    tmp_path: Path, written: list[tuple[int, int]]
) -> None:
    size = 4 << 20
    expected = bytearray(size)
    with (tmp_path / "sparse").open("wb") as file:
        for offset, length in written:
            data = os.urandom(length)
            file.seek(offset)
            file.write(data)
            expected[offset : offset + length] = data
        file.truncate(size)
    fd = os.open(tmp_path / "sparse", os.O_RDONLY)
    try:
        extents = data_extents(fd, size)
        found = bytearray(size)
        for offset, length in extents:
            found[offset : offset + length] = os.pread(fd, length, offset)
    finally:
        os.close(fd)
    assert found == expected
    assert extents == sorted(extents)
    assert sum(length for _, length in extents) <= size
