"""A snapshot as a tree of folders, read from its manifest no further than somebody looks."""

from __future__ import annotations

import bisect
import errno
import os
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.cache import Cache
from tasks.catalog.listing import Listing, Piece, list_folder
from tasks.catalog.retrieval import Part, parts_from
from tasks.catalog.rowgroups import RowGroup, row_groups
from tasks.formats.manifest import (
    PARTS,
    XATTRS,
    attribute_name,
    integers,
    keys,
    named_attributes,
    read_info,
    words,
)
from tasks.model.errors import FormatDamaged
from tasks.model.units import snapshot_time
from tasks.model.words import SnapshotInfo, SourceRoot

# Fields of an entry, and the columns that have them.
_NUMBERS = {
    **{name: name for name in ("size", "mode", "uid", "gid", "nlink", "rdev")},
    **{"mtime_ns": "mtime", "ctime_ns": "ctime"},
}
_FACTS = ["source", "path", "raw_path", "type", "link_target", *_NUMBERS.values()]
# Bytes of rows, listings and footers that are kept; the rest is read again.
CACHED = 64 << 20
_SMALL = 1000
# Names that are none: only a manifest made to attack has them.
_NO_NAMES = {b"", b".", b".."}
_LONGEST_NAME = 255

Attributes = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a snapshot knows of one entry; `path` is `<source>/<path>`, in raw bytes.

    A further name of a file is described by the file's first name.
    """

    path: bytes
    kind: str
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    link_target: bytes


@dataclass(frozen=True, slots=True)
class _Page:
    """The facts of the rows of a piece, in plain columns, and their keys to search by halves."""

    keys: list[bytes]
    kinds: list[str]
    numbers: dict[str, Any]
    targets: pa.Array

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        columns = sum(int(column.nbytes) for column in self.numbers.values())
        return columns + int(self.targets.nbytes) + sum(map(len, self.keys)) + 60 * len(self.keys)

    def find(self, key: bytes) -> int | None:
        """Return the number of the row with a key."""
        row = bisect.bisect_left(self.keys, key)
        return row if row < len(self.keys) and self.keys[row] == key else None

    def entry(self, path: bytes, row: int) -> Entry:
        """Describe a row."""
        kind = self.kinds[row]
        facts = {name: int(column[row]) for name, column in self.numbers.items()}
        if kind == "dir" or not facts["nlink"]:
            facts["nlink"] = 1  # nobody then counts on as many folders in it
        return Entry(path=path, kind=kind, link_target=self.targets[row].as_py() or b"", **facts)


@dataclass(frozen=True, slots=True)
class _Contents:
    """The attributes and parts of the rows of a piece, and how many bytes are no holes."""

    xattrs: pa.Array
    parts: pa.Array
    stored: Any

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return int(self.xattrs.nbytes + self.parts.nbytes + self.stored.nbytes)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where the row of an entry is: a piece of its folder's listing, its page, and the row."""

    folder: bytes
    number: int
    page: _Page
    row: int


@dataclass(frozen=True, slots=True)
class _Footer:
    """What the footer of a manifest says."""

    groups: list[RowGroup]
    roots: dict[bytes, SourceRoot]
    sources: list[bytes]
    complete: bool

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _SMALL * (len(self.groups) + len(self.roots) + 1)


Known = Cache[Any]


def new_cache() -> Known:
    """Return a cache that the trees of many snapshots share."""
    return Cache(CACHED, lambda value: int(value.nbytes))


