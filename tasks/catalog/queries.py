"""Looking things up in manifests, offline: what a snapshot has, at and below a path."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.rowgroups import RowGroup, ahead, row_groups
from tasks.catalog.store import Store
from tasks.formats.manifest import raw_paths, words

COLUMNS = ["source", "path", "raw_path", "type", "size", "mtime"]

# Entries that are turned into Python objects at a time.
_PAGE = 1 << 13
_WHOLE_SECOND = "." + "0" * 9


class Entry(NamedTuple):
    """One entry as lookups print it; `raw_path` is base64 where the name is not UTF-8."""

    path: str
    source: str
    type: str
    size: int
    mtime: str
    raw_path: str | None

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON, without the exact name where it is the shown one."""
        found = self._asdict()
        if self.raw_path is None:
            del found["raw_path"]
        return found


@dataclass(frozen=True, slots=True)
class Spot:
    """A path as somebody gives it: `<source>/<path>`, a path below any source, or a source.

    It is taken as it is shown; where its bytes are not UTF-8 they have to be the exact ones.
    """

    exact: bytes

    @classmethod
    def of(cls, path: str) -> Spot:
        """Read a path from the command line."""
        return cls(os.fsencode(path.strip("/")))

    @property
    def shown(self) -> str:
        """The path as lookups show it."""
        return self.exact.decode("utf-8", "replace")

    @property
    def is_shown_only(self) -> bool:
        """Whether entries with other names may be shown alike."""
        return self.shown.encode() == self.exact

    def may_be_in(self, group: RowGroup) -> bool:
        """Whether a row group may have anything at or below this path."""
        source, _, rest = self.shown.partition("/")
        if group.has_at_or_below(self.shown):
            return True
        return group.has_source(source) and (not rest or group.has_at_or_below(rest))

    def below(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows at and below this path."""
        sources, paths = words(rows.column("source")), rows.column("path")
        source, _, rest = self.shown.partition("/")
        inside = pc.equal(sources, source)
        if rest:
            inside = pc.and_(inside, _at_or_below(paths, rest))
        found = rows.filter(pc.or_(inside, _at_or_below(paths, self.shown)))
        return found if self.is_shown_only else found.filter(self._exactly(found))

    def _exactly(self, rows: pa.RecordBatch) -> pa.Array:
        paths = raw_paths(rows)
        full = pc.binary_join_element_wise(
            words(rows.column("source")).cast(pa.binary()), paths, b"/"
        )
        return pc.or_(_at_or_below(paths, self.exact), _at_or_below(full, self.exact))


def _at_or_below(paths: pa.Array, path: str | bytes) -> pa.Array:
    slash = "/" if isinstance(path, str) else b"/"
    return pc.or_(pc.equal(paths, path), pc.starts_with(paths, path + slash))  # type: ignore[operator]


def entries(store: Store, snapshot: str, below: str | None = None) -> Iterator[list[Entry]]:
    """Yield pages of a snapshot's entries, all or those at and below a path, in path order."""
    spot = Spot.of(below or "")
    groups = row_groups(store.manifest_path(snapshot))
    if spot.exact:
        groups = [group for group in groups if spot.may_be_in(group)]

    def rows(group: RowGroup) -> pa.RecordBatch:
        found = group.read(COLUMNS)
        return spot.below(found) if spot.exact else found

    for found in ahead(rows, groups):
        yield from map(listed, pages(found))


def pages(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut rows into pieces that are small enough to be Python objects."""
    for start in range(0, rows.num_rows, _PAGE):
        yield rows.slice(start, _PAGE)


def listed(rows: pa.RecordBatch) -> list[Entry]:
    """Turn rows into entries."""
    raw = rows.column("raw_path")
    exact = [path and base64.b64encode(path).decode() for path in raw.to_pylist()]
    columns = [
        rows.column("path").to_pylist(),
        words(rows.column("source")).to_pylist(),
        words(rows.column("type")).to_pylist(),
        rows.column("size").to_pylist(),
        times(rows.column("mtime")),
        exact,
    ]
    return list(map(Entry._make, zip(*columns, strict=True)))


def times(column: pa.Array) -> list[str]:
    """Write a column of times as `iso_ns` writes one."""
    written = column.view(pa.timestamp("ns")).cast(pa.string()).to_pylist()
    return [f"{t[:10]}T{t[11:].removesuffix(_WHOLE_SECOND)}Z" for t in written]
