"""Reading a file as it was at one instant, or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from tasks.formats.manifest import RESTLESS
from tasks.media.beneath import open_beneath, open_stepwise
from tasks.media.source import data_extents

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A file that changes while it is read is read again so many times, with these pauses in seconds.
PAUSES = (0.03, 0.05, 0.25)
# A file system's clock stands still for some milliseconds, or keeps whole seconds only (ext2), or
# every second one (FAT): of two changes in one tick the second leaves no trace. Nanoseconds, more
# than the longest tick of Linux (10 ms), and than that of FAT.
_TICK, _COARSE_TICK = 20_000_000, 2_020_000_000
_SECOND = 10**9


class Unreadable(Exception):
    """A file could not be read as it was at one instant."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_settled(facts: os.stat_result, read_from: int) -> bool:
    """Whether a change after `read_from`, in nanoseconds since 1970, would show in these facts."""
    return facts.st_ctime_ns < read_from - tick(facts)


def tick(facts: os.stat_result) -> int:
    """Return for how long, in nanoseconds, a file's clock may have stood still at its change."""
    return _TICK if facts.st_ctime_ns % _SECOND else _COARSE_TICK


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing was written to a file between two looks at it."""
    return (before.st_mtime_ns, before.st_ctime_ns, before.st_size, before.st_ino) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
        after.st_ino,
    )


def open_file(root: bytes, path: bytes) -> int:
    """Open a regular file below a source, following no link that took a folder's name meanwhile.

    Raises Unreadable where it is gone, may not be read, or is no regular file any more.
    """
    try:
        fd = open_stepwise(root, path, _FLAGS)
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be opened") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unreadable("It is no regular file any more")
    return fd


def read_once(root: bytes, path: bytes, size: int) -> tuple[bytes, os.stat_result]:
    """Read a file of about `size` bytes and look at it afterwards, in as few calls as there are.

    The caller compares with what it knew before, and takes more care where that differs: on the way
    to the file a folder may have become a link. Raises Unreadable.
    """
    try:
        fd = open_beneath(root, path, _FLAGS)
        try:
            return os.read(fd, size + 1), os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turn errors of reading a source into Unreadable."""
    try:
        yield
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from error


def _facts(fd: int) -> os.stat_result:
    with _reading():
        return os.fstat(fd)


def extents_of(fd: int, size: int) -> list[tuple[int, int]]:
    """Return the (offset, length) of what is no hole; Unreadable where that cannot be told."""
    with _reading():
        return data_extents(fd, size)


def read_all(fd: int, size: int) -> bytes:
    """Read an open file from where it stands to its end; `size` is only a guess."""
    pieces = []
    with _reading():
        while piece := os.read(fd, max(size + 1, 1 << 16)):
            pieces.append(piece)
            size = max(size - len(piece), 0)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _never(facts: os.stat_result) -> bool:
    return False


def unchanged(
    root: bytes,
    path: bytes,
    read: Callable[[int, os.stat_result], Any],
    rests: Callable[[os.stat_result], bool] = _never,
) -> tuple[Any, os.stat_result]:
    """Call `read(fd, facts)` until the file did not change meanwhile; return (result, facts).

    What `read` reads with the functions below becomes Unreadable where that fails; other errors of
    the system, those of writing what was read, pass through.

    One that has changed just now is read when its file system's clock has moved on, unless
    `rests(facts)` knows that it has; one that goes on changing gets the ctime RESTLESS. Raises
    Unreadable where it never holds still while it is read, or cannot be read.
    """
    for pause in (*PAUSES, None):
        fd = open_file(root, path)
        try:
            before, is_at_rest = _at_rest(fd, rests)
            result = read(fd, before)
            if same(before, _facts(fd)):
                return result, before if is_at_rest else _restless(before)
        finally:
            os.close(fd)
        if pause is not None:
            time.sleep(pause)
    raise Unreadable("It changed while it was read")


def _at_rest(fd: int, rests: Callable[[os.stat_result], bool]) -> tuple[os.stat_result, bool]:
    """Return the facts of a file, and whether every change from now on will show in them.

    Waits for its clock where that may stand still, but not until it is past that of this machine:
    the clock of another one may be ahead for ever.
    """
    facts = _facts(fd)
    ahead = facts.st_ctime_ns + tick(facts) - time.time_ns()
    if ahead < 0 or rests(facts):
        return facts, True
    time.sleep(min(ahead + 1, tick(facts)) / _SECOND)
    later = _facts(fd)
    return later, same(facts, later)


def _restless(facts: os.stat_result) -> os.stat_result:
    _, (numbers, names) = cast("tuple[Any, Any]", facts.__reduce__())
    return os.stat_result(numbers, {**names, "st_ctime_ns": RESTLESS})


def extent_reader(fd: int, start: int, length: int) -> Callable[[memoryview], int]:
    """Return a function that reads a stretch of a file, buffer by buffer, and returns how much."""
    position, end = start, start + length

    def read(buffer: memoryview) -> int:
        nonlocal position
        with _reading():
            count = os.preadv(fd, [buffer[: end - position]], position)
        position += count
        return count

    return read


def read_all_at(fd: int, start: int, length: int) -> bytes:
    """Read a stretch of a file, as much of it as there is."""
    pieces = []
    with _reading():
        while piece := os.pread(fd, length, start):
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def zeros(count: int) -> Iterator[bytes]:
    """Yield `count` zero bytes in pieces: what a hole reads as."""
    block = bytes(min(count, 1 << 20))
    while count > 0:
        yield block[:count] if count < len(block) else block
        count -= len(block)
