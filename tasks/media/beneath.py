"""Opening what lies beneath a root, whatever its depth, so that no planted link is followed."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

from tasks.media.safepaths import check_name, join

# A path that is longer than this is opened in pieces: the kernel takes 4,096 bytes at once.
LONG = 3500
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSED = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def open_beneath(root: bytes, path: bytes, flags: int) -> int:
    """Open `root/path`, whatever its length, and return the file descriptor.

    Raises OSError as `open` does.
    """
    if len(root) + len(path) < LONG:
        return os.open(root + b"/" + path, flags)
    fd = os.open(root, _PASSED)
    try:
        while len(path) >= LONG:
            end = path.rindex(b"/", 0, LONG)
            below = os.open(path[:end], _PASSED, dir_fd=fd)
            os.close(fd)
            fd, path = below, path[end + 1 :]
        return os.open(path, flags, dir_fd=fd)
    finally:
        os.close(fd)


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

    The folder gone to last, `path`, is kept open as `fd`, and mostly the one that it lies in. From
    there the way to the next is short, however deep both are. UnsafePathError is raised for a path
    that would lead out of the root.
    """

    root: bytes
    path: bytes | None = None
    fd: int = -1
    _above_fd: int = -1
    # What the folders on the way are, the root first: `..` may lead elsewhere by now.
    _way: list[os.stat_result] = field(default_factory=list)

    def open(self, path: bytes) -> int:
        """Open a folder; the caller closes it."""
        return os.dup(self.go_to(path))

    @staticmethod
    def below(fd: int, name: bytes) -> int:
        """Open a folder in an open one; the caller closes it."""
        check_name(name)
        return os.open(name, FOLDER, dir_fd=fd)

    def go_to(self, path: bytes) -> int:
        """Return a folder that stays open until another is gone to."""
        for name in self._go_above(path):
            below = self.below(self.fd, name)
            self._way.append(os.fstat(below))
            self._keep(join(self.path or b"", name), below, self.fd)
        return self.fd

    def _go_above(self, path: bytes) -> list[bytes]:
        """Go up to where the way to a path branches off; return the names from there on."""
        shared = _shared(self.path, path) if self.path else 0
        if shared and len(self._way) - 1 - shared <= shared:
            while len(self._way) - 1 > shared and self._go_up():
                pass
            if len(self._way) - 1 == shared:
                return path.split(b"/")[shared:]
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._way = [os.fstat(root)]
        self._keep(b"", root, -1)
        return path.split(b"/") if path else []

    def _go_up(self) -> bool:
        """Go to the folder that this one lies in; False where it does not lie there any more."""
        above = self._above_fd
        if above < 0:
            above = os.open("..", FOLDER, dir_fd=self.fd)
            if not os.path.samestat(os.fstat(above), self._way[-2]):
                os.close(above)
                return False
        self._way.pop()
        self._keep((self.path or b"").rpartition(b"/")[0], above, -1)
        return True

    def _keep(self, path: bytes | None, fd: int, above: int) -> None:
        """Keep two folders open, and let go of those that were kept before."""
        before = {self.fd, self._above_fd} - {fd, above}
        self.path, self.fd, self._above_fd = path, fd, above
        for each in before:
            _close(each)

    def forget(self) -> None:
        """Let go of the folders that are kept open; a forked process must not share them."""
        self._way = []
        self._keep(None, -1, -1)


def _shared(path: bytes, other: bytes) -> int:
    """Return how many folders are on the way to both of two paths, below the root."""
    for longer, shorter in ((path, other), (other, path)):
        if longer == shorter or longer.startswith(shorter + b"/"):
            return shorter.count(b"/") + 1 if shorter else 0
    pairs = zip(path.split(b"/"), other.split(b"/"), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _close(fd: int) -> None:
    """Close what nothing names any more: where a signal cuts in, it must not be closed again."""
    if fd >= 0:
        os.close(fd)
