"""Contents in a recipe: those that one member has, and those put together from stretches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats import recipe, tar

PLACE = np.dtype([("archive", "<i4"), ("frame", "<i8"), ("skip", "<i8")])
# (archive, offset in the file, frame, skip, length) of a stretch of data.
Piece = tuple[int, int, int, int, int]
_UNSURE = "\N{REPLACEMENT CHARACTER}"


class Parts:
    """The parts of a batch of rows, row by row.

    `as_they_are`: one member has name, metadata and content; `single`: one member has the content;
    `scattered`: stretches make it up; `data`: how many stretches of data there are.
    """

    def __init__(self, rows: pa.RecordBatch, number: Callable[[str], int]) -> None:
        column = rows.column("parts")
        flat = pc.list_flatten(column)
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
        count = rows.num_rows
        encoded = flat.field("archive").dictionary_encode()
        known = encoded.is_valid().to_numpy(zero_copy_only=False)
        numbers = np.array([0, *map(number, encoded.dictionary.to_pylist())], np.int32)
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False) + 1
        self._flat, self._rows = flat, rows
        self._members: list[Any] | None = None
        self._archives = numbers[codes]
        self._starts = np.searchsorted(parents, np.arange(count + 1))
        self.data = np.bincount(parents[known], minlength=count)
        named = flat.field("member").is_valid().to_numpy(zero_copy_only=False)
        own = np.bincount(parents[known & ~named], minlength=count)
        self.places = _first(parents, known, self._archives, flat, count)
        astray = known & (self._archives != self.places["archive"][parents])
        strays = np.bincount(parents[astray], minlength=count)
        self.as_they_are = (self.data > 0) & (own == self.data) & (strays == 0)
        self.single = (self.data == 1) & (np.diff(self._starts) == 1) & ~self.as_they_are
        self.single &= self._is_sure()
        self.scattered = (self.data > 0) & ~self.as_they_are & ~self.single

    def _is_sure(self) -> Any:
        """Tell where the only part's member is known by its very name, and is the whole file."""
        if not len(self._flat):
            return np.zeros(self._rows.num_rows, bool)
        first = pa.array(np.minimum(self._starts[:-1], len(self._flat) - 1))
        names = pc.fill_null(self._flat.field("member").take(first), _UNSURE)
        unsure = pc.match_substring(names, _UNSURE).to_numpy(zero_copy_only=False)
        lengths = self._flat.field("length").take(first).to_numpy(zero_copy_only=False)
        return ~unsure & (lengths == self._rows.column("size").to_numpy(zero_copy_only=False))

    def archive(self, row: int) -> int:
        """Return the number of the archive that has the first data of a row."""
        return int(self.places["archive"][row])

    def place(self, row: int) -> tuple[int, int]:
        """Return where in that archive it lies."""
        return int(self.places["frame"][row]), int(self.places["skip"][row])

    def member(self, row: int) -> bytes:
        """Return the member that has the content of a row whose content one member has."""
        if self._members is None:
            self._members = self._flat.field("member").to_pylist()
        found: str = self._members[int(self._starts[row])]
        return found.encode()

    def pieces(self, row: int) -> Iterator[Piece]:
        """Yield the stretches of data of a row; what lies between them are holes."""
        offset, own = 0, slice(self._starts[row], self._starts[row + 1])
        parts = self._flat[int(own.start) : int(own.stop)].to_pylist()
        for archive, part in zip(self._archives[own].tolist(), parts, strict=True):
            if part["archive"] is not None:
                yield archive, offset, part["frame"], part["skip"], part["length"]
            offset += part["length"]


def _first(parents: Any, known: Any, archives: Any, flat: pa.Array, count: int) -> Any:
    """Return the place of the first data of every row, zeros where there is none."""
    found = np.zeros(count, PLACE)
    index = np.flatnonzero(known)[::-1]  # backwards, so that the first is the one that stays
    found["archive"][parents[index]] = archives[index]
    for name in ("frame", "skip"):
        values = pc.fill_null(flat.field(name), 0).to_numpy(zero_copy_only=False)
        found[name][parents[index]] = values[index]
    return found


class Redo:
    """Files that get a name or metadata which the member with their content does not have.

    A small tar: `members` are to be unpacked from the archive; `pieces` names, in turn, a file with
    a header and one with the content that belongs behind it, so that `cat` gives a tar.
    """

    def __init__(self, path: str) -> None:
        self._tar = recipe.TarFile(path)
        self._pieces: list[bytes] = []
        self._members: dict[bytes, tuple[int, int]] = {}
        self._before = b""
        self.paths: list[bytes] = []

    def add(self, member: tar.Member, content: bytes, place: tuple[int, int]) -> None:
        """Add a file whose content is that of the member called `content`."""
        self.paths.append(member.name)
        self._add_header(tar.header(member))
        self._pieces.append(content)
        self._members[content] = place
        self._before = tar.padding(member.size)

    def _add_header(self, header: bytes) -> None:
        name = b"%d" % len(self._pieces)
        self._tar.add_plain(name, self._before + header)
        self._pieces.append(b"../" + name)

    def close(self) -> None:
        """Write the lists."""
        self._add_header(tar.END)
        members = sorted(self._members, key=lambda name: self._members[name])
        with self._tar as file:
            file.add_plain(b"pieces", recipe.names(self._pieces))
            file.add_plain(b"members", recipe.names(members))


class Large:
    """Files that are put together from stretches, by number from 1.

    `files` are their names and headers; `parts` the lines of each archive.
    """

    def __init__(self, templates: recipe.TarFile) -> None:
        self._templates = templates
        self._sums: list[tuple[int, str]] = []
        self.files: list[tuple[bytes, bytes]] = []
        self.parts: dict[int, list[tuple[int, int, int, int, int]]] = {}

    def add(self, member: tar.Member, digest: bytes | None, pieces: Iterator[Piece]) -> None:
        """Add a file; an empty one of the same metadata goes with it."""
        self.files.append((member.name, tar.header(member)))
        number = len(self.files)
        self._sums.append((member.size, digest.hex() if digest else "-"))
        self._templates.add(member._replace(name=b"%d" % number, size=0))
        for archive, offset, frame, skip, length in pieces:
            found = self.parts.setdefault(archive, [])
            found.append((frame, skip, number, offset, length))

    def facts(self) -> Iterator[tuple[int, int, str]]:
        """Yield number, size and SHA-256 of every file."""
        for number, (size, digest) in enumerate(self._sums, 1):
            yield number, size, digest

    def listed(self, archive: int) -> bytes:
        """Write the stretches that an archive has, in the order of their places."""
        return b"".join(
            recipe.line(number, offset, frame, skip, length)
            for frame, skip, number, offset, length in sorted(self.parts[archive])
        )
