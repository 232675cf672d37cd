"""Chunks: cut where the content says, whatever comes before and however it is read."""

import hashlib
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.formats import chunks
from tasks.formats.chunks import Cutter, cutting_for
from tasks.model.words import Cutting

KIB, MIB = 1 << 10, 1 << 20
SMALL = Cutting(split_size=64 * KIB, minimum=4 * KIB, average=16 * KIB, maximum=32 * KIB)
LARGE = cutting_for(64 * MIB, None, 32 * MIB)
GOLDEN = [
    14071,
    17927,
    12174,
    12759,
    14060,
    4310,
    4938,
    28429,
    24826,
    12964,
    20402,
    14426,
    14235,
    19276,
    18057,
    17416,
    5236,
    6638,
]


def reader(data: bytes, sizes: Iterable[int] = ()) -> Callable[[memoryview], int]:
    """Read `data` in pieces of at most the given sizes, then in pieces as large as asked for."""
    position = 0
    limits = iter(sizes)

    def read(buffer: memoryview) -> int:
        nonlocal position
        piece = data[position : position + min(len(buffer), next(limits, len(buffer)))]
        buffer[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    return read


def pieces(data: bytes, cutting: Cutting, sizes: Iterable[int] = ()) -> list[bytes]:
    return [bytes(chunk) for chunk in Cutter(cutting).cut(reader(data, sizes))]


def digests(data: bytes, cutting: Cutting) -> list[str]:
    return [hashlib.sha256(piece).hexdigest() for piece in pieces(data, cutting)]


@pytest.fixture(scope="module")
def noise() -> bytes:
    return random.Random(1).randbytes(9 * MIB)


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stream looked at in pieces barely larger than a chunk, so that many are needed."""
    monkeypatch.setattr(chunks, "_WINDOW", 48 * KIB)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 300_000))
def test_the_chunks_make_up_the_content(seed: int, size: int) -> None:
    data = random.Random(seed).randbytes(size)
    assert b"".join(pieces(data, SMALL)) == data


@pytest.mark.parametrize("size", [0, 1, 4 * KIB, 4 * KIB + 1, 32 * KIB, 32 * KIB + 1, 64 * KIB])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"ab"])
def test_contents_that_offer_no_boundary_are_cut_all_the_same(size: int, fill: bytes) -> None:
    data = (fill * size)[:size]
    found = pieces(data, SMALL)
    assert b"".join(found) == data
    assert all(len(piece) <= SMALL.maximum for piece in found)


def test_chunks_are_within_their_bounds(noise: bytes) -> None:
    sizes = [len(piece) for piece in pieces(noise, SMALL)]
    assert all(SMALL.minimum <= size <= SMALL.maximum for size in sizes[:-1])
    assert sizes[-1] <= SMALL.maximum
    assert SMALL.average * 0.6 < sum(sizes) / len(sizes) < SMALL.average * 1.6


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 70_000), max_size=30))
def test_cuts_do_not_depend_on_how_the_stream_is_read(sizes: list[int]) -> None:
    data = random.Random(2).randbytes(400_000)
    assert pieces(data, SMALL, sizes) == pieces(data, SMALL)


def test_cuts_do_not_depend_on_the_window(noise: bytes, small_window: None) -> None:
    found = pieces(noise, SMALL, [1, 5, 48 * KIB, 100_000] * 20)
    chunks._WINDOW = 64 * MIB
    assert found == pieces(noise, SMALL)


def test_large_chunks_are_cut_alike_across_the_true_window() -> None:
    data = random.Random(3).randbytes(41 * MIB)
    whole = pieces(data, LARGE)
    assert b"".join(whole) == data
    assert pieces(data, LARGE, [33 * MIB - 1]) == whole


@pytest.mark.parametrize("place", [0, 1, 4 * MIB, 9 * MIB])
def test_a_byte_put_in_keeps_nearly_all_chunks(noise: bytes, place: int) -> None:
    before = digests(noise, SMALL)
    after = digests(noise[:place] + b"!" + noise[place:], SMALL)
    assert len(set(after) - set(before)) <= 3
    assert len(before) > 300


def test_streams_that_one_cutter_cuts_leave_nothing_for_each_other(noise: bytes) -> None:
    cutter = Cutter(SMALL)
    for data in (noise, noise[:100_000], b"", noise[5:300_000]):
        assert list(map(bytes, cutter.cut(reader(data)))) == pieces(data, SMALL)


def test_a_byte_changed_keeps_nearly_all_chunks(noise: bytes) -> None:
    changed = bytearray(noise)
    changed[5 * MIB] ^= 1
    assert len(set(digests(bytes(changed), SMALL)) - set(digests(noise, SMALL))) <= 3


def test_what_is_appended_leaves_earlier_chunks_alone(noise: bytes) -> None:
    before = digests(noise, SMALL)
    assert digests(noise + noise[:MIB], SMALL)[: len(before) - 1] == before[:-1]


def test_the_cuts_are_those_of_every_release() -> None:
    """Were they others, a new release would store every large file again."""
    data = random.Random(4).randbytes(256 * KIB)
    assert [len(piece) for piece in pieces(data, SMALL)] == GOLDEN


@pytest.mark.parametrize("capacity", [None, 100_000_000_000, 1_000_000_000])
def test_chunks_average_four_mebibytes_on_all_but_tiny_cartridges(capacity: int | None) -> None:
    cutting = cutting_for(64 * MIB, capacity, 32 * MIB)
    expected = 4 * MIB if capacity is None or capacity >= 4 * MIB * 256 else 2 * MIB
    assert cutting.average == expected


@given(
    st.integers(1, 1 << 40),
    st.none() | st.integers(1, 1 << 50),
    st.integers(1 << 16, 1 << 30),
)
def test_a_cutting_is_always_sound(split: int, capacity: int | None, archive: int) -> None:
    cutting = cutting_for(split, capacity, archive)
    assert cutting.minimum * 4 == cutting.average == cutting.maximum // 2
    assert 1 << 14 <= cutting.average <= 4 * MIB
    assert cutting.split_size >= cutting.maximum
    assert cutting.maximum <= chunks._WINDOW
    if capacity is not None and cutting.average > 1 << 14:
        assert cutting.average * 256 <= capacity


def test_cuts_depend_on_the_set_and_not_on_the_run() -> None:
    one, other = (cutting_for(64 * MIB, 10**9, size) for size in (32 * MIB, 1 << 30))
    assert (one.minimum, one.average, one.maximum) == (other.minimum, other.average, other.maximum)
