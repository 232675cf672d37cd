"""The history of one path: every version that any snapshot has, and when it was deleted."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.catalog.named import first_name, meant, rows_named
from tasks.catalog.queries import Spot, times
from tasks.catalog.rowgroups import ahead
from tasks.catalog.search import cartridges_by_archive
from tasks.catalog.store import Store

_CONTENT = ["size", "sha256", "rdev"]
_METADATA = ["mode", "uid", "gid", "xattrs"]
_COLUMNS = [
    *("source", "path", "raw_path", "type", "mtime", "link_target"),
    *(*_CONTENT, *_METADATA, "parts.list.element.archive"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A run of snapshots in which a path has the same content and metadata.

    `snapshot` is the first of them, `time` its time, `change` what made the version: `added`,
    `modified` (its content) or `metadata`. `raw_path` is base64 where the name is not UTF-8.
    """

    snapshot: str
    last: str
    time: str
    path: str
    source: str
    size: int
    mtime: str
    sha256: str | None
    cartridges: list[int]
    change: str
    raw_path: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON, without the exact name where it is the shown one."""
        found = asdict(self)
        if self.raw_path is None:
            del found["raw_path"]
        return found


class _State(NamedTuple):
    """What one snapshot says of a path; a hard link says what its first name does."""

    source: str
    path: str
    raw_path: bytes | None
    mtime: str
    content: dict[str, Any]
    metadata: dict[str, Any]
    archives: list[str]


def history(store: Store, path: str) -> tuple[list[Version], str | None]:
    """Return the versions of a path, oldest first, and the first snapshot without it, if any.

    There has to be a snapshot. Raises NothingSelected where none has the path, and UsageError where
    it means several files.
    """
    spot = Spot.of(path)
    kept = store.snapshots()
    found = ahead(lambda snapshot: _states(store.manifest_path(snapshot), spot), kept)
    known = {s: states for s, states in zip(kept, found, strict=True) if states is not None}
    snapshots = list(known)
    name = meant(spot, {name for states in known.values() for name in states}, snapshots)
    versions = list(_versions(store, {s: states.get(name) for s, states in known.items()}))
    return versions, next((s for s in snapshots if s > versions[-1].last), None)


def _versions(store: Store, states: Mapping[str, _State | None]) -> Iterator[Version]:
    where = cartridges_by_archive(store)
    version: Version | None = None
    before: _State | None = None
    for snapshot, state in states.items():
        change = _change(before, state)
        if version and (change or state is None):
            yield version
            version = None
        if state and change:
            version = _version(store, snapshot, state, change)
        if state and version:
            held = {where[archive] for archive in state.archives if archive in where}
            version = replace(version, last=snapshot, cartridges=sorted(held))
        before = state
    if version:
        yield version


def _change(before: _State | None, now: _State | None) -> str | None:
    if now is None:
        return None
    if before is None:
        return "added"
    if before.content != now.content:
        return "modified"
    return None if before.metadata == now.metadata else "metadata"


def _version(store: Store, snapshot: str, state: _State, change: str) -> Version:
    digest, raw = state.content["sha256"], state.raw_path
    return Version(
        snapshot=snapshot,
        last=snapshot,
        time=store.info(snapshot).time,
        path=state.path,
        source=state.source,
        size=state.content["size"],
        mtime=state.mtime,
        sha256=digest and digest.hex(),
        cartridges=[],
        change=change,
        raw_path=None if raw is None else base64.b64encode(raw).decode(),
    )


def _states(manifest: str, spot: Spot) -> dict[bytes, _State] | None:
    """Return what a manifest has of that name, by `<source>/<path>`; None where it was pruned."""
    try:
        rows = rows_named(manifest, spot, _COLUMNS)
        return {name: _state(manifest, _facts(row)) for name, row in rows.items()}
    except FileNotFoundError:
        return None


def _state(manifest: str, row: dict[str, Any]) -> _State:
    first = _first(manifest, row) if row["type"] == "hardlink" else row
    return _State(
        source=row["source"],
        path=row["path"],
        raw_path=row["raw_path"],
        mtime=first["mtime"],
        content={name: first[name] for name in ("type", "link_target", *_CONTENT)},
        metadata={name: first[name] for name in ("mtime", *_METADATA)},
        archives=[part["archive"] for part in first["parts"] or () if part["archive"]],
    )


def _first(manifest: str, link: dict[str, Any]) -> dict[str, Any]:
    """Return the row where the content of a hard link is told; the link's own if there is none."""
    found = first_name(manifest, link["source"], link["link_target"], _COLUMNS)
    return link if found is None else _facts(found)


def _facts(row: pa.RecordBatch) -> dict[str, Any]:
    """Return one row as Python has it; its time as text, as Python has no nanoseconds."""
    [facts] = row.drop_columns(["mtime"]).to_pylist()
    [mtime] = times(row.column("mtime"))
    return {**facts, "mtime": mtime}
