"""Locks of the operating system: they die with the processes that hold them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator

from tasks.model.errors import RunActive

_PATIENCE = 3.0


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[int]:
    """Hold a lock file, waiting for it as long as it takes; yields its descriptor."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def is_held(path: str) -> bool:
    """Whether somebody holds a lock file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _taken(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


class ProfileLock:
    """The lock of a profile: held alone by a run, or shared by the participants of one.

    Children inherit it, so that an orphan still counts as a run.
    """

    def __init__(self, path: str, profile: str) -> None:
        self._path = path
        self._profile = profile
        self._fd = -1

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it against everybody else; raises RunActive, naming the holder."""
        with self._held(fcntl.LOCK_EX):
            self._sign()
            yield

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Hold it with other participants of a run; raises RunActive where one runs alone."""
        with self._held(fcntl.LOCK_SH):
            self._sign()
            yield

    def is_last(self) -> bool:
        """Whether nobody else holds it, which then stays so; for one who holds it together.

        A lock that is not free is shared again: in between, a run that wants it alone may get it.
        """
        if _taken(self._fd, fcntl.LOCK_EX):
            return True
        self._acquire(fcntl.LOCK_SH)
        return False

    def share(self) -> None:
        """Let others join again, for one who is the last."""
        self._acquire(fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _held(self, kind: int) -> Iterator[None]:
        self._fd = _open(self._path)
        try:
            self._acquire(kind)
            yield
        finally:
            os.close(self._fd)

    def _acquire(self, kind: int) -> None:
        """Take the lock; a killed run's children need a moment to die, so wait briefly."""
        deadline = time.monotonic() + _PATIENCE
        while not _taken(self._fd, kind):
            if time.monotonic() > deadline:
                holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
                raise RunActive(profile=self._profile, holder=holder or "its name is not known")
            time.sleep(0.05)

    def _sign(self) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _taken(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
