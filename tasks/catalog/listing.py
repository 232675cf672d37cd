"""Which rows of a manifest are the entries of one folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.rowgroups import RowGroup
from tasks.formats.manifest import keys, raw_paths, words

_COLUMNS = ["source", "path", "raw_path", "type"]
_BEHIND_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """The entries of a folder that one row group has: their row numbers, and the first key."""

    group: RowGroup
    index: Any
    first: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a folder, in key order; `implied` are folders that have no row."""

    pieces: list[Piece]
    implied: frozenset[bytes]

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        numbers = sum(int(piece.index.nbytes) for piece in self.pieces)
        return numbers + 1000 * (len(self.pieces) + 1) + 100 * len(self.implied)


def list_folder(groups: Sequence[RowGroup], folder: bytes, complete: bool) -> Listing:
    """Find the entries of `<source>/<path>`; only row groups are read that may have some.

    A manifest that is not `complete` may lack the rows of folders that have entries.
    """
    source, _, path = folder.partition(b"/")
    prefix = path + b"/" if path else b""
    pieces: list[Piece] = []
    folders: set[bytes] = set()
    above: set[bytes] = set()
    for group in groups:
        is_passed_over = complete and _is_below_one_child(group, prefix)
        if is_passed_over or not _may_have_children(group, source, prefix):
            continue
        rows = group.read(_COLUMNS)
        index, deeper = _children(rows, source, prefix)
        if len(index):
            first = keys(rows.slice(int(index[0]), 1))[0].as_py()
            pieces.append(Piece(group, index, first))
        if not complete:
            folders.update(_folder_names(rows, index))
            above.update(p[len(prefix) : p.index(b"/", len(prefix))] for p in deeper.to_pylist())
    return Listing(pieces, frozenset(above - folders))


def _may_have_children(group: RowGroup, source: bytes, prefix: bytes) -> bool:
    shown = prefix.decode("utf-8", "replace")
    if not group.has_source(source.decode("utf-8", "replace")):
        return False
    return not shown or group.has_between(shown, shown[:-1] + _BEHIND_SLASH)


def _is_below_one_child(group: RowGroup, prefix: bytes) -> bool:
    """Whether all rows of a group lie below one and the same child of a folder.

    What lies between two paths that begin alike begins so too.
    """
    if group.paths is None or group.sources is None or group.sources[0] != group.sources[1]:
        return False
    low, high = group.paths
    shown = prefix.decode("utf-8", "replace")
    end = low.find("/", len(shown)) + 1
    return low.startswith(shown) and end > 0 and high.startswith(low[:end])


def _children(rows: pa.RecordBatch, source: bytes, prefix: bytes) -> tuple[Any, pa.Array]:
    """Return the row numbers of a folder's children, and the paths of what lies below those."""
    paths = raw_paths(rows)
    inside = pc.equal(words(rows.column("source")), source.decode("utf-8", "replace"))
    if prefix:
        inside = pc.and_(inside, pc.starts_with(paths, prefix))
    slashes = pc.count_substring(paths, b"/")
    direct = pc.and_(inside, pc.equal(slashes, prefix.count(b"/")))
    index = np.flatnonzero(direct.to_numpy(zero_copy_only=False))
    return index, paths.filter(pc.and_not(inside, direct))


def _folder_names(entries: pa.RecordBatch, index: Any) -> Iterator[bytes]:
    """Yield the names of the folders among some rows."""
    rows = entries.take(pa.array(index))
    kinds = words(rows.column("type")).to_pylist()
    for path, kind in zip(raw_paths(rows).to_pylist(), kinds, strict=True):
        if kind == "dir":
            yield path.rpartition(b"/")[2]
