"""Reading an archive's members without a manifest: headers, and where contents lie."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from tasks.formats.archive import FRAME, frames_from
from tasks.model.errors import FormatDamaged

_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
}
_XATTR = "SCHILY.xattr."
_TIME = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9})\d*)?")
_PIECE = 1 << 20
# No honest sparse member expands to more; larger files are stored in parts.
_LARGEST_HOLE = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One member as it lies in an archive; `parts` and `sha256` are those of a file's content.

    `parts` are as in a manifest but for the archive's name: dictionaries with frame, skip, length
    and sha256, or the length of a hole.
    """

    name: bytes
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime_ns: int
    link_target: bytes
    major: int
    minor: int
    xattrs: list[tuple[bytes, bytes]]
    sha256: bytes | None
    parts: list[dict[str, Any]]


def members(file: BinaryIO, name: str) -> Iterator[Found]:
    """Yield the members of an archive in their order, reading all of it.

    Raises FormatDamaged where it cannot be read on; what was yielded before is sound.
    """
    stream = _Stream(file, name)
    try:
        with tarfile.open(
            fileobj=stream, mode="r|", bufsize=FRAME, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for info in tar:
                if info.type in _KINDS:
                    yield _found(tar, info, stream)
    except (tarfile.TarError, ValueError, EOFError, OSError, RecursionError) as error:
        raise FormatDamaged(file=name, reason=f"its tar cannot be read: {error}") from error


class _Stream(io.RawIOBase):
    """The tar inside an archive, and the offsets of its frames."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._pieces = frames_from(file, 0, name)
        self._rest = b""
        self.frames: list[int] = []

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size:
            offset, content = next(self._pieces, (-1, b""))
            if offset < 0:
                break
            self.frames.append(offset)
            self._rest += content
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def place(self, position: int) -> tuple[int, int]:
        """Return the frame's offset in the archive, and the bytes to pass over in it."""
        frame, skip = divmod(position, FRAME)
        return self.frames[frame], skip


def _found(tar: tarfile.TarFile, info: tarfile.TarInfo, stream: _Stream) -> Found:
    kind = _KINDS[info.type]
    digest, parts = _content(tar, info, stream) if kind == "file" else (None, [])
    return Found(
        name=_bytes(info.name).rstrip(b"/"),
        kind=kind,
        size=info.size if kind == "file" else 0,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        user=info.uname,
        group=info.gname,
        mtime_ns=_nanoseconds(info),
        link_target=_bytes(info.linkname),
        major=info.devmajor,
        minor=info.devminor,
        xattrs=[
            (_bytes(key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%")), _bytes(text))
            for key, text in info.pax_headers.items()
            if key.startswith(_XATTR)
        ],
        sha256=digest,
        parts=parts,
    )


def _content(
    tar: tarfile.TarFile, info: tarfile.TarInfo, stream: _Stream
) -> tuple[bytes, list[dict[str, Any]]]:
    """Hash a file's content, and say where its data and its holes are."""
    reader = tar.extractfile(info)
    if reader is None or info.size > _LARGEST_HOLE:
        raise ValueError(f"a member of {info.size} bytes")
    extents = [(start, length) for start, length in _extents(info) if length]
    parts: list[dict[str, Any]] = []
    whole, position, data = hashlib.sha256(), 0, info.offset_data
    for start, length in extents:
        if start > position:
            parts.append({"length": start - position})
            _feed(reader, start - position, whole)
        piece = hashlib.sha256()
        _feed(reader, length, whole, piece)
        frame, skip = stream.place(data)  # known once it is read
        parts.append({"frame": frame, "skip": skip, "length": length, "sha256": piece.digest()})
        position, data = start + length, data + length
    if info.size > position:
        parts.append({"length": info.size - position})
        _feed(reader, info.size - position, whole)
    return whole.digest(), parts


def _extents(info: tarfile.TarInfo) -> list[tuple[int, int]]:
    found: Any = info.sparse
    return [(0, info.size)] if found is None else list(found)


def _feed(reader: Any, length: int, *digests: Any) -> None:
    while length:
        piece = reader.read(min(length, _PIECE))
        if not piece:
            raise ValueError("it ends before a member does")
        for digest in digests:
            digest.update(piece)
        length -= len(piece)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _nanoseconds(info: tarfile.TarInfo) -> int:
    """Return the exact time: tarfile itself keeps a float."""
    match = _TIME.fullmatch(info.pax_headers.get("mtime", ""))
    if match is None:
        return int(info.mtime) * 10**9
    sign, seconds, fraction = match.groups()
    value = int(seconds) * 10**9 + int((fraction or "").ljust(9, "0"))
    return -value if sign else value
