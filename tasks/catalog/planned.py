"""What a restore of a whole snapshot needs, for a look beforehand: archives, without the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.selection import Selected, check_names, holders_of
from tasks.catalog.store import Store
from tasks.formats.manifest import SCHEMA, batches
from tasks.model.errors import FormatDamaged

_COLUMNS = ["parts.list.element.archive", "parts.list.element.length"]
_NEED = np.dtype([("row", "<i8"), ("archive", "<i4"), ("length", "<i8")])


def needed(store: Store, snapshot: str) -> Selected:
    """Return all that a snapshot needs, with no rows: for `Selected.portion` alone.

    Of a million rows it takes tens of megabytes, where the rows themselves would take a gigabyte.
    """
    path = store.manifest_path(snapshot)
    pieces, codes, base = [np.empty(0, _NEED)], dict[str, int](), 0
    try:
        for batch in batches(path, _COLUMNS):
            pieces.append(_stretches(batch, base, codes))
            base += batch.num_rows
    except (pa.ArrowException, KeyError) as error:
        reason = f"its columns are not those of a manifest: {error}"
        raise FormatDamaged(file=path, reason=reason) from error
    archives = list(codes)
    check_names(archives)
    rows = SCHEMA.empty_table()
    return Selected(snapshot, rows, np.concatenate(pieces), archives, holders_of(store, archives))


def _stretches(batch: pa.RecordBatch, base: int, codes: dict[str, int]) -> Any:
    """Return the data that rows consist of; holes need no archive."""
    column = batch.column("parts")
    parts = pc.list_flatten(column)
    encoded = parts.field("archive").dictionary_encode()
    local = [codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()]
    is_data = encoded.is_valid()
    found = np.empty(is_data.true_count, _NEED)
    found["row"] = pc.list_parent_indices(column).filter(is_data).to_numpy() + base
    found["archive"] = np.array(local, np.int32)[encoded.indices.filter(is_data).to_numpy()]
    found["length"] = parts.field("length").filter(is_data).to_numpy()
    return found
