"""A file is read as it was at one instant, or not at all: proven with a real writer."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.formats.manifest import RESTLESS
from tasks.media.stable import (
    Unreadable,
    extent_reader,
    is_settled,
    read_all,
    read_once,
    unchanged,
    zeros,
)

MakeVolume = Callable[..., Path]

SIZE = 1 << 20


def read(root: Path, name: bytes) -> tuple[bytes, os.stat_result]:
    return unchanged(os.fsencode(root), name, lambda fd, facts: read_all(fd, facts.st_size))


@contextlib.contextmanager
def writer(path: Path, seconds: float) -> Iterator[None]:
    """Fill a file with one byte after the other, over and over, for some time."""
    stop = threading.Event()

    def work() -> None:
        deadline = time.monotonic() + seconds
        number = 0
        with path.open("r+b", buffering=0) as file:
            while time.monotonic() < deadline and not stop.is_set():
                number = number % 255 + 1
                for start in range(0, SIZE, SIZE // 8):
                    os.pwrite(file.fileno(), bytes([number]) * (SIZE // 8), start)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.02)
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    return path


def test_a_file_that_holds_still_is_read(file: Path) -> None:
    data, facts = read(file.parent, b"file")
    assert data == bytes(SIZE)
    assert facts.st_ino == file.stat().st_ino


def slow(fd: int, facts: os.stat_result) -> bytes:
    """Read in pieces with pauses, so that a writer gets in between."""
    pieces = []
    while piece := os.read(fd, SIZE // 4):
        pieces.append(piece)
        time.sleep(0.01)
    return b"".join(pieces)


def test_a_file_that_never_holds_still_is_not_read(file: Path) -> None:
    with writer(file, 20), pytest.raises(Unreadable) as caught:
        unchanged(os.fsencode(file.parent), b"file", slow)
    assert "changed while it was read" in caught.value.reason


def test_a_file_that_comes_to_rest_is_read_as_it_is_then(file: Path) -> None:
    with writer(file, 0.1):
        data, facts = unchanged(os.fsencode(file.parent), b"file", slow)
    assert data == file.read_bytes()
    assert len(set(data)) == 1
    assert facts.st_mtime_ns == file.stat().st_mtime_ns


@pytest.mark.parametrize("deed", ["append", "truncate", "same size", "touched back"])
def test_one_change_while_reading_is_noticed_and_the_file_read_again(file: Path, deed: str) -> None:
    calls = 0
    before = file.stat()

    def disturbed(fd: int, facts: os.stat_result) -> bytes:
        nonlocal calls
        calls += 1
        data = read_all(fd, facts.st_size)
        if calls == 1:
            time.sleep(0.02)
            with file.open("r+b") as other:
                other.seek(0, os.SEEK_END if deed == "append" else os.SEEK_SET)
                other.write(b"new")
            if deed == "truncate":
                os.truncate(file, 100)
            if deed == "touched back":
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return data

    data, _ = unchanged(os.fsencode(file.parent), b"file", disturbed)
    assert calls == 2
    assert data == file.read_bytes()


def test_a_file_replaced_while_it_is_read_is_read_as_one_or_the_other(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"\1" * SIZE)

    def replaced(fd: int, facts: os.stat_result) -> bytes:
        half = os.read(fd, SIZE // 2)
        if other.exists():
            os.replace(other, file)
        return half + read_all(fd, SIZE)

    data, _ = unchanged(os.fsencode(file.parent), b"file", replaced)
    assert data in (bytes(SIZE), b"\1" * SIZE)


@pytest.mark.parametrize("kind", ["ext2", "exfat"])
def test_a_write_within_the_second_of_a_reading_leaves_a_trace_where_only_seconds_are_kept(
    loop_volume: MakeVolume, kind: str
) -> None:
    file = loop_volume(32, kind=kind) / "file"
    for number in range(3):
        file.write_bytes(b"%03d before" % number)
        data, facts = read(file.parent, b"file")
        assert data == b"%03d before" % number
        file.write_bytes(b"%03d after." % number)
        assert file.stat().st_ctime_ns != facts.st_ctime_ns
        moment = time.time_ns()
        _, facts = read_once(os.fsencode(file.parent), b"file", 11)
        assert not is_settled(facts, moment)


def test_what_goes_on_changing_is_left_to_be_read_again(file: Path) -> None:
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(0.006):
            file.chmod(0o600)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        data, facts = read(file.parent, b"file")
    finally:
        stop.set()
        thread.join()
    assert (data, facts.st_ino, facts.st_size) == (bytes(SIZE), file.stat().st_ino, SIZE)
    assert facts.st_ctime_ns == RESTLESS


def test_one_quick_look_tells_what_was_read_and_when(file: Path) -> None:
    data, facts = read_once(os.fsencode(file.parent), b"file", SIZE)
    assert (data, facts.st_size) == (bytes(SIZE), SIZE)
    file.write_bytes(b"longer" * SIZE)
    data, facts = read_once(os.fsencode(file.parent), b"file", SIZE)
    assert len(data) == SIZE + 1 != facts.st_size


@pytest.mark.parametrize("name", [b"gone", b"no/such/folder", b"link", b"folder", b"fifo"])
def test_what_is_no_regular_file_is_not_read(file: Path, name: bytes) -> None:
    (file.parent / "link").symlink_to("file")
    (file.parent / "folder").mkdir()
    os.mkfifo(file.parent / "fifo")
    with pytest.raises(Unreadable) as caught:
        read(file.parent, name)
    assert caught.value.reason


def test_a_file_that_may_not_be_read_says_so(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    file.chmod(0)
    with pytest.raises(Unreadable, match="Permission"):
        read(file.parent, b"file")


def test_no_descriptor_is_left_open(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    read(file.parent, b"file")
    read_once(os.fsencode(file.parent), b"file", 10)
    for name in (b"gone", b"."):
        with pytest.raises(Unreadable):
            read(file.parent, name)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("guess", [0, 1, 5000, 10**6])
def test_a_wrong_guess_of_the_size_does_no_harm(tmp_path: Path, guess: int) -> None:
    data = os.urandom(200_000)
    (tmp_path / "f").write_bytes(data)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert read_all(fd, guess) == data
    finally:
        os.close(fd)


def pieces(read: Callable[[memoryview], int], size: int) -> Iterator[bytes]:
    buffer = memoryview(bytearray(size))
    while count := read(buffer):
        yield bytes(buffer[:count])


def test_a_stretch_is_read_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(200)))
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert b"".join(pieces(extent_reader(fd, 50, 100), 33)) == bytes(range(50, 150))
        assert b"".join(pieces(extent_reader(fd, 190, 50), 7)) == bytes(range(190, 200))
    finally:
        os.close(fd)


@pytest.mark.parametrize("count", [0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) - 1])
def test_holes_are_read_as_zeros(count: int) -> None:
    assert b"".join(zeros(count)) == bytes(count)


def test_what_is_unreadable_passes_through_a_context_manager() -> None:
    @contextlib.contextmanager
    def block() -> Iterator[None]:
        yield

    with pytest.raises(Unreadable), block():
        raise Unreadable("Permission denied")
