"""Whether what was restored is what was backed up: as the file system has it, fact by fact."""

from __future__ import annotations

import hashlib
import os
import stat

from tasks.media.destination import Destination
from tasks.media.metadata import Facts

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def difference(
    place: Destination, path: bytes, facts: Facts, size: int, sha256: bytes | None
) -> str | None:
    """Return the first thing in which a restored file is not as it should be, None where it is.

    `sha256` is None where nobody knows it. The folders on the way have to be open to us.
    """
    try:
        parent, name = place.at(path)
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return "not restored"
    if not stat.S_ISREG(found.st_mode):
        return "type"
    for what, is_now, was in (
        ("size", found.st_size, size),
        ("mode", stat.S_IMODE(found.st_mode), facts.mode),
        ("time", found.st_mtime_ns, facts.mtime_ns),
    ):
        if is_now != was:
            return what
    if not _has_attributes(parent, name, facts):
        return "attributes"
    return None if sha256 in (None, _digest(parent, name)) else "content"


def is_same_file(place: Destination, path: bytes, other: bytes) -> bool:
    """Whether two paths are names of one file."""
    try:
        found = []
        for name in (path, other):
            parent, last = place.at(name)
            status = os.stat(last, dir_fd=parent, follow_symlinks=False)
            found.append((status.st_dev, status.st_ino))
    except FileNotFoundError:
        return False
    return found[0] == found[1]


def _has_attributes(parent: int, name: bytes, facts: Facts) -> bool:
    """Whether a file has all attributes that it should; the system may have added some."""
    path = b"/proc/self/fd/%d/%s" % (parent, name)
    try:
        return all(os.getxattr(path, key, follow_symlinks=False) == v for key, v in facts.xattrs)
    except PermissionError:
        return True  # a file that its owner may not read does not show them to him
    except OSError:
        return False


def _digest(parent: int, name: bytes) -> bytes:
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o400, dir_fd=parent)
        fd = os.open(name, _READ, dir_fd=parent)
    with open(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
