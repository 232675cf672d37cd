"""Archives: a pax tar in consecutive LZ4 frames, written in one pass and read from any frame."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import lz4.frame

from tasks.formats import tar
from tasks.formats.buffers import large_buffer
from tasks.model.errors import FormatDamaged

FRAME = 4 << 20
SUFFIX = ".tar.lz4"
# What a catalog may call an archive: nothing else is ever opened on a cartridge.
ARCHIVE_NAME = re.compile(r"archives/[0-9TZ]+/[0-9]+\.tar\.lz4")
# What an honest frame can hold at most: a hostile header must not make us allocate more.
_LARGEST_CONTENT = 64 << 20
# What one takes on the medium at most.
_LONGEST_FRAME = FRAME + (1 << 20)
# Holds a whole frame, wherever in what was read in one go it begins.
_WINDOW = 2 * _LONGEST_FRAME
_LONGEST_NAME = 255
_PARTS_FOLDER = b".cartridge-parts"


class ArchiveWriter:
    """Append members to an archive; every FRAME bytes of tar become one LZ4 frame.

    A content's place is (frame number, skip) while the archive grows; `frames` turns the number
    into the frame's byte offset once the archive is finished.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._pending = 0
        self.frames = [0]
        self.bytes = 0
        self.members = 0

    @property
    def estimate(self) -> int:
        """Bytes of the archive so far, counting what is not yet compressed as it is."""
        return self.bytes + self._pending

    def add(self, header: bytes, content: Any = b"", size: int = 0) -> tuple[int, int]:
        """Append one member; return (frame number, skip) of its content.

        `content` is bytes-like, of `size` bytes; the caller may change it afterwards.
        """
        place = divmod((len(self.frames) - 1) * FRAME + self._pending + len(header), FRAME)
        pending = self._pending + len(header) + size + -size % 512
        if pending < FRAME:
            self._pieces += (header, bytes(content), tar.padding(size)) if size else (header,)
            self._pending = pending
        else:
            for piece in (header, content, tar.padding(size)):
                self._append(memoryview(piece))
        self.members += 1
        return place

    def finish(self) -> str:
        """Write the end of the tar and return the archive's SHA-256."""
        self._emit(b"".join((*self._pieces, tar.END)))
        self._pieces, self._pending = [], 0
        return self._digest.hexdigest()

    def _append(self, rest: memoryview) -> None:
        """Append a piece, and compress frames as they are full: where they lie, if it has all."""
        while self._pending + len(rest) >= FRAME:
            taken = FRAME - self._pending
            frame = rest[:taken]
            self._emit(b"".join((*self._pieces, frame)) if self._pieces else frame)
            self._pieces, self._pending = [], 0
            rest = rest[taken:]
        if rest:
            self._pieces.append(bytes(rest))
            self._pending += len(rest)

    def _emit(self, block: bytes | memoryview) -> None:
        frame = lz4.frame.compress(
            block,
            block_size=lz4.frame.BLOCKSIZE_MAX4MB,
            block_linked=False,
            content_checksum=True,
        )
        rest = memoryview(frame)
        while rest:  # a file without a buffer may take only a part
            rest = rest[self._file.write(rest) :]
        self._digest.update(frame)
        self.bytes += len(frame)
        self.frames.append(self.bytes)


def part_name(name: bytes, position: int, digest: bytes) -> bytes:
    """Name the member that holds a part of a large file.

    It is `<name>.cartridge-parts/<byte position>`, or goes by its hash where that is too long.
    """
    folder = name + _PARTS_FOLDER
    if len(folder.rpartition(b"/")[2]) <= _LONGEST_NAME and len(folder) < 4000:
        return b"%s/%015d" % (folder, position)
    return _PARTS_FOLDER + b"/" + digest.hex().encode()


