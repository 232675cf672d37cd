"""Who works on a run: processes, on one host or on several, that share its folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator

from tasks.catalog.runs import Run
from tasks.media import locks

_FOLDER = "participants"


def new_name() -> str:
    """Name this process so that no other, on any host, has the name."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


@contextlib.contextmanager
def joined(run: Run, name: str) -> Iterator[None]:
    """Take part in a run while the block lasts.

    The lock on the file, not the file, says that a participant lives; children inherit it.
    """
    path = _path(run, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(locks.exclusive(path))
        while not _is_file(fd, path):  # somebody found it before it was locked, and removed it
            fd = stack.enter_context(locks.exclusive(path))
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # the run is over and its folder gone
                os.unlink(path)


def _is_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def others(run: Run, name: str) -> list[str]:
    """Return the other participants that are alive; what dead ones left is removed."""
    alive = []
    with contextlib.suppress(FileNotFoundError):
        for other in sorted(os.listdir(run.path(_FOLDER))):
            if other == name:
                continue
            if locks.is_held(_path(run, other)):
                alive.append(other)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_path(run, other))
    return alive


def want(run: Run, name: str, sequence: int) -> None:
    """Say that this participant does not have the n-th cartridge of the run; 0 takes it back."""
    with open(_path(run, name), "r+b") as file:
        file.write(b"%-8d" % sequence)


def wanted(run: Run, name: str) -> int:
    """Return which cartridge a participant lacks, 0 where none."""
    try:
        with open(_path(run, name), "rb") as file:
            return int(file.read(8) or b"0")
    except FileNotFoundError:
        return 0


def _path(run: Run, name: str) -> str:
    return run.path(_FOLDER, name)
