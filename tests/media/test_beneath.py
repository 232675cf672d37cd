"""Folders beneath a root are opened as they are now, whatever is kept open, and through no link."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.media.beneath import Folders
from tasks.media.safepaths import UnsafePathError

FOLDERS = [b"", b"a", b"a/b", b"a/b/c", b"a/b/d", b"a/e", b"f/b"]
DEEP = [b"a/b/c/g/h/i/j", b"a/b/c/g/h/k", b"a/b/c/g/h2", b"a/b/c/g", b"f/b/c/g/h/i/j"]
NO_FOLDER = r"Not a directory|Too many levels"


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    for folder in FOLDERS:
        (tmp_path / os.fsdecode(folder)).mkdir(parents=True, exist_ok=True)
    opened = Folders(os.fsencode(tmp_path))
    yield opened
    opened.forget()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(FOLDERS + DEEP), max_size=12))
def test_any_walk_leads_to_the_folders_that_were_asked_for(
    tmp_path_factory: pytest.TempPathFactory, walk: list[bytes]
) -> None:
    root = os.fsencode(tmp_path_factory.mktemp("beneath"))
    for folder in FOLDERS + DEEP:
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    folders, before = Folders(root), open_files()
    for folder in walk:
        assert os.path.samestat(os.fstat(folders.go_to(folder)), os.stat(root + b"/" + folder))
        assert open_files() <= before + 2
    folders.forget()
    assert open_files() == before


@pytest.mark.parametrize("link", [b"a", b"a/b", b"a/b/c"])
def test_no_link_is_followed(folders: Folders, tmp_path: Path, link: bytes) -> None:
    place = tmp_path / os.fsdecode(link)
    shutil.rmtree(place)
    place.symlink_to(tmp_path / "f")
    with pytest.raises(OSError, match=NO_FOLDER):
        folders.go_to(b"a/b/c")
    with pytest.raises(OSError, match=NO_FOLDER):
        folders.open(b"a/b/c")


def test_a_folder_that_was_made_anew_is_the_one_that_is_opened(
    folders: Folders, tmp_path: Path
) -> None:
    """Whoever removes a folder has gone to the one that it lies in."""
    folders.go_to(b"a/b")
    folders.go_to(b"")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a" / "b").mkdir(parents=True)
    found = os.fstat(folders.go_to(b"a/b"))
    assert os.path.samestat(found, os.stat(tmp_path / "a" / "b"))
    assert found.st_nlink > 0


@pytest.mark.parametrize("to", ["elsewhere", "root/f"])
def test_the_way_up_does_not_lead_out_where_a_folder_was_moved(tmp_path: Path, to: str) -> None:
    """Its `..` is another one by then, and may have folders of the same names."""
    root, deep = tmp_path / "root", "a/b/c/d/e/f/g/h"
    (tmp_path / "elsewhere" / "other").mkdir(parents=True)
    for path in (deep, "a/b/c/d/other", "f/other"):
        (root / path).mkdir(parents=True)
    folders = Folders(os.fsencode(root))
    folders.go_to(os.fsencode(deep))
    (root / "a/b/c/d/e").rename(tmp_path / to / "e")
    found = os.fstat(folders.go_to(b"a/b/c/d/other"))
    assert os.path.samestat(found, os.stat(root / "a/b/c/d/other"))
    folders.forget()


def test_the_way_from_one_folder_to_the_next_is_short_however_deep_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = b"/".join([b"d"] * 300)
    os.makedirs(os.path.join(os.fsencode(tmp_path), deep))
    folders, opened, true_open = Folders(os.fsencode(tmp_path)), 0, os.open

    def count(*args: Any, **options: Any) -> int:
        nonlocal opened
        opened += 1
        return true_open(*args, **options)

    folders.go_to(deep[:1])
    monkeypatch.setattr(os, "open", count)
    ways = [deep[: 2 * depth + 1] for depth in range(300)]
    for path in (*ways, *reversed(ways)):
        folders.go_to(path)
    assert opened < 2 * 310
    folders.forget()


@pytest.mark.parametrize("kept", ["fd", "_above_fd"])
@pytest.mark.parametrize("then", [Folders.forget, lambda folders: folders.go_to(b"f/b")])
def test_a_folder_is_closed_once_where_a_signal_cuts_in(
    monkeypatch: pytest.MonkeyPatch,
    folders: Folders,
    kept: str,
    then: Callable[[Folders], object],
) -> None:
    folders.go_to(b"a/b")
    close, left = os.close, getattr(folders, kept)

    def stop(fd: int) -> None:
        close(fd)
        if fd == left:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", stop)
    with pytest.raises(KeyboardInterrupt):
        then(folders)
    folders.forget()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(left)


@pytest.mark.parametrize(
    "path", [b"/", b"/a", b"/a/b", b"a/", b"a//b", b"..", b"a/../f", b"a/.", b"\0"]
)
def test_what_leads_out_is_refused(folders: Folders, path: bytes) -> None:
    with pytest.raises(UnsafePathError):
        folders.go_to(path)
    with pytest.raises(UnsafePathError):
        folders.open(path)
