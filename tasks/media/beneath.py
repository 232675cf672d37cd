"""Folders beneath a root, opened step by step so that no planted link is followed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tasks.media.safepaths import check_name

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Beneath:
    """Opens folders; `path` arguments are relative to the root, b"" is the root itself.

    The folder asked for last is kept open, and the one that it lies in, where the next often lies.
    """

    root: bytes
    _path: bytes | None = None
    _fd: int = -1
    _above: bytes | None = None
    _above_fd: int = -1

    def open(self, path: bytes) -> int:
        """Open a folder; the caller closes it."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in path.split(b"/") if path else ():
            try:
                below = self.below(fd, name)
            finally:
                os.close(fd)
            fd = below
        return fd

    @staticmethod
    def below(fd: int, name: bytes) -> int:
        """Open a folder in an open one."""
        check_name(name)
        return os.open(name, _FOLDER, dir_fd=fd)

    def is_at(self, path: bytes) -> bool:
        """Whether a folder is the one that is kept open."""
        return path == self._path

    def go_to(self, path: bytes) -> int:
        """Return a folder that stays open until another is asked for."""
        if path != self._path:
            fd = self._open_near(path)
            _close(self._fd)
            self._path, self._fd = path, fd
        return self._fd

    def _open_near(self, path: bytes) -> int:
        if not path:
            self._keep_above(None, -1)  # it may be gone before somebody goes there again
            return self.open(path)
        check_name(path.partition(b"/")[0])  # nothing is there where a path begins with a slash
        above, _, name = path.rpartition(b"/")
        if above != self._above:
            self._keep_above(above, self.open(above))
        return self.below(self._above_fd, name)

    def _keep_above(self, path: bytes | None, fd: int) -> None:
        _close(self._above_fd)
        self._above, self._above_fd = path, fd

    def forget(self) -> None:
        """Let go of the folders that are kept open; a forked process must not share them."""
        self._keep_above(None, -1)
        _close(self._fd)
        self._path, self._fd = None, -1


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
