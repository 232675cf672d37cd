"""Which cartridge is next: a decision over what the catalog knows, with its reason."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalog.placement import BLANK, FULL, OPEN, next_cartridge, next_serial
from tasks.model.words import CartridgeRow


def cartridge(serial: int, state: str, written: str | None = None) -> CartridgeRow:
    return CartridgeRow(
        serial=serial,
        set="home",
        label=f"home {serial}",
        uuid=f"u{serial}",
        capacity=None,
        state=state,
        used=0,
        location="",
        created="",
        written=written,
    )


def written(serial: int, state: str, day: int | None = None) -> CartridgeRow:
    return cartridge(serial, state, f"2026-01-{day or serial:02}T00:00:00Z")


def chosen(rows: list[CartridgeRow], *present: int) -> int | None:
    row, reason = next_cartridge(rows, {f"u{serial}" for serial in present})
    assert reason
    return None if row is None else row.serial


@pytest.mark.parametrize(
    ("rows", "present", "expected"),
    [
        ([], (), None),
        ([cartridge(1, BLANK)], (1,), 1),
        # A blank one that is not here is asked for by its number.
        ([cartridge(1, BLANK)], (), 1),
        ([cartridge(1, BLANK), cartridge(2, BLANK)], (2,), 2),
        ([cartridge(2, BLANK), cartridge(1, BLANK)], (1, 2), 1),
        # The one that was written last goes on, wherever it is.
        ([written(1, OPEN), cartridge(2, BLANK)], (1, 2), 1),
        ([written(1, OPEN), cartridge(2, BLANK)], (2,), 1),
        ([written(1, FULL), written(2, OPEN), cartridge(3, BLANK)], (1, 3), 2),
        ([written(1, OPEN, day=9), written(2, OPEN, day=3)], (1, 2), 1),
        ([written(1, FULL), cartridge(2, BLANK)], (1, 2), 2),
        ([written(1, FULL)], (1,), None),
        # One that has room again is used where it is here, before a blank one.
        ([written(1, OPEN), written(2, FULL), cartridge(3, BLANK)], (1, 3), 1),
        ([written(1, OPEN), written(2, FULL), cartridge(3, BLANK)], (3,), 3),
        ([written(1, OPEN), written(2, FULL)], (), None),
        ([written(1, OPEN), written(2, OPEN), written(3, FULL)], (1, 2), 2),
    ],
)
def test_the_next_cartridge_is_the_one_that_a_person_would_take(
    rows: list[CartridgeRow], present: tuple[int, ...], expected: int | None
) -> None:
    for order in itertools.permutations(rows):
        assert chosen(list(order), *present) == expected


ROWS = st.lists(
    st.builds(
        lambda serial, state, day: (
            cartridge(serial, state) if state == BLANK else written(serial, state, day)
        ),
        st.integers(1, 9),
        st.sampled_from((BLANK, OPEN, FULL)),
        st.integers(1, 28),
    ),
    unique_by=lambda row: row.serial,
    max_size=9,
)


@given(ROWS, st.sets(st.integers(1, 9)))
def test_a_full_cartridge_is_never_chosen_and_a_present_one_not_passed_over(
    rows: list[CartridgeRow], present: set[int]
) -> None:
    number = chosen(rows, *present)
    fit = {row.serial for row in rows if row.state != FULL}
    if number is None:
        assert not {row.serial for row in rows if row.state == BLANK}
        assert not fit & present
    else:
        assert number in fit


@given(ROWS)
def test_a_new_serial_was_never_used(rows: list[CartridgeRow]) -> None:
    serial = next_serial(rows)
    assert serial >= 1
    assert all(row.serial < serial for row in rows)
