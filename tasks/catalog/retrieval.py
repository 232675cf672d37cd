"""Retrieving contents from the cartridges that are present; not a byte of it unchecked.

A part of a file is decoded and held against its SHA-256 as a whole before any of it is given away.
What was decoded is kept for a while, within bounds: small parts in memory, large ones in unnamed
temporary files. No file on a cartridge stays open, so that its volume can be unmounted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tasks.catalog.cache import Cache
from tasks.catalog.store import Store
from tasks.formats.archive import ARCHIVE_NAME, frame_at
from tasks.media.cartridge import Cartridge
from tasks.media.untrusted import open_untrusted
from tasks.model.errors import CartridgeWanted, FormatDamaged

# Bytes.
_FRAMES = 24 << 20
_SMALL_PARTS = 24 << 20
_LARGE_PARTS = 1 << 30
_SMALL = 8 << 20
# No archive of ours, and so no part, is larger: a hostile manifest must not fill the disk.
_LARGEST_PART = 4 << 30

# Gives a cartridge that is present, by its serial, or None where it is not to be had.
Find = Callable[[int], Cartridge | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a file, in bytes from `offset`; a hole where `archive` is None."""

    offset: int
    length: int
    archive: str | None
    frame: int
    skip: int
    sha256: bytes


def parts_from(column: list[dict[str, Any]], manifest: str) -> list[Part]:
    """Read the `parts` of a row; FormatDamaged, naming the manifest, where they cannot be right."""
    found, offset = [], 0
    for part in column:
        length, archive = part["length"], part["archive"]
        frame, skip, digest = part["frame"] or 0, part["skip"] or 0, part["sha256"] or b""
        if min(length, frame, skip) < 0 or (archive and length > _LARGEST_PART):
            raise FormatDamaged(file=manifest, reason="it has a part of an impossible size")
        if archive and not ARCHIVE_NAME.fullmatch(archive):
            raise FormatDamaged(file=manifest, reason=f"{archive!r} is no name of an archive")
        found.append(
            Part(
                offset=offset, length=length, archive=archive, frame=frame, skip=skip, sha256=digest
            )
        )
        offset += length
    return found


class Retrieval:
    """Contents of one catalog, from the cartridges that `find` gives; threads may share it."""

    def __init__(self, store: Store, find: Find) -> None:
        self._find = find
        self._whereabouts = _Whereabouts(store)
        self._places: dict[int, Cartridge] = {}
        self._frames: Cache[tuple[bytes, int]] = Cache(_FRAMES, lambda frame: len(frame[0]))
        self._small: Cache[bytes] = Cache(_SMALL_PARTS, len)
        self._large: Cache[_Spooled] = Cache(_LARGE_PARTS, lambda part: part.size)

    def read(self, part: Part, start: int, size: int) -> bytes:
        """Return `size` bytes of a part from its byte `start` on, all of it checked.

        Raises CartridgeWanted where its cartridge is not present, FormatDamaged where what lies
        there is not what was stored, and OSError where there is no room for a temporary file.
        """
        size = max(0, min(size, part.length - start))
        if part.archive is None:
            return bytes(size)
        key = part.sha256, part.length
        if part.length <= _SMALL:
            return self._small.get(key, lambda: self._in_memory(part))[start : start + size]
        return self._large.get(key, lambda: self._in_file(part)).read(start, size)

    def _in_memory(self, part: Part) -> bytes:
        return b"".join(self._checked(part))

    def _in_file(self, part: Part) -> _Spooled:
        spooled = _Spooled(part.length)
        for piece in self._checked(part):
            spooled.append(piece)
        return spooled

    def _checked(self, part: Part) -> Iterator[memoryview]:
        """Yield all of a part, and raise FormatDamaged in the end where it is not what it was."""
        digest = hashlib.sha256()
        for piece in self._pieces(part):
            digest.update(piece)
            yield piece
        if digest.digest() != part.sha256:
            self._frames.clear()  # another volume may lie in the same place now
            self._places.clear()
            raise FormatDamaged(file=part.archive, reason="a content has another SHA-256")

    def _pieces(self, part: Part) -> Iterator[memoryview]:
        frame, skip, left = part.frame, part.skip, part.length
        while left > 0:
            content, following = self._frame(part.archive or "", frame)
            if not content:
                raise FormatDamaged(file=part.archive, reason="it ends before a content does")
            piece = memoryview(content)[skip : skip + left]
            skip = max(0, skip - len(content))
            left -= len(piece)
            frame = following
            yield piece

    def _frame(self, archive: str, offset: int) -> tuple[bytes, int]:
        return self._frames.get((archive, offset), lambda: self._decoded(archive, offset))

    def _decoded(self, archive: str, offset: int) -> tuple[bytes, int]:
        """Decode a frame; where the cartridge is not where it was a moment ago, look for it."""
        serial, label = self._whereabouts.of(archive)
        known = self._places.get(serial)
        if known is not None:
            try:
                return _read_frame(known, archive, offset)
            except FormatDamaged:
                self._places.pop(serial, None)
        cartridge = self._find(serial)
        if cartridge is None:
            raise CartridgeWanted(label=label, reason="it is not here")
        self._places[serial] = cartridge
        return _read_frame(cartridge, archive, offset)


def _read_frame(cartridge: Cartridge, archive: str, offset: int) -> tuple[bytes, int]:
    path = cartridge.file(archive)
    try:
        with open_untrusted(path) as file:
            return frame_at(file, offset, path)
    except FileNotFoundError as error:
        raise FormatDamaged(file=path, reason="it is missing") from error


class _Whereabouts:
    """On which cartridge each archive lies, as the catalog says now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._state: object = None
        self._serials: dict[str, int] = {}
        self._labels: dict[int, str] = {}

    def of(self, archive: str) -> tuple[int, str]:
        """Return a serial and a label; FormatDamaged where the catalog does not know."""
        with self._lock:
            self._refresh()
            serial = self._serials.get(archive, 0)
            if serial not in self._labels:
                reason = "the catalog knows no cartridge that has it"
                raise FormatDamaged(file=archive, reason=reason)
            return serial, self._labels[serial]

    def _refresh(self) -> None:
        """Read both tables again where a run has replaced one."""
        state = _state(self._store.archives_path), _state(self._store.cartridges_path)
        if state != self._state:
            self._serials = {row.archive: row.cartridge for row in self._store.archives()}
            self._labels = {row.serial: row.label for row in self._store.cartridges()}
            self._state = state


def _state(path: str) -> tuple[int, ...]:
    """Return what changes when a file is replaced."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return ()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


class _Spooled:
    """A part in a temporary file that has no name: it is gone when nobody needs it any more."""

    def __init__(self, size: int) -> None:
        self.size = size
        with tempfile.TemporaryFile() as file:
            self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)

    def append(self, piece: memoryview) -> None:
        """Write on; OSError where there is no room."""
        while piece:
            piece = piece[os.write(self._fd, piece) :]

    def read(self, start: int, size: int) -> bytes:
        """Read some of it; threads may do so at the same time."""
        return os.pread(self._fd, size, start)
