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
def exclusive(path: str) -> Iterator[None]:
    """Hold a lock file, waiting for it as long as it takes."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def held_by_this_run(path: str, profile: str) -> Iterator[None]:
    """Hold the lock of a profile; children inherit it, so an orphan still counts as a run.

    Raises RunActive, naming the holder. A killed run's children take a moment to die: wait briefly.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(fd, profile)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _acquire(fd: int, profile: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
                raise RunActive(profile=profile, holder=holder or "its name is not known") from None
            time.sleep(0.05)
