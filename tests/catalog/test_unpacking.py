"""Shares of a restore: each byte in one of them, no frame decoded twice."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalog import unpacking
from tasks.catalog.selection import NEED
from tasks.catalog.unpacking import shares

Stretch = tuple[int, int, int, int]  # archive, frame, skip, length
STRETCHES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9), st.integers(0, 60)),
    min_size=1,
    max_size=60,
)


def needs_of(stretches: list[Stretch]) -> Any:
    needs = np.zeros(len(stretches), NEED)
    for number, facts in enumerate(sorted(stretches)):
        for name, value in zip(("archive", "frame", "skip", "length"), facts, strict=True):
            needs[name][number] = value
    return needs


@given(STRETCHES, st.integers(1, 4))
def test_every_stretch_is_in_one_share_and_every_frame_too(
    stretches: list[Stretch], processes: int
) -> None:
    needs = needs_of(stretches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "_LEAST_SHARE", 40)
        found = shares(needs, processes)
    assert np.array_equal(np.concatenate(found), needs)
    assert all(len(np.unique(share["archive"])) == 1 for share in found)
    for one, other in pairwise(found):
        ends = [(each["archive"][i], each["frame"][i]) for each, i in ((one, -1), (other, 0))]
        assert ends[0] != ends[1]


def test_one_archive_is_shared_among_processes_where_it_is_worth_it() -> None:
    large = needs_of([(0, frame, 0, 4 << 20) for frame in range(8)])
    assert len(shares(large, 2)) == 4
    assert len(shares(large[:1], 2)) == 1
    small = needs_of([(0, frame, 0, 1000) for frame in range(8)])
    assert len(shares(small, 2)) == 1
