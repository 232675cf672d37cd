"""Removing a folder with all that is in it, whatever its depth and whatever lies there."""

from __future__ import annotations

import contextlib
import os
from typing import AnyStr

from tasks.media.beneath import FOLDER


def remove_tree(parent: int, name: AnyStr) -> None:
    """Remove a folder of an open one, were it closed to its owner.

    No link is followed, and no more than two folders are open at a time: a tree may be deeper than
    processes may have files open, or Python calls. Raises OSError where something stays.
    """
    _remove(parent, os.fsencode(name))


def _remove(parent: int, name: bytes) -> None:
    """Go down to the innermost folders, and remove them on the way up."""
    names, above = [name], [os.fstat(parent)]
    fd = _open(parent, name)
    try:
        left = [_folders_left(fd)]
        while names:
            if left[-1]:
                names.append(left[-1].pop())
                above.append(os.fstat(fd))
                fd = _exchange(fd, _open(fd, names[-1]))
                left.append(_folders_left(fd))
            else:
                left.pop()
                # Not by its path, which may be too long for the system.
                fd = _exchange(fd, os.open("..", FOLDER, dir_fd=fd))
                if not os.path.samestat(os.fstat(fd), above.pop()):
                    raise OSError("Somebody moved the folder while it was removed")
                os.rmdir(names.pop(), dir_fd=fd)
    finally:
        os.close(fd)


def _open(parent: int, name: bytes) -> int:
    mark = os.open(name, FOLDER | os.O_PATH, dir_fd=parent)
    try:
        if os.fstat(mark).st_mode & 0o700 != 0o700:
            with contextlib.suppress(OSError):  # another's; it may be empty
                os.chmod(f"/proc/self/fd/{mark}", 0o700)
        return os.open(".", FOLDER, dir_fd=mark)
    finally:
        os.close(mark)


def _exchange(fd: int, other: int) -> int:
    os.close(fd)
    return other


def _folders_left(folder: int) -> list[bytes]:
    """Remove all but the folders of an open folder; return their names."""
    with os.scandir(folder) as listing:
        found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in listing]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]
