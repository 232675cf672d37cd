"""A file that is being restored under a name of its own, until it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass

from tasks.media.metadata import Facts, Settler

# What is put together of a large file; it stays where a restore ends before it is whole.
PART = re.compile(rb"\.cartridge-part-[0-9a-f]{32}\.tmp")


@dataclass(slots=True)
class Draft:
    """A file that is being restored under a name of its own.

    `parent` is the folder that the destination keeps open: a draft has to be published or discarded
    before the next path is asked for.
    """

    settler: Settler
    parent: int
    draft_name: bytes
    name: bytes
    fd: int

    def publish(self, facts: Facts) -> None:
        """Give the file its metadata and its final name."""
        try:
            self.settler.settle(self.fd, facts)
            replace(self.parent, self.draft_name, self.name)
        except BaseException:
            self.discard()
            raise
        os.close(self.fd)

    def write(self, piece: bytes | memoryview) -> None:
        """Add to the file."""
        view = memoryview(piece)
        while view:
            view = view[os.write(self.fd, view) :]

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):
            os.unlink(self.draft_name, dir_fd=self.parent)
        os.close(self.fd)


def replace(parent: int, draft: bytes, name: bytes) -> None:
    """Give a draft its final name; what has that name goes, but for a folder that is not empty."""
    try:
        try:
            os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent)
            os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=parent)
        raise


def shared_name(name: bytes, digest: bytes | None) -> bytes:
    """Return what a file is called while it is put together; the content's digest tells which."""
    mark = hashlib.sha256((digest or b"") + name).hexdigest()[:32]
    return b".cartridge-part-%s.tmp" % mark.encode()


def shared_path(path: bytes, digest: bytes | None) -> bytes:
    """Return where it lies meanwhile."""
    folder, slash, name = path.rpartition(b"/")
    return folder + slash + shared_name(name, digest)