class SnapshotTree:
    """The tree of one manifest; paths are `<source>/<path>` in raw bytes, no slash at either end.

    All that was read lies in a cache and may be forgotten. Every method raises FormatDamaged where
    the manifest is, and OSError ESTALE where it is no more; those given a path FileNotFoundError
    where there is no such entry.
    """

    def __init__(self, manifest: str, snapshot: str, cache: Known) -> None:
        self._manifest = manifest
        self._snapshot = snapshot
        self._cache = cache

    def sources(self) -> list[bytes]:
        """Return the names of the sources, sorted."""
        return self._footer().sources

    def names(self, folder: bytes) -> Iterator[tuple[bytes, str, bytes]]:
        """Yield the name of each entry in a folder, its type, and the first path of its file."""
        listing = self._listing(folder)
        source = folder.partition(b"/")[0] + b"/"
        for number in range(len(listing.pieces)):
            page = self._page(folder, number)
            targets = page.targets.to_pylist()
            for key, kind, target in zip(page.keys, page.kinds, targets, strict=True):
                path = key[:-1] if kind == "dir" else key
                name = path[len(folder) + 1 :]
                if _is_name(name):
                    yield name, kind, source + (target or b"") if kind == "hardlink" else path
        for name in sorted(filter(_is_name, listing.implied)):
            yield name, "dir", folder + b"/" + name

    def entry(self, path: bytes) -> Entry:
        """Return what is known of an entry, of a file by its first name."""
        return self._resolved(path)[0]

    def attributes(self, path: bytes) -> Attributes:
        """Return the extended attributes of an entry."""
        entry, spot = self._resolved(path)
        if b"/" not in entry.path:
            root = self._footer().roots.get(entry.path)
            pairs = root.xattrs.items() if root else ()
            return [(attribute_name(name), bytes.fromhex(value)) for name, value in pairs]
        contents, row = self._contents(spot)
        if contents.xattrs.null_count == len(contents.xattrs):
            return []
        return named_attributes(contents.xattrs[row].as_py()) or []

    def parts(self, path: bytes) -> list[Part]:
        """Return what the content of a file is made of, in order."""
        contents, row = self._contents(self._resolved(path)[1])
        return parts_from(contents.parts[row].as_py() or [], self._manifest)

    def stored(self, path: bytes) -> int:
        """Return how many bytes of a file are no holes."""
        contents, row = self._contents(self._resolved(path)[1])
        return int(contents.stored[row])

    def _resolved(self, path: bytes) -> tuple[Entry, _Spot | None]:
        """Find an entry, by its first name, and its row, which not every folder has."""
        entry, spot = self._found(path)
        if entry.kind != "hardlink":
            return entry, spot
        try:
            first, spot = self._found(path.partition(b"/")[0] + b"/" + entry.link_target)
        except FileNotFoundError:
            reason = "the first name of a hard link is not in it"
            raise FormatDamaged(file=self._manifest, reason=reason) from None
        if first.kind == "hardlink":
            raise FormatDamaged(file=self._manifest, reason="a hard link in it names another")
        return first, spot

    def _found(self, path: bytes) -> tuple[Entry, _Spot | None]:
        if b"/" not in path:
            return self._root(path), None
        spot = self._spot(path)
        if spot is not None:
            return spot.page.entry(path, spot.row), spot
        folder, _, name = path.rpartition(b"/")
        if name in self._listing(folder).implied:
            return self._folder(path, None), None
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))

    def _contents(self, spot: _Spot | None) -> tuple[_Contents, int]:
        if spot is None:
            return _NOTHING, 0
        contents: _Contents = self._kept(
            "contents", spot.folder, spot.number, make=lambda: self._read_contents(spot)
        )
        return contents, spot.row

    def _root(self, source: bytes) -> Entry:
        if source not in self.sources():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(source))
        return self._folder(source, self._footer().roots.get(source))

    def _folder(self, path: bytes, root: SourceRoot | None) -> Entry:
        """Describe a folder that has no row."""
        moment = root.mtime_ns if root else time_ns(self._snapshot)
        return Entry(
            path=path,
            kind="dir",
            size=0,
            mtime_ns=moment,
            ctime_ns=moment,
            mode=root.mode if root else 0o755,
            uid=root.uid if root else os.getuid(),
            gid=root.gid if root else os.getgid(),
            nlink=1,
            rdev=0,
            link_target=b"",
        )

    def _spot(self, path: bytes) -> _Spot | None:
        folder = path.rpartition(b"/")[0]
        pieces = self._listing(folder).pieces
        for key in (path, path + b"/"):
            number = bisect.bisect_right(pieces, key, key=lambda piece: piece.first) - 1
            if number < 0:
                continue
            page = self._page(folder, number)
            row = page.find(key)
            if row is not None:
                return _Spot(folder, number, page, row)
        return None

    def _footer(self) -> _Footer:
        footer: _Footer = self._kept("footer", make=self._read_footer)
        return footer

    def _listing(self, folder: bytes) -> Listing:
        listing: Listing = self._kept("listing", folder, make=lambda: self._list(folder))
        return listing

    def _page(self, folder: bytes, number: int) -> _Page:
        key = ("page", folder, number)
        page: _Page = self._kept(*key, make=lambda: self._read_page(folder, number))
        return page

    def _kept(self, *key: Hashable, make: Any) -> Any:
        """Return what is in the cache, or make it of the manifest."""

        def reading() -> Any:
            try:
                return make()
            except FileNotFoundError as error:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error

        return self._cache.get((self, *key), reading)

    def _read_footer(self) -> _Footer:
        info = read_info(self._manifest, SnapshotInfo)
        groups = row_groups(self._manifest)
        roots = {root.source.encode(): root for root in info.roots}
        sources = set(roots).union(*map(_sources, groups))
        return _Footer(groups, roots, sorted(filter(_is_name, sources)), info.complete)

    def _list(self, folder: bytes) -> Listing:
        footer = self._footer()
        return list_folder(footer.groups, folder, footer.complete)

    def _read_page(self, folder: bytes, number: int) -> _Page:
        rows = self._read(self._listing(folder).pieces[number], _FACTS)
        kinds = [sys.intern(kind) for kind in words(rows.column("type")).to_pylist()]
        numbers = {field: integers(rows.column(name)) for field, name in _NUMBERS.items()}
        return _Page(keys(rows).to_pylist(), kinds, numbers, rows.column("link_target"))

    def _read_contents(self, spot: _Spot) -> _Contents:
        rows = self._read(self._listing(spot.folder).pieces[spot.number], ["xattrs", "parts"])
        parts = rows.column("parts")
        return _Contents(rows.column("xattrs"), parts, _stored(parts))

    def _read(self, piece: Piece, columns: list[str]) -> pa.RecordBatch:
        try:
            return piece.group.rows(piece.index, columns)
        except KeyError as error:
            reason = f"its columns are not those of a manifest: {error}"
            raise FormatDamaged(file=self._manifest, reason=reason) from error


