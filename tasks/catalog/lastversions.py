"""The last versions of files that could not be read: retention must not take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from tasks.catalog.rowgroups import rows_at
from tasks.catalog.store import Store
from tasks.formats.manifest import shown

REASON = "has the last version of what could not be read since"


def holders_of_last_versions(store: Store, kept: Mapping[str, Sequence[str]]) -> list[str]:
    """Return snapshots without a reason to be kept that hold what the newest one should have.

    `kept` has the reasons for each. A file that its disk does not give any more is in no snapshot
    from then on; the last one that has it may be all that is left of it.
    """
    if not kept or all(kept.values()):
        return []
    newest, *older = sorted(kept, reverse=True)
    lacking = {trouble.path for trouble in store.info(newest).troubles}
    staying, found = [newest], []
    for snapshot in older if lacking else ():
        if not kept[snapshot]:
            here = _among(store, snapshot, lacking)
            for newer in staying if here else ():
                here -= _among(store, newer, here)
            if not here:
                continue
            found.append(snapshot)
        staying.append(snapshot)
    return found


def _among(store: Store, snapshot: str, names: set[str]) -> set[str]:
    """Return those of the `<source>/<path>` that a snapshot has."""
    paths = pa.array({name.partition("/")[2] for name in names}, pa.string())
    rows = rows_at(store.manifest_path(snapshot), paths, ["source", "path"])
    return {name for batch in rows for name in shown(batch)} & names
