"""Writing so that a name stands for a whole, flushed file or for nothing at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from tasks.model.errors import WorkspaceFull

DRAFT = ".tmp"


def sync_folder(path: str) -> None:
    """Flush a directory, so that the names in it survive a power cut."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: str) -> None:
    """Flush a file that another library has written."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(path: str) -> None:
    """Make a folder, and those above it that are missing, so that a power cut takes none away."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folders(parent)
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.mkdir(path)
    sync_folder(parent)


def publish(draft: str, path: str) -> None:
    """Flush a draft, give it its final name, and flush the directory."""
    sync_file(draft)
    os.rename(draft, path)
    sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give the name of a draft to write; publish it as `path` when the block ends well.

    A block that fails leaves no draft, and `path` as it was.
    """
    draft = path + DRAFT
    try:
        yield draft
        publish(draft, path)
    except BaseException:
        remove(draft)
        raise


def write_whole(path: str, content: bytes) -> None:
    """Replace a small file durably."""
    with replacing(path) as draft, open(draft, "wb") as file:
        file.write(content)


def append_line(path: str, line: bytes) -> None:
    """Append one line and flush it; a torn line before it, which never counted, is cut off."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        end = _end_of_last_line(fd)
        os.ftruncate(fd, end)
        try:
            if os.pwrite(fd, line, end) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, end)  # what may not be on the disk must not be read from memory
            raise
    finally:
        os.close(fd)
    if end == 0:
        sync_folder(os.path.dirname(path))


def cut(path: str, size: int) -> None:
    """Cut a file off behind its first `size` bytes, and flush it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def _end_of_last_line(fd: int) -> int:
    size = os.fstat(fd).st_size
    start = max(0, size - (1 << 16))
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1


def read_whole(path: str, limit: int = 64 << 20) -> bytes:
    """Read a small file; OSError EFBIG where no honest one is so large, EINVAL for a pipe."""
    return _read(path, limit, 0)


def read_untrusted(path: str, limit: int) -> bytes:
    """Do the same with a file that may be a link out of the place where it lies: OSError ELOOP."""
    return _read(path, limit, os.O_NOFOLLOW)


def _read(path: str, limit: int, flags: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if facts.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content


def remove(path: str) -> None:
    """Remove a file where it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def in_workspace() -> Iterator[None]:
    """Turn a full disk of the workspace into its own error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceFull(path=error.filename or "the workspace") from error
        raise
