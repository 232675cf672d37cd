"""Which entries of a snapshot some file system may take for the same, by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.media.naming import folded

_DOTS_AT_END = r"[. ]+(/|$)"


def lookalikes(keys: Sequence[bytes]) -> list[int]:
    """Return the numbers of the keys that, name by name, fold to what another one folds to."""
    text = pa.array(keys, pa.large_binary()).view(pa.large_string())
    is_plain = pc.string_is_ascii(text)
    plain = pc.replace_substring_regex(
        pc.ascii_lower(text.filter(is_plain)), pattern=_DOTS_AT_END, replacement=r"\1"
    )
    flags = is_plain.to_numpy(zero_copy_only=False)
    other = [_shape(keys[number]) for number in np.flatnonzero(~flags).tolist()]
    shapes = pa.concat_arrays(
        [plain.view(pa.large_binary()), pa.array(other, pa.large_binary())]
    ).dictionary_encode()
    codes = shapes.indices.to_numpy()
    numbers = np.concatenate([np.flatnonzero(flags), np.flatnonzero(~flags)])
    shared = np.bincount(codes, minlength=1)[codes] > 1
    return sorted(numbers[shared].tolist())


def _shape(key: bytes) -> bytes:
    return "/".join(map(folded, key.split(b"/"))).encode("utf-8", "surrogatepass")
