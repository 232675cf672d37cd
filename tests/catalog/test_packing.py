"""What a packer leaves beside an archive is the same however much of it waited in memory."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.catalog import packing
from tasks.catalog.packing import ContentRecords, RowRecords
from tasks.formats.manifest import read_table

ARCHIVE = "archives/20260101T000000Z/0000000000.tar.lz4"
FRAMES = [0, 1000, 2500]


def saved(folder: Path, count: int) -> tuple[pa.Table, pa.Table, ContentRecords]:
    """Rows and contents of so many files: plain ones, sparse ones, duplicates, large ones."""
    rows, contents, facts = RowRecords(), ContentRecords(), os.stat(__file__)
    for number in range(count):
        digest = bytes([number]) * 32
        content, recipe = None, None
        if number % 5 == 1:
            stretches = [7, (number % 3, 10, 20, digest)]
            content = contents.add_sparse(digest, b"%d" % number, stretches)
        elif number % 5 == 2:
            recipe = [{"length": 9, "sha256": digest}, {"length": 1, "sha256": None}]
        elif number % 5 != 3:
            plain = facts if number % 2 else None
            content = contents.add(digest, b"%d" % number, (number % 3, number), 100, plain)
        rows.add(number, facts, digest, digest if number % 4 else None, content, recipe)
    rows.save(str(folder / "rows"))
    contents.save(str(folder / "contents"), ARCHIVE, FRAMES)
    return read_table(str(folder / "rows")), read_table(str(folder / "contents")), contents


@pytest.mark.parametrize("loose", [1, 2, 7, 23])
def test_records_are_the_same_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loose: int
) -> None:
    rows, contents, whole = saved(tmp_path, 23)
    monkeypatch.setattr(packing, "_LOOSE", loose)
    assert saved(tmp_path, 23)[:2] == (rows, contents)
    assert whole.count == contents.num_rows
    assert whole.volume == sum(contents["length"].to_pylist())


def test_a_content_lies_where_its_frame_begins(tmp_path: Path) -> None:
    _, contents, _ = saved(tmp_path, 5)
    assert contents["frame"].to_pylist() == [FRAMES[0], FRAMES[0], FRAMES[1]]
    assert contents["skip"].to_pylist() == [0, 0, 4]
    assert contents["archive"].unique().to_pylist() == [ARCHIVE]
    (parts,) = filter(None, contents["parts"].to_pylist())
    assert [(part["frame"], part["skip"], part["length"]) for part in parts] == [
        (None, None, 7),
        (FRAMES[1], 10, 20),
    ]


def test_no_archives_at_all_are_empty_lists(tmp_path: Path) -> None:
    rows, contents, _ = saved(tmp_path, 0)
    assert rows.num_rows == contents.num_rows == 0
