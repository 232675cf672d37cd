"""Names that a place would confuse, or refuses, are kept apart, always in the same way."""

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tasks.catalog.lookalikes import lookalikes
from tasks.media.destination import Destination, Place
from tasks.media.naming import Naming, folded, is_odd, substitute

COMPOSED, DECOMPOSED = (
    unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}").encode()
    for form in ("NFC", "NFD")
)


class Folding:
    """A scratch folder on a file system that takes names for the same which look the same."""

    def keeps(self, name: bytes) -> bool:
        return b":" not in name

    def confuses(self, name: bytes, other: bytes) -> bool:
        def shape(name: bytes) -> str:
            return unicodedata.normalize("NFD", name.decode().casefold())

        return shape(name) == shape(other)


class Mac(Destination):
    """A destination that folds case and composition, as some file systems do."""

    @contextlib.contextmanager
    def scratch(self, path: bytes) -> Iterator[Folding]:  # type: ignore[override]
        yield Folding()


def named(
    place: Destination, keys: list[bytes], there: frozenset[bytes] = frozenset()
) -> dict[bytes, bytes]:
    """Name the entries of the folder `s`, in which some names are there already."""
    alike = [keys[number] for number in lookalikes(keys)]
    naming = Naming(place, keys, alike)
    naming.enter(b"", Place(1, True))
    naming.enter(b"s", Place(1, not there, there))
    return {key: naming.path(key) for key in keys}


def test_composed_and_decomposed_twins_are_kept_apart() -> None:
    keys = [b"s/" + COMPOSED, b"s/" + DECOMPOSED]
    found = named(Mac(b"/nowhere"), keys)
    assert sorted(found) == sorted(keys)
    first, second = sorted(keys)
    assert found[first] == first
    assert found[second] == b"s/" + substitute(second[2:])
    assert not Folding().confuses(found[first][2:], found[second][2:])


def test_one_that_is_there_under_its_name_keeps_it() -> None:
    keys = [b"s/A", b"s/a"]
    assert named(Mac(b"/x"), keys)[b"s/A"] == b"s/A"
    found = named(Mac(b"/x"), keys, frozenset([b"a", substitute(b"A")]))
    assert found == {b"s/a": b"s/a", b"s/A": b"s/" + substitute(b"A")}


def test_a_mark_that_the_snapshot_has_itself_is_not_given_again() -> None:
    taken = b"s/" + substitute(b"a")
    found = named(Mac(b"/x"), [b"s/A", b"s/a", taken])
    assert found[taken] == taken
    assert found[b"s/a"] == b"s/" + substitute(b"a", 1)


def test_where_the_place_tells_them_apart_nobody_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    keys = [b"s/" + COMPOSED, b"s/" + DECOMPOSED, b"s/A", b"s/a", b"s/a.", b"s/x:y"]
    place = Destination(os.fsencode(tmp_path))
    place.try_out(b"")
    assert named(place, keys) == {key: key for key in keys}
    assert os.listdir(tmp_path) == ["s"]
    assert os.listdir(tmp_path / "s") == []


def test_what_lies_below_a_renamed_folder_goes_with_it() -> None:
    keys = [b"s/D", b"s/D/x", b"s/d", b"s/d/X", b"s/d/x"]
    naming = Naming(Mac(b"/x"), keys, [keys[n] for n in lookalikes(keys)])
    for key in (b"", b"s", b"s/D", b"s/d"):
        naming.enter(key, Place(1, True))
    folder = b"s/" + substitute(b"d")
    assert naming.path(b"s/D/x") == b"s/D/x"
    assert naming.path(b"s/d/X") == folder + b"/X"
    assert naming.path(b"s/d/x") == folder + b"/" + substitute(b"x")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"10:30.txt", b"10_30~"),
        (b"\xff", b"_~"),
        (b"end. ", b"end~"),
        (b"n" * 255, b"n" * 100 + b"~"),
        (b".hidden", b".hidden~"),
        (b"...", b"~"),
    ],
)
def test_a_substitute_resembles_the_name_and_suits_any_file_system(
    name: bytes, shown: bytes
) -> None:
    found = substitute(name)
    assert found.startswith(shown)
    assert not is_odd(found)
    assert found.endswith(b".txt") == name.endswith(b".txt")


@given(some.lists(some.text("aAbB.\u00e9\u00c9e\u0301\u00df\u017f", min_size=1), max_size=8))
def test_lookalikes_are_all_keys_that_fold_to_the_same(names: list[str]) -> None:
    keys = sorted({b"s/" + name.encode() for name in names})
    shapes = [folded(key[2:]) for key in keys]
    expected = [n for n, shape in enumerate(shapes) if shapes.count(shape) > 1]
    assert lookalikes(keys) == expected


def test_lookalikes_see_names_that_are_not_text_and_folders() -> None:
    keys = [b"s/\xff", b"s/\xffA", b"s/\xffa", b"S/x", b"s/x.", b"s/plain"]
    assert lookalikes(keys) == [1, 2, 3, 4]
    assert lookalikes([]) == []
