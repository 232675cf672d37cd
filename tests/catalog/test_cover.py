"""A restore asks for as few cartridges as hold all that it needs."""

import itertools

from hypothesis import given
from hypothesis import strategies as some

from tasks.catalog.cover import cover, shares

Holders = list[frozenset[int]]

holders_of_things = some.lists(some.frozensets(some.integers(1, 6), max_size=4), max_size=12)
serials = some.frozensets(some.integers(1, 6))


def test_nothing_needs_no_cartridge() -> None:
    assert cover([], {1, 2}) == []


def test_what_nothing_holds_asks_for_nothing() -> None:
    assert cover([(), (3,)], ()) == [3]


def test_without_copies_all_that_hold_something_are_needed_those_present_first() -> None:
    assert cover([(3,), (1,), (3,), (11,), (7,)], {7, 3}) == [3, 7, 1, 11]


def test_a_copy_that_is_present_spares_the_one_that_is_not() -> None:
    assert cover([(1, 11), (2, 12), (3, 13)], {12, 13}) == [12, 13, 1]


def test_one_absent_cartridge_is_better_than_two() -> None:
    assert cover([(1, 3), (2, 3)], ()) == [3]


def test_two_present_are_better_than_one_that_has_to_be_fetched() -> None:
    assert cover([(1, 3), (2, 3)], {1, 2}) == [1, 2]


def test_greed_is_not_enough_and_is_not_what_is_done() -> None:
    """The largest one first would take three."""
    things = [(1, 3), (1, 3), (1, 2), (2, 3), (1,), (2, 3)]
    assert cover(things, ()) == [1, 2]
    top, bottom, largest = 1, 2, 3
    columns = [(top, largest)] * 1 + [(bottom, largest)] * 1 + [(top,), (bottom,)]
    assert cover(columns, ()) == [top, bottom]


def test_many_sets_of_copies_are_decided_one_by_one() -> None:
    things = [(number, 100 + number) for number in range(1, 41)]
    assert cover(things, set(range(101, 141))) == list(range(101, 141))


def test_where_a_great_many_could_stand_in_for_each_other_all_is_still_covered() -> None:
    things = [(number, number + 1) for number in range(1, 41)]
    chosen = cover(things, {5})
    assert all(set(thing) & set(chosen) for thing in things)
    assert len(chosen) <= 40
    assert chosen[0] == 5


@given(holders_of_things, serials)
def test_no_other_choice_asks_for_fewer(things: Holders, present: frozenset[int]) -> None:
    def cost(choice: frozenset[int]) -> tuple[int, int]:
        return len(choice - present), len(choice)

    every = (
        frozenset(choice)
        for size in range(7)
        for choice in itertools.combinations(range(1, 7), size)
    )
    enough = [choice for choice in every if all(choice & thing for thing in things if thing)]
    chosen = cover(things, present)
    assert cost(frozenset(chosen)) == min(map(cost, enough))
    assert len(set(chosen)) == len(chosen)
    shared = shares(things, chosen)
    assert sorted(itertools.chain(*shared.values())) == [i for i, t in enumerate(things) if t]
    assert all(serial in things[i] for serial, mine in shared.items() for i in mine)
