"""An archive that is being filled: what it takes, and that no short one passes."""

import os
from pathlib import Path

import pytest

from tasks.catalog import filling
from tasks.catalog.filling import Draft
from tasks.formats import tar

HEADER = tar.file_header(b"s/f", 0, 0o644, 0, 0, "", "", 0)


def test_an_empty_archive_takes_anything_and_a_full_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_MOST_MEMBERS", 3)
    draft = Draft(7, str(tmp_path / "draft"))
    assert draft.takes(10**9, 10_000)
    for _ in range(3):
        assert draft.takes(512, 10_000)
        draft.writer.add(HEADER)
    assert not draft.takes(512, 10_000)


def test_an_archive_is_described_as_it_lies_there(tmp_path: Path) -> None:
    draft = Draft(7, str(tmp_path / "draft"))
    draft.writer.add(HEADER)
    packed = draft.close("archives/x/0000000007.tar.lz4", str(tmp_path / "lists"))
    assert packed.number == "0000000007"
    assert packed.bytes == (tmp_path / "draft").stat().st_size
    assert (packed.members, packed.contents, packed.content_bytes) == (1, 0, 0)
    assert sorted(os.listdir(tmp_path)) == ["draft", "lists.contents.parquet", "lists.rows.parquet"]


def test_a_file_that_is_not_as_long_as_what_was_written_is_no_archive(tmp_path: Path) -> None:
    draft = Draft(7, str(tmp_path / "draft"))
    draft.writer.add(HEADER)
    draft.writer.bytes += 1
    with pytest.raises(OSError, match="not as long as what was written"):
        draft.close("archives/x/0000000007.tar.lz4", str(tmp_path / "lists"))