def frames_from(file: BinaryIO, offset: int, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset, tar bytes) of every frame from the one at `offset` on.

    Raises FormatDamaged, naming the archive `name`, where a frame is not what was written.
    """
    return _frames(file, offset, name, large_buffer(_WINDOW))


def _frames(
    file: BinaryIO, offset: int, name: str, window: memoryview
) -> Iterator[tuple[int, bytes]]:
    """Do it through a buffer of `_WINDOW` bytes that nobody else uses meanwhile."""
    start, stop, ended = 0, 0, False  # what was read and not decoded lies between
    while True:
        while stop - start < _LONGEST_FRAME and not ended:
            window[: stop - start] = window[start:stop]
            start, stop = 0, stop - start
            count = _read_at(file, offset + stop, window[stop:][:_LONGEST_FRAME], name)
            stop, ended = stop + count, not count
        if start == stop:
            return
        content, used = _one_frame(window[start:stop], offset, name)
        yield offset, content
        offset, start = offset + used, start + used


def frame_at(file: BinaryIO, offset: int, name: str) -> tuple[bytes, int]:
    """Return the tar bytes of the frame at a byte offset, and where the next one begins.

    At the end of the archive there are none. Raises FormatDamaged as `frames_from` does.
    """
    window, stop = memoryview(bytearray(_LONGEST_FRAME)), 0
    while count := _read_at(file, offset + stop, window[stop:], name):
        stop += count
    if not stop:
        return b"", offset
    content, used = _one_frame(window[:stop], offset, name)
    return content, offset + used


def _read_at(file: BinaryIO, position: int, buffer: memoryview, name: str) -> int:
    """Read on; an error of the medium is damage of the archive, unlike one of the destination."""
    try:
        file.seek(position)
        return file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
    except OSError as error:
        raise FormatDamaged(file=name, reason=error.strerror or str(error)) from error


def _one_frame(buffer: memoryview, offset: int, name: str) -> tuple[bytes, int]:
    try:
        facts = lz4.frame.get_frame_info(buffer)
        if facts["skippable"] or not 0 < facts["content_size"] <= _LARGEST_CONTENT:
            raise FormatDamaged(file=name, reason=f"the frame at {offset} is not one of ours")
        content, used = lz4.frame.decompress(buffer, return_bytes_read=True)
    except (RuntimeError, EOFError) as error:
        raise FormatDamaged(file=name, reason=f"the frame at {offset}: {error}") from error
    if len(content) != facts["content_size"]:
        raise FormatDamaged(file=name, reason=f"the frame at {offset} is cut short")
    return content, used


class ContentReader:
    """Read contents of one archive in rising order of place, decompressing each frame once."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._window = large_buffer(_WINDOW)
        self._frames: Iterator[tuple[int, bytes]] = iter(())
        self._offset = -1
        self._content = b""

    def read(self, frame: int, skip: int, length: int) -> Iterator[memoryview]:
        """Yield the pieces of one content; FormatDamaged where the archive ends before it does."""
        if min(frame, skip, length) < 0:
            raise FormatDamaged(file=self._name, reason="the manifest has a negative place in it")
        if frame != self._offset:
            self._frames = _frames(self._file, frame, self._name, self._window)
            self._advance()
        while skip >= len(self._content) and self._content:
            skip -= len(self._content)
            self._advance()
        while length > 0:
            piece = memoryview(self._content)[skip : skip + length]
            if not len(piece):
                raise FormatDamaged(file=self._name, reason="it ends before a content does")
            yield piece
            length -= len(piece)
            skip = 0
            if length > 0:
                self._advance()

    def checked(self, frame: int, skip: int, length: int, sha256: bytes) -> Iterator[memoryview]:
        """Yield the same, and raise FormatDamaged at the end where it is not what was stored."""
        digest = hashlib.sha256()
        if frame == self._offset and 0 <= skip < skip + length <= len(self._content):
            pieces: Iterable[memoryview] = (memoryview(self._content)[skip : skip + length],)
        else:
            pieces = self.read(frame, skip, length)
        for piece in pieces:
            digest.update(piece)
            yield piece
        if digest.digest() != sha256:
            raise FormatDamaged(file=self._name, reason="a content in it is not what was stored")

    def _advance(self) -> None:
        self._offset, self._content = next(self._frames, (-1, b""))
