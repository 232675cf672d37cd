"""Sizes and times as people write them, held against exact decimal arithmetic."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model import units

POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5}
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("25GB", 25_000_000_000),
        ("25GiB", 25 * 2**30),
        ("25 gb", 25_000_000_000),
        ("  700MiB ", 700 * 2**20),
        ("64k", 64_000),
        ("64Ki", 65_536),
        ("1.5TB", 1_500_000_000_000),
        ("12B", 12),
        ("3P", 3 * 10**15),
    ],
)
def test_a_size_is_decimal_or_binary_as_its_unit_says(text: str, expected: int) -> None:
    assert units.parse_size(text) == expected


def test_a_bare_number_is_bytes() -> None:
    assert units.parse_size(700) == 700


@given(st.integers(0, 9999), st.sampled_from(sorted(POWERS)), st.booleans())
def test_every_whole_size_is_read_exactly(number: int, prefix: str, binary: bool) -> None:
    factor = (1024 if binary else 1000) ** POWERS[prefix]
    assert units.parse_size(f"{number}{prefix}{'i' * binary}B") == number * factor


@given(st.decimals(0, 99_999, places=3), st.sampled_from("kMGT"))
def test_every_decimal_size_is_read_exactly(number: Decimal, prefix: str) -> None:
    expected = int(number * 1000 ** POWERS[prefix])
    assert units.parse_size(f"{number}{prefix}B") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1,5GB", "25 GB GB", "1e9", "0x10", "nan", "25X"])
def test_nonsense_is_no_size_and_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{text}'")):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (25_000_000_000, "25.0 GB"),
        (1_500_000_000_000, "1.5 TB"),
        (-2500, "-2.5 kB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_a_size_is_shown_in_decimal_units(count: int, shown: str) -> None:
    assert units.format_size(count) == shown


@given(st.integers(0, 10**15))
def test_a_shown_size_is_within_a_twentieth_of_its_unit(count: int) -> None:
    number, unit = units.format_size(count).split()
    assert abs(units.parse_size(number + unit) - count) <= 10 ** (3 * POWERS[unit[:-1]]) / 20


@given(MOMENTS)
def test_a_snapshot_id_tells_its_time_to_the_second(moment: datetime) -> None:
    name = units.snapshot_id(moment)
    assert re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", name)
    assert units.snapshot_time(name) == moment.replace(microsecond=0)


@given(MOMENTS, MOMENTS)
def test_snapshot_ids_sort_by_time(one: datetime, other: datetime) -> None:
    first, last = sorted((one, other))
    assert units.snapshot_id(first) <= units.snapshot_id(last)


def test_a_snapshot_id_is_in_utc_whatever_the_zone() -> None:
    moment = datetime(2026, 11, 21, 3, 32, tzinfo=timezone(timedelta(hours=2)))
    assert units.snapshot_id(moment) == "20261121T013200Z"
    assert units.iso(moment) == "2026-11-21T01:32:00Z"


@pytest.mark.parametrize("text", ["", "20261121", "2026-11-21T01:32:00Z", "20261321T013200Z"])
def test_nonsense_is_no_snapshot_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not match|unconverted"):
        units.snapshot_time(text)


@pytest.mark.parametrize(
    "text", ["2026-11-21T01:32:00Z", "2026-11-21T02:32:00+01:00", "20261121T013200Z"]
)
def test_a_moment_with_a_zone_is_taken_as_it_is(text: str) -> None:
    assert units.parse_moment(text) == datetime(2026, 11, 21, 1, 32, tzinfo=UTC)


def test_a_moment_without_a_zone_is_local_time() -> None:
    local = datetime(2026, 11, 21, 1, 32).astimezone()
    assert units.parse_moment("2026-11-21 01:32") == local


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "9999-12-31T23:59:59-12:00"])
def test_nonsense_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid isoformat|month must be|out of range"):
        units.parse_moment(text)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_500_000_000_000_000_000, "2017-07-14T02:40:00Z"),
        (-(2**63), "1677-09-21T00:12:43.145224192Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_nanoseconds_are_shown_exactly_in_the_whole_range(nanoseconds: int, shown: str) -> None:
    assert units.iso_ns(nanoseconds) == shown
