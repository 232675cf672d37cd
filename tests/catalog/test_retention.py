"""Which snapshots stay: a table of cases, and what holds for any times and rules."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalog.retention import reasons
from tasks.model.profile import Retention
from tasks.model.units import snapshot_id, snapshot_time

RULES = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    in_zone(monkeypatch, "UTC")
    yield
    monkeypatch.undo()
    time.tzset()


def in_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    time.tzset()


def days(*texts: str) -> list[str]:
    """Snapshots at noon, or at the hour behind a T; the century is left out."""
    return [f"20{text.replace('-', '').partition('T')[0]}T{hour(text)}0000Z" for text in texts]


def hour(text: str) -> str:
    return text.partition("T")[2] or "12"


def kept(snapshots: list[str], **rules: int) -> set[str]:
    return {s for s, why in reasons(snapshots, Retention(**rules)).items() if why}


@pytest.mark.parametrize(
    ("given", "rules", "expected"),
    [
        (("26-01-01", "26-01-02"), {"keep_last": 1}, ("26-01-02",)),
        (("26-01-01", "26-01-02"), {"keep_last": 5}, ("26-01-01", "26-01-02")),
        # The newest of a day counts.
        (("26-01-01T08", "26-01-01T20"), {"keep_daily": 5}, ("26-01-01T20",)),
        # Days without a snapshot do not use the rule up.
        (("26-01-01", "26-02-01", "26-03-01"), {"keep_daily": 2}, ("26-02-01", "26-03-01")),
        # Weeks are those of ISO 8601: 2026-01-01 is of the week that began on 2025-12-29.
        (("25-12-28", "25-12-29", "26-01-01"), {"keep_weekly": 9}, ("25-12-28", "26-01-01")),
        (("24-12-30", "25-12-29"), {"keep_weekly": 9}, ("24-12-30", "25-12-29")),
        (("26-01-31", "26-02-01"), {"keep_monthly": 9}, ("26-01-31", "26-02-01")),
        (("25-02-10", "26-02-10"), {"keep_monthly": 9}, ("25-02-10", "26-02-10")),
        (("25-03-01", "25-12-31", "26-01-01"), {"keep_yearly": 9}, ("25-12-31", "26-01-01")),
        (
            ("26-01-01", "26-01-30", "26-01-31"),
            {"keep_last": 1, "keep_monthly": 1, "keep_daily": 2},
            ("26-01-30", "26-01-31"),
        ),
    ],
)
def test_rules_keep_what_they_say(
    given: tuple[str, ...], rules: dict[str, int], expected: tuple[str, ...]
) -> None:
    assert kept(days(*given), **rules) == set(days(*expected))


def test_without_a_rule_everything_is_kept_and_says_so() -> None:
    found = reasons(days("26-01-01", "26-01-02"), Retention())
    assert all(why == ["no [retention]: everything is kept"] for why in found.values())
    assert len(found) == 2


def test_without_a_snapshot_there_is_nothing_to_keep() -> None:
    assert reasons([], Retention()) == reasons([], Retention(keep_last=3)) == {}


def test_every_reason_is_told() -> None:
    (snapshot,) = days("26-01-01")
    found = reasons([snapshot], Retention(keep_last=1, keep_daily=1, keep_yearly=1))
    assert found == {snapshot: ["newest", "keep_last", "keep_daily", "keep_yearly"]}


def test_days_are_those_of_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = days("26-01-01T22", "26-01-02T01")
    assert kept(snapshots, keep_daily=9) == set(snapshots)
    in_zone(monkeypatch, "Etc/GMT-3")  # where both are on the second
    assert kept(snapshots, keep_daily=9) == {snapshots[1]}


def test_the_hour_that_comes_twice_in_autumn_is_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    in_zone(monkeypatch, "Europe/Berlin")
    twice = ["20261025T003000Z", "20261025T013000Z"]
    assert kept(twice, keep_daily=9) == {twice[1]}


SNAPSHOTS = st.lists(
    st.datetimes(datetime(2020, 1, 1), datetime(2029, 1, 1)).map(
        lambda moment: snapshot_id(moment.replace(tzinfo=UTC))
    ),
    unique=True,
    max_size=40,
)
LIMITS = st.dictionaries(st.sampled_from(RULES), st.integers(1, 5), min_size=1)

# Each period, spelled as text: another way than that of the code.
SPELLED: dict[str, Callable[[datetime], str]] = {
    "keep_daily": lambda moment: moment.strftime("%Y-%m-%d"),
    "keep_weekly": lambda moment: moment.strftime("%G-W%V"),
    "keep_monthly": lambda moment: moment.strftime("%Y-%m"),
    "keep_yearly": lambda moment: moment.strftime("%Y"),
}


@given(SNAPSHOTS, LIMITS)
def test_each_rule_keeps_the_newest_of_its_newest_periods(
    snapshots: list[str], limits: dict[str, int]
) -> None:
    found = reasons(snapshots, Retention(**limits))
    assert list(found) == sorted(snapshots)
    for name, spell in SPELLED.items():
        newest: dict[str, str] = {}
        for snapshot in sorted(snapshots):
            newest[spell(snapshot_time(snapshot))] = snapshot
        expected = sorted(newest.values())[-limits[name] :] if name in limits else []
        assert [s for s, why in found.items() if name in why] == expected
    last = sorted(snapshots)[-limits["keep_last"] :] if "keep_last" in limits else []
    assert [s for s, why in found.items() if "keep_last" in why] == last
    assert [s for s, why in found.items() if "newest" in why] == sorted(snapshots)[-1:]


@given(SNAPSHOTS, LIMITS, st.randoms())
def test_the_order_in_which_they_are_given_does_not_count(
    snapshots: list[str], limits: dict[str, int], chance: random.Random
) -> None:
    mixed = chance.sample(snapshots, len(snapshots))
    assert reasons(snapshots, Retention(**limits)) == reasons(mixed, Retention(**limits))


@given(SNAPSHOTS, LIMITS)
def test_pruning_twice_keeps_the_same(snapshots: list[str], limits: dict[str, int]) -> None:
    once = kept(snapshots, **limits)
    assert kept(sorted(once), **limits) == once


@given(SNAPSHOTS, LIMITS, st.sampled_from(RULES))
def test_a_larger_number_never_keeps_less(
    snapshots: list[str], limits: dict[str, int], name: str
) -> None:
    more = {**limits, name: limits.get(name, 0) + 1}
    assert kept(snapshots, **limits) <= kept(snapshots, **more)


def test_daily_backups_of_two_years_thin_out() -> None:
    start = datetime(2025, 1, 1, 12, tzinfo=UTC)
    snapshots = [snapshot_id(start + timedelta(days=day)) for day in range(730)]
    rules = {"keep_last": 3, "keep_daily": 7, "keep_weekly": 4, "keep_monthly": 12}
    assert 7 + 2 + 11 <= len(kept(snapshots, **rules)) <= 7 + 4 + 12
    assert snapshots[-7:] == sorted(kept(snapshots, **rules))[-7:]
