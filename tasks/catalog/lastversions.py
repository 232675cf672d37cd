"""The last versions of files that could not be read: retention must not take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.rowgroups import rows_at, stream
from tasks.catalog.store import Store
from tasks.formats.manifest import shown, words
from tasks.model.errors import FormatDamaged

REASON = "may have the last version of what could not be read since"
_COLUMNS = ["source", "path", "type"]


def holders_of_last_versions(store: Store, kept: Mapping[str, Sequence[str]]) -> list[str]:
    """Return snapshots without a reason to be kept that hold what the newest one should have.

    `kept` has the reasons for each. A file that its disk does not give any more is in no snapshot
    from then on; the last one that has it may be all that is left of it. It, or a folder above it,
    may have another name by now: any file of its own name counts that no newer snapshot has.
    """
    if not kept or all(kept.values()):
        return []
    newest, *older = sorted(kept, reverse=True)
    lacking = {trouble.path.rpartition("/")[2] for trouble in store.info(newest).troubles}
    staying, found = [newest], []
    for snapshot in older if lacking else ():
        if not kept[snapshot]:
            if not _has_more(store, snapshot, lacking, staying):
                continue
            found.append(snapshot)
        staying.append(snapshot)
    return found


def _has_more(store: Store, snapshot: str, names: set[str], newer: Sequence[str]) -> bool:
    """Whether a snapshot has files of these names that are in none of the newer ones.

    One that cannot be read may have them.
    """
    try:
        here = _files_called(store.manifest_path(snapshot), names)
    except FormatDamaged:
        return True
    for other in newer if here else ():
        try:
            here -= _among(store.manifest_path(other), here)
        except FormatDamaged:
            continue
    return bool(here)


def _files_called(manifest: str, names: set[str]) -> set[str]:
    """Return the `<source>/<path>` of all files, wherever they lie, that have one of the names."""
    wanted = pa.array(names, pa.string())
    found: set[str] = set()
    for rows in stream(manifest, _COLUMNS):
        own = pc.replace_substring_regex(rows.column("path"), ".*/", "")
        kinds = words(rows.column("type"))
        is_file = pc.is_in(kinds, pa.array(["file", "hardlink"]))
        found.update(shown(rows.filter(pc.and_(is_file, pc.is_in(own, wanted)))))
    return found


def _among(manifest: str, names: set[str]) -> set[str]:
    """Return those of the `<source>/<path>` that a manifest has."""
    paths = pa.array({name.partition("/")[2] for name in names}, pa.string())
    return {name for rows in rows_at(manifest, paths, ["source", "path"]) for name in shown(rows)}
