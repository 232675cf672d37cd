"""Recipes: what restore.sh needs of a snapshot, as text, lists of names and ready tar headers.

See FORMAT.md for every file in one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import lz4.frame

from tasks.formats import tar
from tasks.formats.archive import FRAME

VERSION = 2
# Lists of paths become a sixth smaller than with the fastest level, at 100 MB/s.
_LEVEL = 4
_COPY = 1 << 20
_THREADS = 2


class RecipeWriter:
    """Write the files of a recipe one after the other: a tar in LZ4 frames, like an archive.

    Threads compress a few frames while the next ones are gathered.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting = bytearray()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._frames: deque[Future[bytes]] = deque()

    def __enter__(self) -> RecipeWriter:
        """End the threads with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the end of the tar where all went well."""
        with self._pool:
            if kind is None:
                self._write(tar.END)
                self._emit(len(self._waiting))
                self._put(0)

    def add(self, name: str, content: bytes) -> None:
        """Add a small file."""
        self._write(_plain(name.encode(), len(content)) + content + tar.padding(len(content)))

    def add_file(self, name: str, path: str) -> None:
        """Add a file from disk, without loading it; an empty one is left out."""
        size = os.path.getsize(path)
        if not size:
            return
        self._write(_plain(name.encode(), size))
        with open(path, "rb") as file:
            while piece := file.read(_COPY):
                self._write(piece)
        self._write(tar.padding(size))

    def _write(self, piece: bytes) -> None:
        self._waiting += piece
        while len(self._waiting) >= FRAME:
            self._emit(FRAME)

    def _emit(self, size: int) -> None:
        self._frames.append(self._pool.submit(_compressed, bytes(self._waiting[:size])))
        del self._waiting[:size]
        self._put(_THREADS)

    def _put(self, most: int) -> None:
        """Write frames, in order, until at most so many are left."""
        while len(self._frames) > most:
            self._file.write(self._frames.popleft().result())


def _compressed(data: bytes) -> bytes:
    frame: bytes = lz4.frame.compress(data, compression_level=_LEVEL, content_checksum=True)
    return frame


class TarFile:
    """A tar on disk that grows member by member."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "ab")  # noqa: SIM115  # closed with the block that uses it

    def add(self, member: tar.Member, content: bytes = b"") -> None:
        """Append a member; a file's content may be left for whoever reads the header alone."""
        self._file.write(tar.header(member) + content + tar.padding(len(content)))

    def add_hole(self, member: tar.Member) -> None:
        """Append a file that is one hole of its whole size."""
        self._file.write(sparse(member, []))

    def add_plain(self, name: bytes, content: bytes) -> None:
        """Append a small file whose metadata does not matter."""
        self._file.write(_plain(name, len(content)) + content + tar.padding(len(content)))

    def __enter__(self) -> TarFile:
        """Close the file with the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the end of the tar."""
        with self._file:
            self._file.write(tar.END)


def sparse(member: tar.Member, extents: Sequence[tuple[int, int]]) -> bytes:
    """Build the header of a file with holes."""
    return tar.sparse_header(
        member.name,
        extents,
        member.size,
        member.mode,
        member.uid,
        member.gid,
        member.user,
        member.group,
        member.mtime_ns,
        member.xattrs,
    )


def names(paths: Sequence[bytes]) -> bytes:
    """Join names so that `tar --null -T` and `xargs -0` read them."""
    return b"".join(path + b"\0" for path in paths)


def line(*words: Any) -> bytes:
    """Write one line of a plan or of a list of parts; only the last word may have spaces in it."""
    text = " ".join(str(word) for word in words)
    return text.replace("\n", " ").replace("\r", " ").encode() + b"\n"


def _plain(name: bytes, size: int) -> bytes:
    return tar.file_header(name, size, 0o600, 0, 0, "", "", 0)
