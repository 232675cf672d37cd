"""Restoring never leaves its folder, whatever a catalog says or somebody planted there."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.media.destination import Destination
from tasks.media.draft import shared_path
from tasks.media.metadata import Facts
from tasks.media.safepaths import UnsafePathError
from tests.helpers.compare import snapshot_of

WHEN = 1_234_567_890_123_456_789
Deed = Callable[[Destination, bytes], object]


def facts(mode: int = 0o644, **more: object) -> Facts:
    given = {"uid": os.geteuid(), "gid": os.getegid(), "mtime_ns": WHEN, "xattrs": []}
    return Facts(mode=mode, **(given | more))  # type: ignore[arg-type]


def write(place: Destination, path: bytes, data: bytes = b"new", **more: object) -> None:
    place.write_file(path, [data]).publish(facts(**more))  # type: ignore[arg-type]


def write_shared(place: Destination, path: bytes) -> None:
    os.close(place.open_shared(path, b"digest"))
    place.shared_draft(path, b"digest").publish(facts())


DEEDS: dict[str, Deed] = {
    "file": write,
    "shared file": write_shared,
    "folder": Destination.make_folder,
    "symlink": lambda place, path: place.make_symlink(path, b"target", facts()),
    "fifo": lambda place, path: place.make_special(path, "fifo", 0, facts()),
    "hard link": lambda place, path: place.make_hardlink(path, b"first"),
    "hard link to it": lambda place, path: place.make_hardlink(b"other", path),
    "settling": lambda place, path: place.settle_folder(path, facts(0o700)),
    "removal": Destination.remove,
}
MAKERS = ("file", "shared file", "folder", "symlink", "fifo", "hard link")

each_deed = pytest.mark.parametrize("deed", DEEDS.values(), ids=list(DEEDS))
each_maker = pytest.mark.parametrize("maker", MAKERS)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the destination, which nothing may touch."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_bytes(b"precious")
    (folder / "folder" / "file").write_bytes(b"precious")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "dest"
    folder.mkdir()
    (folder / "first").write_bytes(b"first")
    return folder


@pytest.fixture
def place(root: Path) -> Iterator[Destination]:
    place = Destination(os.fsencode(root))
    yield place
    place.forget_parent()


@each_deed
@pytest.mark.parametrize(
    "path",
    [
        b"..",
        b"../outside",
        b"../outside/file",
        b"a/../../outside/file",
        b"a/..",
        b".",
        b"",
        b"/",
        b"a//b",
        b"a/./b",
        b"a/",
        b"nul\0byte",
        b"/etc/cartridge-test",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    root: Path, place: Destination, outside: Path, deed: Deed, path: bytes
) -> None:
    (root / "a").mkdir()
    before = snapshot_of(outside), snapshot_of(root)
    if deed is DEEDS["settling"] and path == b"":
        pytest.skip("the destination itself may be settled")
    with pytest.raises(UnsafePathError):
        deed(place, path)
    assert (snapshot_of(outside), snapshot_of(root)) == before
    assert not os.path.exists("/etc/cartridge-test")


@each_deed
@pytest.mark.parametrize("target", ["../outside", "{outside}", "."])
def test_a_planted_link_as_a_parent_is_not_followed(
    root: Path, place: Destination, outside: Path, deed: Deed, target: str
) -> None:
    (root / "a").symlink_to(target.format(outside=outside))
    before = snapshot_of(outside)
    for path in (b"a/file", b"a/new", b"a/folder", b"a/folder/file"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            deed(place, path)
    assert snapshot_of(outside) == before


@each_maker
@pytest.mark.parametrize("target", ["../outside/file", "../outside/folder", "../outside/new"])
def test_a_planted_link_in_place_of_an_entry_gives_way(
    root: Path, place: Destination, outside: Path, maker: str, target: str
) -> None:
    (root / "x").symlink_to(target)
    before = snapshot_of(outside)
    DEEDS[maker](place, b"x")
    assert snapshot_of(outside) == before
    assert maker == "symlink" or not (root / "x").is_symlink()


def test_a_planted_link_to_a_folder_is_not_settled(
    root: Path, place: Destination, outside: Path
) -> None:
    (root / "x").symlink_to("../outside/folder")
    before = snapshot_of(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        place.settle_folder(b"x", facts(0o777))
    assert snapshot_of(outside) == before


def test_a_planted_hard_link_in_place_of_a_file_is_replaced_and_not_written_through(
    root: Path, place: Destination, outside: Path
) -> None:
    os.link(outside / "file", root / "x")
    write(place, b"x", mode=0o600)
    assert (outside / "file").read_bytes() == b"precious"
    assert stat.S_IMODE((outside / "file").stat().st_mode) != 0o600
    assert (root / "x").read_bytes() == b"new"


LEFT = (".cartridge-0123abcd-part-1.tmp", ".cartridge-0123abcd-77-1.tmp")


def test_what_a_killed_restore_left_is_swept_away_and_gets_into_no_file(
    root: Path, place: Destination, outside: Path
) -> None:
    (root / "d").mkdir()
    os.link(outside / "file", root / "d" / LEFT[0])
    (root / "d" / LEFT[1]).symlink_to("../../outside/file")
    (root / "d" / ".cartridge-mine.tmp").write_bytes(b"not a draft")
    place.make_folder(b"d")
    os.close(place.open_shared(b"d/x", b"digest"))
    draft = place.shared_draft(b"d/x", b"digest")
    os.ftruncate(draft.fd, 20)
    draft.publish(facts())
    assert sorted(os.listdir(root / "d")) == [".cartridge-mine.tmp", "x"]
    assert (root / "d" / "x").read_bytes() == bytes(20)
    assert (outside / "file").read_bytes() == b"precious"


def test_two_restores_never_share_a_draft(root: Path, place: Destination) -> None:
    other = Destination(os.fsencode(root))
    first = other.write_file(b"y", [b"other"])
    write(place, b"y")
    assert (root / "y").read_bytes() == b"new"
    first.publish(facts())
    assert (root / "y").read_bytes() == b"other"
    assert sorted(os.listdir(root)) == ["first", "y"]


def test_only_one_restore_is_at_work_in_a_folder(root: Path, place: Destination) -> None:
    with place.alone(), pytest.raises(BlockingIOError), Destination(os.fsencode(root)).alone():
        pass
    with Destination(os.fsencode(root)).alone():
        pass


def test_parts_of_a_file_stay_for_a_later_restore_of_the_same_content(
    root: Path, place: Destination
) -> None:
    place.make_folder(b"d")
    os.close(place.open_shared(b"d/x", b"digest"))
    left = Destination(os.fsencode(root)).make_folder(b"d").names
    assert left == {shared_path(b"d/x", b"digest").removeprefix(b"d/")}
    assert left.isdisjoint({shared_path(b"d/x", b"other").removeprefix(b"d/")})
    place.drop_shared(b"d/x", b"digest")
    assert os.listdir(root / "d") == []


def test_a_folder_that_is_called_like_a_draft_does_no_harm(root: Path, place: Destination) -> None:
    (root / "d" / LEFT[0]).mkdir(parents=True)
    place.make_folder(b"d")
    write(place, b"d/x")


@each_maker
@pytest.mark.parametrize("old", ["file", "empty folder", "symlink", "fifo", "dangling"])
def test_what_is_in_the_way_gives_way(root: Path, place: Destination, maker: str, old: str) -> None:
    path = root / "x"
    if old == "file":
        path.write_bytes(b"old")
    elif old == "empty folder":
        path.mkdir()
    elif old == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("first" if old == "symlink" else "nowhere")
    DEEDS[maker](place, b"x")
    mode = path.lstat().st_mode
    kinds = {"folder": stat.S_ISDIR, "symlink": stat.S_ISLNK, "fifo": stat.S_ISFIFO}
    assert kinds.get(maker, stat.S_ISREG)(mode)
    assert (root / "first").read_bytes() == b"first"
    assert not [name for name in os.listdir(root) if name.endswith(".tmp")]


@each_maker
def test_a_folder_that_is_not_empty_never_goes_by_itself(
    root: Path, place: Destination, maker: str
) -> None:
    (root / "x").mkdir()
    (root / "x" / "kept").write_bytes(b"kept")
    if maker == "folder":
        place.make_folder(b"x")
    else:
        with pytest.raises(OSError, match="not empty"):
            DEEDS[maker](place, b"x")
    assert (root / "x" / "kept").read_bytes() == b"kept"
    assert not [name for name in os.listdir(root) if name.endswith(".tmp")]


@pytest.mark.parametrize("name", [b"n" * 255, "\N{SNOWMAN}".encode() * 85, b"\xff" * 255])
def test_names_as_long_as_the_system_takes_are_written(
    root: Path, place: Destination, name: bytes
) -> None:
    place.make_folder(name)
    for inner in (name + b"/" + name, name + b"/f"):
        write(place, inner)
    write_shared(place, name + b"/" + name)
    for kind in ("symlink", "fifo"):
        DEEDS[kind](place, name + b"/" + name)
    os.link(root / "first", os.path.join(os.fsencode(root), name, b"l"))
    assert len(os.listdir(os.path.join(os.fsencode(root), name))) == 3


def test_paths_longer_than_the_kernel_takes_are_written(root: Path, place: Destination) -> None:
    path = b""
    for number in range(25):
        path = path + b"/" * bool(path) + b"%03d" % number + b"d" * 197
        place.make_folder(path)
    write(place, path + b"/file", b"deep down")
    place.make_symlink(path + b"/link", b"file", facts())
    place.make_hardlink(path + b"/twin", path + b"/file")
    place.settle_folder(path, facts(0o500))
    found = snapshot_of(root)
    assert found[path + b"/file"].size == 9
    assert found[path + b"/twin"].group == path + b"/file"
    assert found[path].mode == 0o500
    assert path + b"/twin" in [listed for listed, _ in place.entries()]


def test_a_file_appears_whole_with_its_facts(root: Path, place: Destination) -> None:
    draft = place.write_file(b"x", [b"one", b"two"])
    assert not (root / "x").exists()
    draft.publish(facts(0o4750, xattrs=[("user.a", b"\0b")]))
    status = (root / "x").stat()
    assert (root / "x").read_bytes() == b"onetwo"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o4750, WHEN)
    if not place.not_kept:
        assert os.getxattr(root / "x", "user.a") == b"\0b"


def test_a_draft_that_is_discarded_leaves_the_old_file(root: Path, place: Destination) -> None:
    place.write_file(b"first", [b"half"]).discard()

    def fails() -> object:
        yield memoryview(b"half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        place.write_file(b"first", fails())  # type: ignore[arg-type]
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {"first": b"first"}


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_links_and_specials_get_their_facts(root: Path, place: Destination, kind: str) -> None:
    DEEDS[kind](place, b"x")
    assert (root / "x").lstat().st_mtime_ns == WHEN


def test_a_folder_may_be_written_into_until_it_is_settled(root: Path, place: Destination) -> None:
    (root / "d").mkdir(mode=0o000)
    place.make_folder(b"d")
    write(place, b"d/x")
    place.settle_folder(b"d", facts(0o555))
    status = (root / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o555, WHEN)


def test_owners_come_back_for_root(root: Path, place: Destination, needs_root: None) -> None:
    write(place, b"x", uid=12345, gid=54321)
    place.make_symlink(b"l", b"x", facts(uid=12345, gid=54321))
    place.make_folder(b"d")
    place.settle_folder(b"d", facts(0o2775, uid=12345, gid=54321))
    for name in ("x", "l", "d"):
        status = (root / name).lstat()
        assert (status.st_uid, status.st_gid) == (12345, 54321)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o2775


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo"])
def test_a_group_does_not_come_from_the_folder_above(
    root: Path, place: Destination, needs_root: None, kind: str
) -> None:
    (root / "d").mkdir()
    os.chown(root / "d", 0, 54321)
    (root / "d").chmod(0o2775)
    DEEDS[kind](place, b"d/x")
    assert (root / "d" / "x").lstat().st_gid == 0


def test_access_lists_do_not_come_from_the_folder_above(root: Path, place: Destination) -> None:
    (root / "d").mkdir()
    entries = [(1, 7, -1), (2, 7, 12345), (4, 7, -1), (16, 7, -1), (32, 7, -1)]
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little")
        + rights.to_bytes(2, "little")
        + (who % 2**32).to_bytes(4, "little")
        for tag, rights, who in entries
    )
    try:
        os.setxattr(root / "d", "system.posix_acl_default", value)
    except OSError:
        pytest.skip("the file system keeps no access lists")
    write(place, b"d/x", mode=0o600)
    assert os.listxattr(root / "d" / "x") == []


def test_what_the_place_cannot_keep_is_counted(root: Path, place: Destination) -> None:
    write(place, b"x", xattrs=[("nonsense.name", b"x"), ("user." + "n" * 250, b"x")])
    assert (root / "x").read_bytes() == b"new"
    assert place.not_kept["attributes"] >= 1


def test_removal_takes_all_below_and_follows_no_link(
    root: Path, place: Destination, outside: Path
) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "link").symlink_to(outside)
    (root / "l").symlink_to(outside / "folder")
    place.remove(b"d")
    place.remove(b"l")
    assert os.listdir(root) == ["first"]
    assert len(snapshot_of(outside)) == 4


def test_entries_are_listed_without_following_links(
    root: Path, place: Destination, outside: Path
) -> None:
    (root / "d").mkdir()
    (root / "d" / "x").write_bytes(b"")
    (root / "d" / "link").symlink_to(outside)
    found = [(b"d", True), (b"d/link", False), (b"d/x", False), (b"first", False)]
    assert list(place.entries()) == found


def test_few_descriptors_are_open(root: Path, place: Destination) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        place.make_folder(b"%d" % number)
        write(place, b"%d/x" % number)
        place.settle_folder(b"%d" % number, facts(0o755))
    place.forget_parent()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_nothing_is_held_open_when_a_restore_has_ended(root: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    place = Destination(os.fsencode(root))
    with place.alone():
        place.make_folder(b"d")
        write(place, b"d/f", b"content")
        place.settle_folder(b"d", facts(0o755))
    assert set(os.listdir("/proc/self/fd")) <= before
