"""Opening what lies beneath a root, whatever its depth, so that no planted link is followed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tasks.media.safepaths import check_name, check_path

# A path that is longer than this is opened step by step: the kernel takes 4,096 bytes at once.
LONG = 3500
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root: bytes, path: bytes, flags: int) -> int:
    """Open `root/path`, whatever its length, and return the file descriptor.

    Raises OSError as `open` does.
    """
    if len(root) + len(path) < LONG:
        return os.open(root + b"/" + path, flags)
    return open_stepwise(root, path, flags)


def open_stepwise(root: bytes, path: bytes, flags: int) -> int:
    """Open `root/path` folder by folder, following no link below the root.

    Raises OSError as `open` does.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *folders, last = path.split(b"/")
    try:
        for name in folders:
            below = os.open(name, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        return os.open(last, flags, dir_fd=fd)
    finally:
        os.close(fd)


@dataclass(slots=True)
class Folders:
    """Opens folders; `path` arguments come from a catalog, b"" is the root itself.

    The folder gone to last, `path`, is kept open as `fd`, and so is the one that it lies in, where
    the next often lies. UnsafePathError is raised for a path that would lead out of the root.
    """

    root: bytes
    path: bytes | None = None
    fd: int = -1
    _above: bytes | None = None
    _above_fd: int = -1

    def open(self, path: bytes) -> int:
        """Open a folder; the caller closes it."""
        if not path:
            return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        check_path(path)
        return open_stepwise(self.root, path, FOLDER)

    @staticmethod
    def below(fd: int, name: bytes) -> int:
        """Open a folder in an open one; the caller closes it."""
        check_name(name)
        return os.open(name, FOLDER, dir_fd=fd)

    def go_to(self, path: bytes) -> int:
        """Return a folder that stays open until another is gone to."""
        fd = self._open_near(path)
        self._keep(path, fd)
        return fd

    def _open_near(self, path: bytes) -> int:
        if not path:
            self._keep_above(None, -1)  # it may be gone before somebody goes there again
            return self.open(path)
        check_path(path)
        above, _, name = path.rpartition(b"/")
        if above != self._above:
            self._keep_above(above, self.open(above))
        return self.below(self._above_fd, name)

    def _keep(self, path: bytes | None, fd: int) -> None:
        before, self.path, self.fd = self.fd, path, fd
        _close(before)

    def _keep_above(self, path: bytes | None, fd: int) -> None:
        before, self._above, self._above_fd = self._above_fd, path, fd
        _close(before)

    def forget(self) -> None:
        """Let go of the folders that are kept open; a forked process must not share them."""
        self._keep_above(None, -1)
        self._keep(None, -1)


def _close(fd: int) -> None:
    """Close what nothing names any more: where a signal cuts in, it must not be closed again."""
    if fd >= 0:
        os.close(fd)