def _stored(parts: pa.Array) -> Any:
    """Add up, for each row, the lengths of the parts that are no holes."""
    flat = pc.list_flatten(parts)
    rows = pc.list_parent_indices(parts).to_numpy(zero_copy_only=False)
    lengths = integers(flat.field("length"))
    is_data = flat.field("archive").is_valid().to_numpy(zero_copy_only=False)
    return np.bincount(rows, lengths * is_data, len(parts)).astype(np.int64)


def _sources(group: RowGroup) -> set[bytes]:
    if group.sources is not None and group.sources[0] == group.sources[1]:
        return {group.sources[0].encode()}
    column = words(group.read(["source"]).column(0))
    return {name.encode() for name in pc.unique(column).to_pylist()}


def _is_name(name: bytes) -> bool:
    """Whether a file system can show an entry of that name."""
    odd = name in _NO_NAMES or len(name) > _LONGEST_NAME
    return not odd and b"/" not in name and b"\0" not in name


def time_ns(snapshot: str) -> int:
    """Return when a snapshot began, in nanoseconds since 1970."""
    return int(snapshot_time(snapshot).timestamp()) * 1_000_000_000


_NOTHING = _Contents(pa.nulls(1, XATTRS), pa.nulls(1, PARTS), np.zeros(1, np.int64))
