"""Patterns select the same rows whether all of a manifest is read for them, or little of it."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.catalog.planned import needed
from tasks.catalog.selection import select, table_keys
from tasks.catalog.store import Store
from tasks.media.patterns import Selection
from tasks.model.errors import NothingSelected
from tests.helpers.catalogs import add_snapshot, archive_name, make_profile, part, regroup
from tests.helpers.rows import Row, key, raw_path, row

SNAPSHOT = "20260101T000000Z"
# Names of sources are names of folders too; one is no text, one begins as another does.
NAMES = (b"a", b"b", b"a b", b"ab", b"\xff", b"c.txt")


def tree() -> list[Row]:
    found = []
    for source in ("a", "ab", "b"):
        for depth in (1, 2, 3):
            for names in itertools.product(NAMES, repeat=depth):
                is_dir = depth < 3 and b"." not in names[-1]
                if not any(b"." in name for name in names[:-1]):
                    path = b"/".join(names)
                    found.append(row(path, "dir" if is_dir else "file", source=source))
    return sorted(found, key=key)


ROWS = tree()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A catalog with one snapshot, in row groups of a few rows."""
    made = make_profile(tmp_path_factory.mktemp("workspace"))
    add_snapshot(made, SNAPSHOT, ROWS)
    regroup(made.manifest_path(SNAPSHOT), 7)
    return made


def expected(patterns: list[str]) -> list[bytes]:
    selection = Selection(patterns)
    named = [r for r in ROWS if selection.selects(r["source"], raw_path(r), r["type"] == "dir")]
    keys = {key(r) for r in named}
    above = [
        key(r) for r in ROWS if r["type"] == "dir" and any(name.startswith(key(r)) for name in keys)
    ]
    return sorted({*keys, *above})


PLACES = st.lists(st.sampled_from([*NAMES, b"no such"]), min_size=1, max_size=4).map(
    lambda names: b"/".join(names).decode("utf-8", "surrogateescape")
)
PATTERNS = st.tuples(
    st.sampled_from(["", "", "", "/", "!", "*/"]), PLACES, st.sampled_from(["", "", "/", "*"])
).map("".join)


@given(st.lists(PATTERNS, min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_little_of_a_manifest_is_as_good_as_all_of_it(store: Store, patterns: list[str]) -> None:
    wanted = expected(patterns)
    if not wanted:
        with pytest.raises(NothingSelected):
            select(store, SNAPSHOT, patterns)
        return
    rows = select(store, SNAPSHOT, patterns).rows
    assert table_keys(rows) == [name.rstrip(b"/") for name in wanted]


STRETCHES = st.lists(
    st.tuples(st.sampled_from([None, *(archive_name(n) for n in range(3))]), st.integers(1, 9)),
    max_size=4,
)


@given(st.lists(st.none() | STRETCHES, max_size=20))
def test_a_plan_of_all_counts_as_a_selection_of_all_does(
    files: list[list[tuple[str | None, int]] | None],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make_profile(Path(folder))
        rows = [
            row(
                b"%02d" % number,
                size=sum(length for _, length in parts or ()),
                parts=parts and [part(*each) for each in parts],
            )
            for number, parts in enumerate(files)
        ]
        add_snapshot(store, SNAPSHOT, rows)
        regroup(store.manifest_path(SNAPSHOT), 7)
        quick, whole = needed(store, SNAPSHOT), select(store, SNAPSHOT, [])
    assert sorted(quick.archives) == whole.archives
    for name in whole.archives:
        assert quick.portion([quick.archives.index(name)]) == whole.portion(
            [whole.archives.index(name)]
        )
    assert quick.portion(range(3)) == whole.portion(range(3))


@pytest.mark.parametrize(
    ("patterns", "places"),
    [
        (["a/b", "/ab/c.txt/"], [b"a/b", b"ab/c.txt"]),
        (["a/b", "!a/b/c"], None),  # to the letter it is a name
        (["a/b", "c.txt"], None),  # a name that may be anywhere
        (["/a"], None),  # a whole source
        (["a/b*"], None),
        (["a/b "], None),
    ],
)
def test_where_the_selected_lies_is_known_of_plain_paths_only(
    patterns: list[str], places: list[bytes] | None
) -> None:
    assert Selection(patterns).places == places
