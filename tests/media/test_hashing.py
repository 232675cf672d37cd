"""Files are hashed as they lie on the medium, whatever their sizes, and none is passed over."""

import hashlib
import os
from pathlib import Path

import pytest

from tasks.media.hashing import digests_on_medium

MEGABYTE = 1 << 20
# Around the length of a piece, and more than all the buffers there are.
SIZES = [0, 1, MEGABYTE - 1, MEGABYTE, MEGABYTE + 1, 0, 70 * MEGABYTE, 12_345]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Files of all sizes, each with an end that no other has."""
    paths = []
    for number, size in enumerate(SIZES):
        path = tmp_path / f"file {number}"
        path.write_bytes(b"%d" % number if size else b"")
        os.truncate(path, size)
        paths.append(path)
    return paths


def test_every_file_has_its_digest_and_every_byte_is_counted(files: list[Path]) -> None:
    counts: list[int] = []
    found = list(digests_on_medium(map(str, files), counts.append))
    assert found == [(sha256(path), size) for path, size in zip(files, SIZES, strict=True)]
    assert sum(counts) == sum(SIZES)


def test_what_cannot_be_read_has_no_digest_and_stops_nothing(files: list[Path]) -> None:
    folder = files[0].parent
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(files[1])
    odd = [folder / name for name in ("pipe", "link", "gone", ".")]
    found = list(digests_on_medium(map(str, [*odd, files[-1]]), lambda count: None))
    assert found == [(None, 0)] * 4 + [(sha256(files[-1]), SIZES[-1])]


def test_a_medium_that_fails_in_the_middle_of_a_file_leaves_buffers_for_the_others(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.posix_fadvise

    def failing(fd: int, *advice: int) -> None:
        opened(fd, *advice)
        if os.fstat(fd).st_size == MEGABYTE + 1:
            folder = os.open(files[0].parent, os.O_RDONLY)
            os.dup2(folder, fd)  # reading it fails from now on
            os.close(folder)

    monkeypatch.setattr(os, "posix_fadvise", failing)
    broken = files[SIZES.index(MEGABYTE + 1)]
    found = list(digests_on_medium([*[str(broken)] * 99, str(files[-1])], lambda count: None))
    assert found == [(None, 0)] * 99 + [(sha256(files[-1]), SIZES[-1])]
