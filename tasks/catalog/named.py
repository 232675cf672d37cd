"""Rows by the name that somebody gives, read from where they lie in a manifest and no further."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.queries import Spot
from tasks.catalog.rowgroups import rows_at
from tasks.formats.manifest import raw_paths, words
from tasks.model.errors import NothingSelected, UsageError


def rows_named(manifest: str, spot: Spot, columns: list[str]) -> dict[bytes, pa.RecordBatch]:
    """Return every row that a path may mean, by `<source>/<path>`.

    Raises FileNotFoundError where the manifest was pruned.
    """
    _, _, rest = spot.shown.partition("/")
    shown = pa.array(sorted({spot.shown, rest} - {""}), pa.string())
    return {
        name: rows.slice(number, 1)
        for rows in rows_at(manifest, shown, columns)
        for number, name in enumerate(_names(rows))
        if _is_meant(name, spot)
    }


def meant(spot: Spot, names: set[bytes], snapshots: Sequence[str]) -> bytes:
    """Choose what a path means: `<source>/<path>` goes before a path below a source.

    Raises NothingSelected where there is no name, and UsageError where it may be several.
    """
    full = {name for name in names if name.decode("utf-8", "replace") == spot.shown}
    found = sorted(full or names)
    if not found:
        every = " to ".join(dict.fromkeys([snapshots[0], snapshots[-1]]))
        raise NothingSelected(snapshot=every, patterns=spot.shown)
    if len(found) > 1:
        listed = ", ".join(name.decode("utf-8", "replace") for name in found)
        raise UsageError(reason=f"'{spot.shown}' is several files, name one of them: {listed}.")
    return found[0]


def first_name(
    manifest: str, source: str, target: bytes, columns: list[str]
) -> pa.RecordBatch | None:
    """Return the row where the content of a hard link to `target` is told, if there is one."""
    wanted = source.encode() + b"/" + target
    shown = pa.array([target.decode("utf-8", "replace")], pa.string())
    for rows in rows_at(manifest, shown, columns):
        for number, name in enumerate(_names(rows)):
            if name == wanted:
                return rows.slice(number, 1)
    return None


def _is_meant(name: bytes, spot: Spot) -> bool:
    _, _, path = name.partition(b"/")
    if not spot.is_shown_only:
        return spot.exact in (name, path)
    return spot.shown in (name.decode("utf-8", "replace"), path.decode("utf-8", "replace"))


def _names(rows: pa.RecordBatch) -> Iterable[bytes]:
    sources = words(rows.column("source")).cast(pa.binary())
    names: list[bytes] = pc.binary_join_element_wise(sources, raw_paths(rows), b"/").to_pylist()
    return names
