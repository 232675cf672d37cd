"""A mask means exactly what fnmatch says, though Arrow is asked with one expression."""

import itertools
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.catalog.masks import expression
from tests.helpers.masks import LETTERS, fits, masks


def found_in(paths: Sequence[str], masks: Sequence[str]) -> list[str]:
    hits = pc.match_substring_regex(pa.array(paths, pa.string()), expression(masks)).to_pylist()
    return [path for path, hit in zip(paths, hits, strict=True) if hit]


def shown_paths() -> st.SearchStrategy[list[str]]:
    name = st.text(LETTERS.replace("/", ""), min_size=1, max_size=5)
    return st.lists(st.lists(name, min_size=2, max_size=4).map("/".join), min_size=1, max_size=20)


@given(masks(), shown_paths())
@settings(max_examples=500)
@example(["[!a]"], ["s/b", "s/a", "s/\n"])
@example(["[z-a]", "[b-a!]"], ["s/z", "s/-", "s/a"])
@example(["a[/]b", "a?b", "a*b"], ["s/a/b", "a/b", "x/y/a/b"])
@example([""], ["s/a"])
def test_a_mask_means_exactly_what_fnmatch_says(masks: list[str], paths: list[str]) -> None:
    assert found_in(paths, masks) == [path for path in paths if fits(path, masks)]


def test_brackets_mean_what_fnmatch_says_in_all_their_oddities() -> None:
    paths = [f"s/{chr(code)}" for code in range(1, 160) if chr(code) != "/"]
    for length in range(1, 5):
        for inside in itertools.product("a-!^]\\", repeat=length):
            mask = f"[{''.join(inside)}]"
            assert found_in(paths, [mask]) == [p for p in paths if fits(p, [mask])], mask


def test_a_mask_as_long_as_a_path_may_be_is_no_trouble() -> None:
    longest = "x" * 4095
    for mask in ("?" * 4095, "x*" * 2000, "[!a]" * 1000 + "*", longest):
        assert found_in([f"s/{longest}", "s/x"], [mask]) == [f"s/{longest}"]
