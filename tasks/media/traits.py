"""What the file system below a folder can keep, found out by trying it in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.media.beneath import FOLDER
from tasks.media.removal import remove_tree

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Names that some file system or other refuses or alters.
_HARD_NAMES = (b'a:?*"<>|\\\x01\n\x7f', b"a.", b"a ", b" a", b"aux", b"\xff", b"n" * 255)
_MODE, _WHEN, _SIZE = 0o641, 1_234_567_890_123_456_789, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a file system keeps as it is given: `metadata` are modes and times.

    `names` says that any name will do, `links` that files may have several.
    """

    metadata: bool
    names: bool
    holes: bool
    links: bool


@dataclass(frozen=True, slots=True)
class Scratch:
    """An empty folder to try things in; it is like the folder that it was made in."""

    fd: int

    def traits(self) -> Traits:
        """Find out what the file system keeps."""
        fd = os.open(b"file", _CREATE, 0o600, dir_fd=self.fd)
        try:
            os.ftruncate(fd, _SIZE)
            with contextlib.suppress(OSError):
                os.fchmod(fd, _MODE)
                os.utime(fd, ns=(_WHEN, _WHEN))
            found = os.fstat(fd)
        finally:
            os.close(fd)
            os.unlink(b"file", dir_fd=self.fd)
        return Traits(
            metadata=(stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (_MODE, _WHEN),
            names=all(map(self.keeps, _HARD_NAMES)),
            holes=found.st_blocks * 512 < _SIZE,
            links=self._links(),
        )

    def _links(self) -> bool:
        with contextlib.suppress(OSError), self._file(b"one"):
            os.link(b"one", b"two", src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
            os.unlink(b"two", dir_fd=self.fd)
            return True
        return False

    def keeps(self, name: bytes) -> bool:
        """Whether an entry can have this name, byte for byte."""
        try:
            with self._file(name), os.scandir(self.fd) as listing:
                return [os.fsencode(entry.name) for entry in listing] == [name]
        except (OSError, ValueError):
            return False

    def confuses(self, name: bytes, other: bytes) -> bool:
        """Whether two names would be one and the same entry."""
        with contextlib.suppress(OSError, ValueError), self._file(name):
            os.stat(other, dir_fd=self.fd, follow_symlinks=False)
            return True
        return False

    @contextlib.contextmanager
    def _file(self, name: bytes) -> Iterator[None]:
        os.close(os.open(name, _CREATE, 0o600, dir_fd=self.fd))
        try:
            yield
        finally:
            os.unlink(name, dir_fd=self.fd)


@contextlib.contextmanager
def scratch(folder: int, name: bytes) -> Iterator[Scratch]:
    """Give a scratch folder called `name` in an open folder; it is gone after the block."""
    os.mkdir(name, 0o700, dir_fd=folder)
    try:
        fd = os.open(name, FOLDER, dir_fd=folder)
        try:
            yield Scratch(fd)
        finally:
            os.close(fd)
    finally:
        with contextlib.suppress(OSError):
            remove_tree(folder, name)
