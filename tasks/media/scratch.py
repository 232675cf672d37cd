"""A passing place: a folder that is gone afterwards, even where its process was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator

from tasks.media.beneath import FOLDER
from tasks.media.processes import signals_held
from tasks.media.removal import remove_tree

# Seconds: one that has just been made may not be locked yet.
_FRESH = 10


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[str]:
    """Give an empty folder of our own where the system keeps temporary files (TMPDIR).

    It is locked as long as the block or a child of it lives; those of processes that were killed
    are not, and go when the next is made. Raises OSError.
    """
    above = tempfile.gettempdir()
    _sweep(above, prefix)
    folder = tempfile.mkdtemp(prefix=prefix, dir=above)
    fd = os.open(folder, FOLDER)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder
    finally:
        with signals_held():  # else one that comes just now would leave a half of it behind
            _remove(folder, fd)


def _sweep(above: str, prefix: str) -> None:
    """Remove what others of the same user have left; what cannot be removed is no matter."""
    with os.scandir(above) as listing:
        found = [entry.path for entry in listing if entry.name.startswith(prefix)]
    for path in found:
        with contextlib.suppress(OSError):
            fd = os.open(path, FOLDER)
            facts = os.fstat(fd)
            if facts.st_uid == os.geteuid() and facts.st_mtime < time.time() - _FRESH:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path, fd)
            else:
                os.close(fd)


def _remove(folder: str, fd: int) -> None:
    """Remove a folder, and let go of it."""
    parent = os.open(os.path.dirname(folder), FOLDER)
    try:
        remove_tree(parent, os.path.basename(folder))
    finally:
        os.close(parent)
        os.close(fd)
