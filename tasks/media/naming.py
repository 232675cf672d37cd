"""Names that stay apart where a file system takes some for the same, or refuses them."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable

from tasks.media.destination import Destination, Place
from tasks.media.traits import Scratch

_ODD = re.compile(rb'[\x00-\x1f\x7f:?*"<>|\\]|^ |[. ]$|^(con|prn|aux|nul|com.|lpt.)(\.|$)', re.I)
_LONG = 143  # bytes: what the strictest file systems take
_KEPT = 100  # characters of a long name that its substitute keeps
_UNSAFE = re.compile('[\x00-\x1f\x7f:?*"<>|\\\\\N{REPLACEMENT CHARACTER}]')


def folded(name: bytes) -> str:
    """Return what is equal for names that any file system takes for the same.

    They may differ in case, in Unicode's composition, in characters that show nothing, and in dots
    and spaces at the end.
    """
    text = name.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.upper().casefold())
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = unicodedata.normalize("NFKD", text)
    return text.upper().casefold().rstrip(". ")


def substitute(name: bytes, attempt: int = 0) -> bytes:
    """Return the name that an entry gets where it cannot have its own; always the same one.

    It is made of what all file systems take, with a mark before the extension that no other name
    in the folder has; `attempt` makes others.
    """
    digest = hashlib.sha256(b"%d/" % attempt + name if attempt else name)
    text = _UNSAFE.sub("_", name.decode("utf-8", "replace")).strip(" ").rstrip(". ")
    stem, extension = os.path.splitext(text)
    return f"{stem[:_KEPT]}~{digest.hexdigest()[:8]}{extension[: _KEPT // 5]}".encode()


def substitute_path(key: bytes) -> bytes:
    """Return where an entry lies that has a substitute for its name, in a folder that has none."""
    folder, slash, name = key.rpartition(b"/")
    return folder + slash + substitute(name)


def is_odd(name: bytes) -> bool:
    """Whether some file system may refuse or alter a name."""
    if len(name) > _LONG or _ODD.search(name):
        return True
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


class Naming:
    """Which name each entry gets below a destination; folders are entered from the outermost in.

    Of entries that the place takes for the same, one keeps its name: one that is there under it
    from an earlier restore, else the first in byte order. The others get substitutes. What lies
    there and is not of the snapshot keeps its name in any case.
    """

    def __init__(self, place: Destination, keys: Iterable[bytes], alike: Iterable[bytes]) -> None:
        """`keys` are those of all entries, `alike` those that may be taken for another one."""
        self._place = place
        self._keys = keys
        self._alike = _by_folder(alike)
        self._all: dict[bytes, list[bytes]] | None = None
        self._odd: dict[bytes, list[bytes]] | None = None
        self._folders: dict[bytes, bytes] = {}
        self.renamed: dict[bytes, bytes] = {}

    def path(self, key: bytes) -> bytes:
        """Return where an entry is restored; its folder has to be entered before."""
        if not self.renamed:
            return key
        parent, slash, name = key.rpartition(b"/")
        return self._folders.get(parent, parent) + slash + self.renamed.get(key, name)

    def enter(self, key: bytes, folder: Place) -> None:
        """Choose the names of what lies in a folder that has just been made, or was there."""
        path = self.path(key) if key else key
        if path != key:
            self._folders[key] = path
        names = {*self._alike.get(key, ()), *self._odd_names(key)}
        others = folder.names.difference(self._children(key)) if folder.names else frozenset()
        if others:
            shapes = {folded(name) for name in others}
            names |= {name for name in self._children(key) if folded(name) in shapes}
        if names:
            with self._place.scratch(path) as scratch:
                self._choose(key, names, folder.names, others, scratch)

    def _choose(
        self,
        key: bytes,
        names: set[bytes],
        there: Collection[bytes],
        others: Collection[bytes],
        scratch: Scratch,
    ) -> None:
        holders: dict[str, list[bytes]] = {}
        for name in others:
            holders.setdefault(folded(name), []).append(name)
        for name in sorted(names, key=lambda name: (name not in there, name)):
            rivals = holders.setdefault(folded(name), [])
            keeps = self._place.takes_any_name or scratch.keeps(name)
            if keeps and not any(scratch.confuses(name, rival) for rival in rivals):
                rivals.append(name)
            else:
                whole = key + b"/" + name if key else name
                self.renamed[whole] = self._free_substitute(key, name)

    def _free_substitute(self, key: bytes, name: bytes) -> bytes:
        """Return a name that no entry of the snapshot has in this folder."""
        taken = {folded(child) for child in self._children(key)}
        attempts = (substitute(name, attempt) for attempt in range(1 << 20))
        return next(found for found in attempts if folded(found) not in taken)

    def _children(self, key: bytes) -> list[bytes]:
        if self._all is None:
            self._all = _by_folder(self._keys)
        return self._all.get(key, [])

    def _odd_names(self, key: bytes) -> list[bytes]:
        if self._place.takes_any_name:
            return []
        if self._odd is None:
            self._odd = _by_folder(k for k in self._keys if is_odd(k.rpartition(b"/")[2]))
        return self._odd.get(key, [])


def _by_folder(keys: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return the names below each folder; the sources lie in the folder b""."""
    found: dict[bytes, list[bytes]] = {}
    for key in keys:
        parent, _, name = key.rpartition(b"/")
        found.setdefault(parent, []).append(name)
    return found
