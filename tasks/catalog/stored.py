"""Files as they are stored: put together from archives on cartridges, checked on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.catalog.selection import Need, Selected
from tasks.formats.archive import ContentReader
from tasks.media.stable import zeros
from tasks.media.untrusted import open_untrusted
from tasks.model.errors import FormatDamaged


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: its size in bytes, its SHA-256 where one is known, and its stretches in order.

    Of one that is torn, the catalog does not know them.
    """

    size: int
    sha256: bytes | None
    needs: list[Need]
    is_torn: bool

    @property
    def is_whole(self) -> bool:
        """Whether all of it is one stretch, whose hash then is that of the file."""
        return len(self.needs) == 1 and self.needs[0].length == self.size

    def extents(self) -> list[tuple[int, int]]:
        """Return (offset, length) of its data in bytes; holes lie between them and at the end."""
        found: list[tuple[int, int]] = []
        for need in self.needs:
            if found and sum(found[-1]) == need.offset:
                found[-1] = (found[-1][0], found[-1][1] + need.length)
            else:
                found.append((need.offset, need.length))
        return found


class StoredFiles:
    """The files of a selection; `folders` says where each cartridge is, by serial.

    The archive that was read last stays open, so files are best read in the order of `rows`.
    """

    def __init__(self, selected: Selected, folders: Mapping[int, str]) -> None:
        self._archives = selected.archives
        self._folders = [
            next((folders[serial] for serial in serials if serial in folders), None)
            for serials in selected.holders
        ]
        self._sizes = selected.rows.column("size").to_numpy()
        self._digests = selected.rows.column("sha256")
        self._torn = selected.torn
        needs = selected.needs
        _, firsts = np.unique(needs["row"], return_index=True)
        self.rows: list[int] = needs["row"][np.sort(firsts)].tolist()
        self._needs = needs[np.lexsort((needs["offset"], needs["row"]))]
        self._file: Any = None
        self._number = -1
        self._reader: ContentReader | None = None

    def file(self, row: int) -> StoredFile:
        """Return the file of a row."""
        low, high = np.searchsorted(self._needs["row"], [row, row + 1])
        needs = list(Need.each(self._needs[low:high]))
        digest = self._digests[row].as_py()
        return StoredFile(int(self._sizes[row]), digest, needs, row in self._torn)

    def stretches(self, file: StoredFile) -> Iterator[tuple[int, Iterator[memoryview]]]:
        """Yield offset and pieces of every stretch of data, in order; each is to be used up.

        Raises FormatDamaged at once where the file is torn. The pieces of a stretch end with it
        where they are not what was stored, and the last one where the file as a whole is not.
        """
        if file.is_torn:
            raise FormatDamaged(file="the catalog", reason="its parts do not make a file up")
        whole = hashlib.sha256()
        position = 0
        for need in file.needs:
            pieces = self._pieces(need)
            if need.offset < position:
                raise FormatDamaged(file="the catalog", reason="parts of a file overlap in it")
            if file.is_whole or file.sha256 is None:
                yield need.offset, pieces
            else:
                _feed_zeros(whole, need.offset - position)
                yield need.offset, _fed(whole, pieces)
            position = need.offset + need.length
        if position > file.size:
            raise FormatDamaged(file="the catalog", reason="a file in it is larger than its size")
        self._check(file, whole, file.size - position)

    def _check(self, file: StoredFile, whole: Any, rest: int) -> None:
        if file.sha256 is None:  # a manifest made of archives does not know it
            return
        digest = file.needs[0].sha256 if file.is_whole else None
        if digest is None:
            _feed_zeros(whole, rest)
            digest = whole.digest()
        if digest != file.sha256:
            raise FormatDamaged(file="the file", reason="put together it is not what was stored")

    def _pieces(self, need: Need) -> Iterator[memoryview]:
        return self._open(need.archive).checked(need.frame, need.skip, need.length, need.sha256)

    def _open(self, number: int) -> ContentReader:
        if number == self._number and self._reader is not None:
            return self._reader
        self.close()
        name, folder = self._archives[number], self._folders[number]
        if folder is None:
            raise FormatDamaged(file=name, reason="its cartridge is not there")
        try:
            self._file = open_untrusted(os.path.join(folder, name))
        except FileNotFoundError as error:
            raise FormatDamaged(file=name, reason="it is not on its cartridge") from error
        self._number, self._reader = number, ContentReader(self._file, name)
        return self._reader

    def close(self) -> None:
        """Let go of the archive that is open: nobody can eject a medium before."""
        if self._file is not None:
            self._file.close()
        self._file, self._number, self._reader = None, -1, None


def _fed(digest: Any, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _feed_zeros(digest: Any, count: int) -> None:
    for piece in zeros(count):
        digest.update(piece)
