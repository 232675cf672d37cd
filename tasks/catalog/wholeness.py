"""Whether the parts of a file, as a manifest has them, make up the whole of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.manifest import digest_bytes, words


def torn(rows: pa.RecordBatch) -> Any:
    """Return the files whose parts are not as long as the file, or another content: (rows,) bool.

    Each part is held against its own digest when it is read. That a file of one part is that part,
    and that none is lacking, is to be seen in the manifest alone.
    """
    is_file = pc.equal(words(rows.column("type")), "file").to_numpy(zero_copy_only=False)
    column = rows.column("parts")
    parts = pc.list_flatten(column)
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    stops = np.cumsum(counts, dtype=np.int64)
    lengths = parts.field("length").to_numpy(zero_copy_only=False)
    found = _sums(lengths, stops) != rows.column("size").to_numpy(zero_copy_only=False)
    found |= _sums((lengths < 0).astype(np.int64), stops) > 0
    single = np.flatnonzero(is_file & (counts == 1))
    stored = parts.field("sha256").take(pa.array(stops[single] - 1))
    whole = rows.column("sha256").take(pa.array(single))
    # A hole has no digest, and a manifest made of archives does not know that of every file.
    known = pc.and_(stored.is_valid(), whole.is_valid())
    differ = digest_bytes(stored.filter(known)) != digest_bytes(whole.filter(known))
    found[single[known.to_numpy(zero_copy_only=False)]] |= differ
    return found & is_file


def _sums(values: Any, stops: Any) -> Any:
    """Return the sum of each row's values; `stops` are where those of each row end."""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[stops]
    return np.diff(sums, prepend=0)
