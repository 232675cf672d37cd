"""Small tools for Arrow columns that Arrow itself does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def pick(choose: Any, left: pa.Array, right: pa.Array) -> pa.Array:
    """Choose row by row; Arrow's if_else does not take lists of structs everywhere."""
    if choose.all():
        return left
    if not choose.any():
        return right
    both = pa.concat_arrays([left, right])
    places = np.arange(len(choose))
    return both.take(pa.array(np.where(choose, places, places + len(choose))))


def one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of a table as one array."""
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
