"""Where checked content goes to: a new file, or a pipe; what turns out to be damaged does not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Protocol

from tasks.media import durable
from tasks.model.errors import FormatDamaged

_IN_MEMORY = 16 << 20
_PIECE = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Outlet(Protocol):
    """A stream of bytes that takes only what was checked."""

    def checked(self) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Give a file to write to; a block that raises FormatDamaged leaves nothing of it."""


class Pipe:
    """A stream that takes nothing back: what is written waits, in memory or a temporary file.

    Nothing has left where a block ends with an error.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @contextlib.contextmanager
    def checked(self) -> Iterator[IO[bytes]]:
        """Give a file whose content leaves when the block ends well."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            yield spool
            spool.seek(0)
            while piece := spool.read(_PIECE):
                self._write(piece)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


class NewFile:
    """A file that grows: what is damaged is cut off again."""

    def __init__(self, file: io.BufferedRandom) -> None:
        self._file = file

    @contextlib.contextmanager
    def checked(self) -> Iterator[IO[bytes]]:
        """Give the file itself; FormatDamaged sets it back to where the block began."""
        start = self._file.tell()
        try:
            yield self._file
        except FormatDamaged:
            self._file.seek(start)
            self._file.truncate()
            raise


@contextlib.contextmanager
def appearing(path: str) -> Iterator[NewFile]:
    """Give a file that gets its name, flushed, when the block ends well; else nothing is left.

    Raises FileExistsError where the name is taken, and BlockingIOError where another process is
    writing the same file.
    """
    _refuse(path)
    draft = path + durable.DRAFT
    with _alone(draft) as file:
        try:
            _refuse(path)
            file.truncate()
            yield NewFile(file)
            file.flush()
            _refuse(path)
            durable.publish(draft, path)
        except BaseException:
            durable.remove(draft)
            raise


def _refuse(path: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


@contextlib.contextmanager
def _alone(draft: str) -> Iterator[Any]:
    """Open a draft that no living process has; one that was killed may have left it."""
    fd = os.open(draft, _FLAGS, 0o666)
    with open(fd, "r+b", buffering=_PIECE) as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), draft)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(draft, facts):  # it was published or removed before the lock was ours
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), draft)
        yield file


def _is_at(path: str, facts: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), facts)
    except FileNotFoundError:
        return False
