"""Rows of two manifests belong together as a dictionary would have it, however the two differ."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalog.pairs import Ints, aligned

Name = tuple[str, bool]  # and whether it is a folder's

# Stretches of a tree: how many entries, how likely each is on either side, and of another type.
STRETCHES = st.lists(
    st.tuples(
        st.integers(1, 3000),
        st.sampled_from([0.0, 0.5, 0.99, 1.0]),
        st.sampled_from([0.0, 0.5, 0.99, 1.0]),
        st.sampled_from([0.0, 0.1]),
    ),
    max_size=6,
)


def in_order(names: list[Name]) -> list[Name]:
    """A folder has its place as if a slash were behind its name."""
    return sorted(names, key=lambda name: name[0] + "/" * name[1])


def match(new: list[Name], old: list[Name]) -> Ints:
    sides = [
        (pa.array([name for name, _ in side], pa.string()), np.array([d for _, d in side], bool))
        for side in (new, old)
    ]
    (names, is_dir), (old_names, was_dir) = sides
    return aligned(names, old_names, is_dir, was_dir)


def expected(new: list[Name], old: list[Name]) -> list[int]:
    place = {name: number for number, name in enumerate(old)}
    return [place.get(name, -1) for name in new]


@given(STRETCHES, st.integers(0, 99))
def test_rows_are_found_again_whatever_was_added_deleted_or_became_something_else(
    stretches: list[tuple[int, float, float, float]], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    new: list[Name] = []
    old: list[Name] = []
    for stretch, (count, on_new, on_old, turned) in enumerate(stretches):
        for number in range(count):
            name, is_dir = f"{stretch}-{number // 3:05}{'.!0'[number % 3]}", bool(number % 2)
            if chance.random() < on_new:
                new.append((name, is_dir != (chance.random() < turned)))
            if chance.random() < on_old:
                old.append((name, is_dir))
    new, old = in_order(new), in_order(old)
    assert match(new, old).tolist() == expected(new, old)


def test_a_file_that_became_a_folder_takes_nothing_along_that_lies_between_the_two() -> None:
    between = [(f"z.{number:03}", False) for number in range(100)]
    new, old = [("z", False), *between], [*between, ("z", True)]
    assert new == in_order(new) and old == in_order(old)
    assert match(new, old).tolist() == expected(new, old)
    assert match(old, new).tolist() == expected(old, new)
