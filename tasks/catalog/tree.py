"""A snapshot as a tree of folders, read from its manifest no further than somebody looks."""

from __future__ import annotations

import bisect
import errno
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.cache import Cache
from tasks.catalog.listing import Listing, Piece, list_folder
from tasks.catalog.retrieval import Part, parts_from
from tasks.catalog.rowgroups import RowGroup, row_groups
from tasks.formats.manifest import (
    attribute_name,
    keys,
    named_attributes,
    read_info,
    words,
)
from tasks.model.errors import FormatDamaged
from tasks.model.units import snapshot_time
from tasks.model.words import SnapshotInfo, SourceRoot

_FACTS = [
    *("source", "path", "raw_path", "type", "size", "mtime", "ctime", "mode", "uid", "gid"),
    *("nlink", "rdev", "link_target"),
]
_CONTENT = ["xattrs", "parts"]
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
    """The rows of a piece, and their keys to search by halves."""

    rows: pa.RecordBatch
    keys: pa.Array

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return int(self.rows.nbytes + self.keys.nbytes) + _SMALL

    def find(self, key: bytes) -> int | None:
        """Return the number of the row with a key."""
        count = len(self.keys)
        row = bisect.bisect_left(range(count), key, key=lambda i: self.keys[i].as_py())
        return row if row < count and self.keys[row].as_py() == key else None


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where the row of an entry is: a piece of its folder's listing, and the row in that."""

    folder: bytes
    piece: int
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
        facts = os.stat(manifest)
        self._identity = (manifest, facts.st_ino, facts.st_mtime_ns, facts.st_size)
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
            kinds = words(page.rows.column("type")).to_pylist()
            targets = page.rows.column("link_target").to_pylist()
            for key, kind, target in zip(page.keys.to_pylist(), kinds, targets, strict=True):
                path = key[:-1] if kind == "dir" else key
                name = path[len(folder) + 1 :]
                if _is_name(name):
                    yield name, kind, source + (target or b"") if kind == "hardlink" else path
        for name in sorted(filter(_is_name, listing.implied)):
            yield name, "dir", folder + b"/" + name

    def entry(self, path: bytes) -> Entry:
        """Return what is known of an entry, of a file by its first name."""
        entry = self._entry(path)
        if entry.kind != "hardlink":
            return entry
        first = self._entry(path.partition(b"/")[0] + b"/" + entry.link_target)
        if first.kind == "hardlink":
            raise FormatDamaged(file=self._manifest, reason="a hard link in it names another")
        return first

    def attributes(self, path: bytes) -> Attributes:
        """Return the extended attributes of an entry."""
        entry = self.entry(path)
        if b"/" not in entry.path:
            root = self._footer().roots.get(entry.path)
            pairs = root.xattrs.items() if root else ()
            return [(attribute_name(name), bytes.fromhex(value)) for name, value in pairs]
        pairs = self._content(entry.path, "xattrs")
        return named_attributes(pairs) or []

    def parts(self, path: bytes) -> list[Part]:
        """Return what the content of a file is made of, in order."""
        return parts_from(self._content(self.entry(path).path, "parts") or [], self._manifest)

    def _content(self, path: bytes, column: str) -> Any:
        spot = self._spot(path)
        if spot is None:
            return None
        piece = self._listing(spot.folder).pieces[spot.piece]
        rows = self._kept(
            "content",
            spot.folder,
            spot.piece,
            make=lambda: self._read(piece.group, piece.index, _CONTENT),
        )
        return rows.column(column)[spot.row].as_py()

    def _entry(self, path: bytes) -> Entry:
        if b"/" not in path:
            return self._root(path)
        spot = self._spot(path)
        if spot is not None:
            return _described(path, self._page(spot.folder, spot.piece).rows, spot.row)
        folder, _, name = path.rpartition(b"/")
        if name in self._listing(folder).implied:
            return self._folder(path, None)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))

    def _root(self, source: bytes) -> Entry:
        if source not in self.sources():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(source))
        return self._folder(source, self._footer().roots.get(source))

    def _folder(self, path: bytes, root: SourceRoot | None) -> Entry:
        """Describe a folder that has no row."""
        time_ns = root.mtime_ns if root else _time_ns(self._snapshot)
        return Entry(
            path=path,
            kind="dir",
            size=0,
            mtime_ns=time_ns,
            ctime_ns=time_ns,
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
            row = self._page(folder, number).find(key) if number >= 0 else None
            if row is not None:
                return _Spot(folder, number, row)
        return None

    def _footer(self) -> _Footer:
        footer: _Footer = self._kept("footer", make=self._read_footer)
        return footer

    def _listing(self, folder: bytes) -> Listing:
        listing: Listing = self._kept("listing", folder, make=lambda: self._list(folder))
        return listing

    def _page(self, folder: bytes, number: int) -> _Page:
        piece = self._listing(folder).pieces[number]
        page: _Page = self._kept("page", folder, number, make=lambda: self._read_page(piece))
        return page

    def _kept(self, *key: Hashable, make: Any) -> Any:
        """Return what is in the cache, or make it of the manifest."""

        def reading() -> Any:
            try:
                return make()
            except FileNotFoundError as error:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from error

        return self._cache.get((self._identity, *key), reading)

    def _read_footer(self) -> _Footer:
        info = read_info(self._manifest, SnapshotInfo)
        groups = row_groups(self._manifest)
        roots = {root.source.encode(): root for root in info.roots}
        sources = set(roots).union(*map(_sources, groups))
        return _Footer(groups, roots, sorted(filter(_is_name, sources)), info.complete)

    def _list(self, folder: bytes) -> Listing:
        footer = self._footer()
        return list_folder(footer.groups, folder, footer.complete)

    def _read_page(self, piece: Piece) -> _Page:
        rows = self._read(piece.group, piece.index, _FACTS)
        return _Page(rows, keys(rows))

    def _read(self, group: RowGroup, index: Any, columns: list[str]) -> pa.RecordBatch:
        try:
            return group.rows(index, columns)
        except KeyError as error:
            reason = f"its columns are not those of a manifest: {error}"
            raise FormatDamaged(file=self._manifest, reason=reason) from error


def _sources(group: RowGroup) -> set[bytes]:
    if group.sources is not None and group.sources[0] == group.sources[1]:
        return {group.sources[0].encode()}
    column = words(group.read(["source"]).column(0))
    return {name.encode() for name in pc.unique(column).to_pylist()}


def _is_name(name: bytes) -> bool:
    """Whether a file system can show an entry of that name."""
    odd = name in _NO_NAMES or len(name) > _LONGEST_NAME
    return not odd and b"/" not in name and b"\0" not in name


def _time_ns(snapshot: str) -> int:
    return int(snapshot_time(snapshot).timestamp()) * 1_000_000_000


def _described(path: bytes, rows: pa.RecordBatch, row: int) -> Entry:
    def fact(name: str) -> Any:
        return rows.column(name)[row].as_py()

    kind = fact("type")
    return Entry(
        path=path,
        kind=kind,
        size=fact("size") or 0,
        mtime_ns=rows.column("mtime")[row].value or 0,
        ctime_ns=rows.column("ctime")[row].value or 0,
        mode=fact("mode") or 0,
        uid=fact("uid") or 0,
        gid=fact("gid") or 0,
        nlink=1 if kind == "dir" else fact("nlink") or 1,
        rdev=fact("rdev") or 0,
        link_target=fact("link_target") or b"",
    )
