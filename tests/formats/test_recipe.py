"""A recipe is a tar in LZ4 frames, in the order in which it was put together."""

import io
import random
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from tasks.formats.recipe import RecipeWriter

MIB = 1 << 20


def test_files_larger_than_a_frame_come_in_order(tmp_path: Path) -> None:
    """Some are quick to compress and some are not."""
    chance = random.Random(1)
    contents = [
        chance.randbytes(5 * MIB) if number % 3 else bytes(7 * MIB) + b"end" for number in range(9)
    ]
    whole = tmp_path / "recipe.tar.lz4"
    with whole.open("wb") as file, RecipeWriter(file) as writer:
        writer.add("plan", b"first")
        for number, content in enumerate(contents):
            (tmp_path / "one").write_bytes(content)
            writer.add_file(f"names/{number}", str(tmp_path / "one"))
    text = subprocess.run(["lz4", "-dc", whole], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(text)) as found:
        names = found.getnames()
        assert names == ["plan", *(f"names/{number}" for number in range(9))]
        assert [found.extractfile(name).read() for name in names] == [b"first", *contents]  # type: ignore[union-attr]


def test_what_could_not_be_put_together_has_no_end(tmp_path: Path) -> None:
    threads = threading.active_count()
    with (
        (tmp_path / "recipe").open("wb") as file,
        pytest.raises(FileNotFoundError),
        RecipeWriter(file) as writer,
    ):
        writer.add("plan", bytes(9 * MIB))
        writer.add_file("names/1", str(tmp_path / "gone"))
    done = subprocess.run(["lz4", "-dc", tmp_path / "recipe"], check=False, capture_output=True)
    assert len(done.stdout) <= 9 * MIB
    assert threading.active_count() == threads


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
        RecipeWriter(file) as writer,
    ):
        writer.add("plan", b"first")
