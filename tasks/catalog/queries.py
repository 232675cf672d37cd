"""Looking things up in manifests, offline: entries of a snapshot, versions of a file."""

from __future__ import annotations

import base64
import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.store import Store
from tasks.formats.manifest import batches, integers, raw_paths, shown, words
from tasks.model.units import iso_ns

_COLUMNS = ["source", "path", "raw_path", "type", "size", "mtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry as lookups print it; `raw_path` is base64 where the name is not UTF-8."""

    path: str
    source: str
    type: str
    size: int
    mtime: str
    raw_path: str | None

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON, without the exact name where it is the shown one."""
        found = {"path": self.path, "source": self.source, "type": self.type}
        raw = {} if self.raw_path is None else {"raw_path": self.raw_path}
        return {**found, "size": self.size, "mtime": self.mtime, **raw}


def entries(store: Store, snapshot: str, below: str | None = None) -> Iterator[Entry]:
    """Yield the entries of a snapshot, all or those at and below `<source>/<path>` or `<path>`."""
    wanted = os.fsencode(below.strip("/")) if below else b""
    for batch in batches(store.manifest_path(snapshot), _COLUMNS):
        yield from _entries(_below(batch, wanted) if wanted else batch)


def _below(batch: pa.RecordBatch, wanted: bytes) -> pa.RecordBatch:
    path = raw_paths(batch)
    source = words(batch.column("source")).cast(pa.binary())
    full = pc.binary_join_element_wise(source, path, b"/")
    chosen = pc.equal(source, wanted)
    for names in (path, full):
        chosen = pc.or_(chosen, pc.equal(names, wanted))
        chosen = pc.or_(chosen, pc.starts_with(names, wanted + b"/"))
    return batch.filter(chosen)


def _entries(batch: pa.RecordBatch) -> Iterator[Entry]:
    columns = [
        batch.column("path").to_pylist(),
        words(batch.column("source")).to_pylist(),
        words(batch.column("type")).to_pylist(),
        batch.column("size").to_pylist(),
        integers(batch.column("mtime")).tolist(),
        batch.column("raw_path").to_pylist(),
    ]
    for path, source, kind, size, mtime, raw in zip(*columns, strict=True):
        yield Entry(
            path=path,
            source=source,
            type=kind,
            size=size,
            mtime=iso_ns(mtime),
            raw_path=None if raw is None else base64.b64encode(raw).decode(),
        )


def find(store: Store, snapshot: str, masks: Sequence[str]) -> Iterator[tuple[Entry, list[int]]]:
    """Yield entries whose name or path fits a mask, with the cartridges that hold them."""
    where = {row.archive: row.cartridge for row in store.archives()}
    for batch in batches(store.manifest_path(snapshot), [*_COLUMNS, "parts"]):
        hits = [i for i, path in enumerate(shown(batch)) if _fits(path, masks)]
        found = batch.take(pa.array(hits, pa.int64()))
        parts = found.column("parts").to_pylist()
        for entry, pieces in zip(_entries(found), parts, strict=True):
            archives = {piece["archive"] for piece in pieces or () if piece["archive"]}
            yield entry, sorted({where[a] for a in archives if a in where})


def _fits(path: str, masks: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    below = path.partition("/")[2]
    return any(fnmatch.fnmatchcase(text, mask) for mask in masks for text in (name, below, path))
