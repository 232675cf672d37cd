"""The archive that a packer is filling, and the lists of what is in it."""

from __future__ import annotations

import errno
import os

from tasks.catalog.packing import ContentRecords, RowRecords
from tasks.formats.archive import ArchiveWriter
from tasks.model.words import PackedArchive

# The lists are in memory while the archive is filled, 200 bytes for each member.
_MOST_MEMBERS = 1 << 17


class Draft:
    """An archive on its way, in a file of the spool: `path`."""

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self.path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  # closed when it is full
        self.writer = ArchiveWriter(self._file)
        self.contents = ContentRecords()
        self.rows = RowRecords()

    def takes(self, size: int, limit: int) -> bool:
        """Whether so many bytes more fit an archive of at most `limit`; an empty one takes all."""
        members = self.writer.members
        return not members or (self.writer.estimate + size <= limit and members < _MOST_MEMBERS)

    def close(self, archive: str, lists: str) -> PackedArchive:
        """Finish the archive, and leave its lists, whose names begin with `lists`; describe it.

        An archive without members is an empty file. Raises OSError where not all was written.
        """
        digest = self.writer.finish() if self.writer.members else ""
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        if size != self.writer.bytes:
            raise OSError(errno.EIO, "the archive is not as long as what was written", self.path)
        self.rows.save(f"{lists}.rows.parquet")
        self.contents.save(f"{lists}.contents.parquet", archive, self.writer.frames)
        return PackedArchive(
            number=f"{self.number:010d}",
            archive=archive,
            bytes=self.writer.bytes,
            sha256=digest,
            content_bytes=self.contents.volume,
            members=self.writer.members,
            contents=self.contents.count,
        )
