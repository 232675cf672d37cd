"""Masks drawn at random, and what they mean."""

import fnmatch
from collections.abc import Sequence

from hypothesis import strategies as st

LETTERS = "ab/-!^[]*?.\\z\n&~|A\u00e9\N{REPLACEMENT CHARACTER}\N{PILE OF POO}{},$()+#: "


def fits(path: str, masks: Sequence[str]) -> bool:
    """Whether fnmatch takes the name, the path below the source, or all of `<source>/<path>`."""
    texts = (path.rpartition("/")[2], path.partition("/")[2], path)
    return any(fnmatch.fnmatchcase(text, mask) for text in texts for mask in masks)


def masks() -> st.SearchStrategy[list[str]]:
    """Masks, rich in brackets that mean odd things."""
    brackets = st.from_regex(r"[ab*]?\[!?[ab\-!^zA/\\\[]{0,6}\][b*?]?", fullmatch=True)
    mask = st.text(LETTERS, max_size=9) | brackets | st.text("[]!-ab^*/?", max_size=9)
    return st.lists(mask, min_size=1, max_size=3)
