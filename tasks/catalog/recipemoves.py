"""Files in a recipe that moved with their folder: tar itself gives them their new names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.contents import marks
from tasks.catalog.recipeparts import Parts
from tasks.formats import recipe
from tasks.formats.manifest import integers

_COLUMNS = ["archive", "frame", "skip", "mark"]
_FACTS = ("mtime", "mode", "uid", "gid")
# How often tar reads an archive again for members that have more than one new place.
_PASSES = 4
# Bytes of rules that are given to tar; the system takes 131,072 in one word.
_LONGEST = 60_000
# More rules would take longer than they spare: tar tries each on every member.
_MOST = 200
_SPECIAL = frozenset(b"\\.[*^$")
_DELIMITERS = bytes([*b",:;|#%@!~=+", *range(1, 10)])
_SKIP_BITS = 23


StoredBy = Callable[[str, Sequence[str]], Iterable[pa.RecordBatch]]


class Metadata:
    """The metadata of members; `stored_by` gives columns of what a snapshot stored."""

    def __init__(self, stored_by: StoredBy) -> None:
        self._stored_by = stored_by
        self._known: dict[str, dict[str, tuple[Any, Any]]] = {}

    def alike(self, rows: pa.RecordBatch, parts: Parts, archives: list[str]) -> Any:
        """Tell the rows whose content one member has, and the very same metadata.

        Files with attributes, or with more than one name, are not among them.
        """
        found = np.zeros(rows.num_rows, bool)
        plain = pc.is_null(rows.column("xattrs")).to_numpy(zero_copy_only=False)
        chosen = parts.single & plain & (integers(rows.column("nlink")) == 1)
        if not chosen.any():
            return found
        wanted = marks(*(integers(rows.column(name)) for name in _FACTS))
        for number in np.unique(parts.places["archive"][chosen]):
            index = np.flatnonzero(chosen & (parts.places["archive"] == number))
            places, known = self._of(archives[number - 1])
            mine = _place(parts.places[index])
            at = np.minimum(np.searchsorted(places, mine), max(len(places) - 1, 0))
            if len(places):
                found[index] = (places[at] == mine) & (known[at] == wanted[index])
        return found

    def _of(self, archive: str) -> tuple[Any, Any]:
        """Return the places of an archive's members, sorted, and the marks of their metadata."""
        snapshot = archive.split("/")[1] if archive.count("/") == 2 else ""
        if snapshot not in self._known:
            self._known[snapshot] = dict(_by_archive(self._stored_by(snapshot, _COLUMNS)))
        nothing = np.empty(0, np.int64)
        return self._known[snapshot].get(archive, (nothing, nothing))


def _by_archive(contents: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    found = [batch for batch in contents if "mark" in batch.schema.names]
    if not found:
        return
    table = pa.Table.from_batches(found).combine_chunks()
    table = table.filter(pc.is_valid(table.column("mark")))
    archives = table.column("archive").combine_chunks().dictionary_encode()
    codes = archives.indices.to_numpy(zero_copy_only=False)
    places = _place({name: table.column(name).to_numpy() for name in ("frame", "skip")})
    known = table.column("mark").to_numpy()
    for code, name in enumerate(archives.dictionary.to_pylist()):
        index = np.flatnonzero(codes == code)
        index = index[np.argsort(places[index], kind="stable")]
        yield name, (places[index], known[index])


def _place(places: Any) -> Any:
    """Make one number of frame and skip."""
    return (places["frame"] << _SKIP_BITS) ^ places["skip"]


class Moves:
    """What one archive holds of files in folders that moved, in as many passes as it takes."""

    def __init__(self) -> None:
        self.passes: list[Renaming] = []

    def add(self, old: bytes, new: bytes, place: tuple[int, int]) -> bool:
        """Add the file `new`, which the member `old` is; False where no pass can have it."""
        if old.rpartition(b"/")[2] != new.rpartition(b"/")[2]:
            return False
        if any(one.add(old, new, place) for one in self.passes):
            return True
        if len(self.passes) == _PASSES:
            return False
        self.passes.append(Renaming())
        return self.passes[-1].add(old, new, place)


class Renaming:
    """One pass of tar over an archive: members, and rules for the folders that they lie in.

    Of all rules for folders above a member, that for the innermost holds.
    """

    def __init__(self) -> None:
        self._rules: dict[bytes, bytes] = {}
        self._size = 0
        # Folders of which a file, at whatever depth, has been added: rules for these are settled.
        self._settled: set[bytes] = set()
        self._files: dict[bytes, tuple[tuple[int, int], bytes]] = {}

    def add(self, old: bytes, new: bytes, place: tuple[int, int]) -> bool:
        """Add a file of the same last name; False where its new folder is not that of the rules."""
        here, there = old.rpartition(b"/")[0], new.rpartition(b"/")[0]
        if old in self._files or (self._implied(here) != there and not self._rule(here, there)):
            return False
        self._files[old] = place, new
        while here and here not in self._settled:
            self._settled.add(here)
            here = here.rpartition(b"/")[0]
        return True

    def _implied(self, folder: bytes) -> bytes | None:
        """Return where the rules put the files of a folder, None where there is none."""
        above = folder
        while above and above not in self._rules:
            above = above.rpartition(b"/")[0]
        return self._rules[above] + folder[len(above) :] if above else None

    def _rule(self, here: bytes, there: bytes) -> bool:
        """Make a rule, for the outermost folder that may have moved, else for the folder itself."""
        for old, new in dict.fromkeys((_outermost(here, there), (here, there))):
            text = _substitution(old, new)
            fits = len(self._rules) < _MOST and self._size + len(text) < _LONGEST
            if text and fits and old not in self._settled and old not in self._rules:
                self._rules[old] = new
                self._size += len(text) + 1
                return True
        return False

    @property
    def pairs(self) -> bytes:
        """The new and the old name of every file, in the order of the archive."""
        return recipe.names([name for _, old, new in self._in_order() for name in (new, old)])

    @property
    def members(self) -> bytes:
        """The old names alone, in the same order."""
        return recipe.names([old for _, old, _ in self._in_order()])

    def _in_order(self) -> list[tuple[tuple[int, int], bytes, bytes]]:
        return sorted((place, old, new) for old, (place, new) in self._files.items())

    @property
    def rules(self) -> bytes:
        """The rules as `tar --transform` takes them: no name is changed twice."""
        inner_first = sorted(self._rules, key=len, reverse=True)
        texts = [_substitution(old, self._rules[old]) for old in inner_first]
        return b";".join([*texts, b"s,^//,,"])


def _outermost(here: bytes, there: bytes) -> tuple[bytes, bytes]:
    """Return the folders that are left when equal last names are taken off."""
    while here != there:
        above, _, name = here.rpartition(b"/")
        other, _, last = there.rpartition(b"/")
        if name != last or not above or not other:
            break
        here, there = above, other
    return here, there


def _substitution(old: bytes, new: bytes) -> bytes:
    """Write the rule that puts what lies in `old` into `new`, marked by two slashes in front.

    Nothing where no character is left to set its parts apart.
    """
    limit = next((bytes([c]) for c in _DELIMITERS if c not in old + new), None)
    if limit is None:
        return b""
    pattern = b"".join(b"\\" * (c in _SPECIAL) + bytes([c]) for c in old)
    replacement = new.replace(b"\\", b"\\\\").replace(b"&", b"\\&")
    return b"s" + limit + b"^" + pattern + b"/" + limit + b"//" + replacement + b"/" + limit
