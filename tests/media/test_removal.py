"""A folder goes with all that is in it, and nothing else does."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.media.removal import remove_tree
from tests.helpers.compare import snapshot_of
from tests.helpers.program import NOBODY, REPOSITORY


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def grow(at: Path, depth: int) -> None:
    """Make folders in each other, with a file in each; their path is too long for the system."""
    fd = os.open(at, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("folder", dir_fd=fd)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        below = os.open("folder", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_tree_that_is_deeper_than_python_calls_or_open_files_goes(
    tmp_path: Path, parent: int
) -> None:
    (tmp_path / "deep").mkdir()
    grow(tmp_path / "deep", 2500)
    before = set(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 20, limits[1]))
    try:
        remove_tree(parent, "deep")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) <= before


def test_links_go_and_not_what_they_name(tmp_path: Path, parent: int) -> None:
    (tmp_path / "kept" / "below").mkdir(parents=True)
    (tmp_path / "kept" / "file").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(tmp_path / "kept")
    os.link(tmp_path / "kept" / "file", tree / "a" / "name")
    (tree / os.fsdecode(b"\xff")).mkdir()
    os.mkfifo(tree / "a" / "b" / "fifo")
    before = snapshot_of(tmp_path / "kept")
    remove_tree(parent, b"tree")
    assert os.listdir(tmp_path) == ["kept"]
    assert snapshot_of(tmp_path / "kept") == before


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path, parent: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "link").symlink_to("kept")
    with pytest.raises(OSError, match="Not a directory"):
        remove_tree(parent, "link")
    assert (tmp_path / "kept" / "file").exists()


def test_a_folder_that_is_moved_meanwhile_takes_nothing_else_with_it(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `..` leads to where others' folders of the same name may be."""
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "x").mkdir()
    scandir, deepest = os.scandir, (tmp_path / "tree" / "a" / "b").stat()

    def moved(fd: int) -> Any:
        if os.path.samestat(os.fstat(fd), deepest):
            (tmp_path / "tree" / "a" / "b").rename(tmp_path / "elsewhere" / "moved")
        return scandir(fd)

    monkeypatch.setattr(os, "scandir", moved)
    with pytest.raises(OSError, match="moved"):
        remove_tree(parent, "tree")
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["b", "moved", "x"]


def test_an_empty_folder_of_somebody_else_goes_from_ones_own(
    commons: Path, needs_root: None
) -> None:
    (commons / "another's").mkdir()
    (commons / "another's").chmod(0o555)
    code = f"""
import os
from tasks.media.removal import remove_tree
parent = os.open({str(commons)!r}, os.O_RDONLY)
os.setuid({NOBODY})
remove_tree(parent, "another's")
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    assert not os.listdir(commons)
