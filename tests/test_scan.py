"""The scan: the same rows, however many processes walk."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from tasks import scan
from tasks.media.source import Walk
from tasks.model.profile import Source
from tasks.model.words import ScanSummary
from tests.helpers.rows import Row, read
from tests.helpers.trees import funny_farm


@pytest.fixture(autouse=True)
def _small_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the walk out after a few entries, not some thousands."""
    monkeypatch.setattr(scan, "_OUTLINE", 3)
    monkeypatch.setattr(scan, "_PIECES", 5)


def scanned(root: Path, folder: Path, workers: int) -> tuple[ScanSummary, list[Row]]:
    """Scan a tree; return what the footer says, and the rows."""
    (folder / "state").mkdir(parents=True)
    file = str(folder / "rows.parquet")
    source = Source(path=str(root), name="s")
    seen: list[int] = []
    summary = scan.scan(source, str(folder), file, seen.append, workers)
    rows = read(file)
    assert sum(seen) == summary.root.entries == len(rows)
    assert sorted(os.listdir(folder)) == ["rows.parquet", "state"]
    return summary, rows


@pytest.mark.parametrize("workers", [2, 5])
def test_several_processes_find_what_one_finds(tmp_path: Path, workers: int) -> None:
    funny_farm(tmp_path / "farm")
    for folder in range(30):
        (tmp_path / "farm" / "wide" / str(folder)).mkdir(parents=True)
        (tmp_path / "farm" / "wide" / str(folder) / "file").write_text("x")
    alone = scanned(tmp_path / "farm", tmp_path / "one", 1)
    shared = scanned(tmp_path / "farm", tmp_path / "several", workers)
    assert shared == alone


def test_names_of_one_file_are_links_to_the_first_whoever_met_them(tmp_path: Path) -> None:
    for folder in "edcba":
        (tmp_path / "tree" / folder / "deep").mkdir(parents=True)
    first = tmp_path / "tree" / "e" / "deep" / "x"
    first.write_text("content")
    for folder in "dcba":
        os.link(first, tmp_path / "tree" / folder / "deep" / "x")
    summary, rows = scanned(tmp_path / "tree", tmp_path / "w", 3)
    kinds = {row["path"]: (row["type"], row["link_target"]) for row in rows if row["type"] != "dir"}
    assert kinds.pop("a/deep/x") == ("file", None)
    assert set(kinds.values()) == {("hardlink", b"a/deep/x")}
    assert (summary.root.files, summary.bytes) == (1, 7)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_full_disk_in_the_middle_of_a_walk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    for folder in range(30):
        (tmp_path / "tree" / str(folder) / "below").mkdir(parents=True)
    monkeypatch.setattr(scan, "TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115  # the scan closes it
    with pytest.raises(OSError, match="No space left"):
        scanned(tmp_path / "tree", tmp_path / "w", workers)
    assert os.listdir(tmp_path / "w") == ["state"]
    assert not multiprocessing.active_children()


def test_troubles_and_sockets_are_told_whoever_met_them(tmp_path: Path) -> None:
    for folder in "abcdef":
        (tmp_path / "tree" / folder / "deep").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(tmp_path / "tree" / "b" / "deep" / "s"))
        other.bind(str(tmp_path / "tree" / "f" / "s"))
        summary, _ = scanned(tmp_path / "tree", tmp_path / "w", 3)
    assert sorted(summary.sockets) == ["s/b/deep/s", "s/f/s"]


def test_an_even_tree_is_shared_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_PIECES", 8)
    for number in range(20 * 10 * 5):
        folder = tmp_path / str(number % 20) / str(number % 200)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).touch()
    walk = Walk(Source(path=str(tmp_path), name="s"), os.fsencode(tmp_path), [])
    pieces = scan._pieces(walk.outline(8, 150))
    sizes = [sum(len(found.paths) for found in walk.entries(piece)) for piece in pieces]
    assert sum(sizes) == 20 + 200 + 1000
    assert len(pieces) > 5
    assert max(sizes) <= 2 * min(sizes[:-1])
