"""Reading back: what is not as it was written is named, and nothing else."""

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from tasks.media.cartridge import Cartridge
from tasks.media.readback import expected_sums, read_back, reading_ahead, written_at
from tests.helpers.cartridge import labelled, place
from tests.helpers.damage import flip_a_bit


@pytest.fixture
def cartridge(tmp_path: Path) -> Cartridge:
    return labelled(tmp_path / "c1")


def test_reading_back_finds_what_is_altered_cut_or_gone(cartridge: Cartridge) -> None:
    placed = [place(cartridge, number, os.urandom(9000)) for number in range(4)]
    cartridge.seal({"README.txt": b"hi", "catalog/a": b"a"}, set())
    assert read_back(cartridge, expected_sums(cartridge), lambda count: None).damaged == []
    names = [Path(cartridge.file(p.archive)) for p in placed]
    altered = bytearray(names[0].read_bytes())
    altered[8999] ^= 1
    names[0].write_bytes(altered)
    os.truncate(names[1], 8000)
    names[2].unlink()
    Path(cartridge.file("catalog/a")).write_bytes(b"b")
    verdict = read_back(cartridge, expected_sums(cartridge), lambda count: None)
    assert verdict.damaged == sorted([*(p.archive for p in placed[:3]), "catalog/a"])
    assert verdict.archives == 4


def test_what_is_read_ahead_is_named_only_where_it_is_as_it_was_written(
    cartridge: Cartridge,
) -> None:
    placed = [place(cartridge, number, os.urandom(9000)) for number in range(6)]
    names = [Path(cartridge.file(p.archive)) for p in placed]
    flip_a_bit(names[1], random.Random(1))
    os.truncate(names[2], 8000)
    names[4].unlink()
    with reading_ahead(cartridge, {p.archive: p.sha256 for p in placed}) as done:
        while multiprocessing.active_children():
            time.sleep(0.01)
    right = [placed[number].archive for number in (0, 3, 5)]
    assert done == [(name, written_at(cartridge, name)) for name in right]
    flip_a_bit(names[3], random.Random(1))
    assert done[1] != (right[1], written_at(cartridge, right[1]))


def test_reading_ahead_ends_when_the_medium_is_wanted_for_something_else(
    cartridge: Cartridge,
) -> None:
    placed = place(cartridge, 1, b"x")
    os.truncate(cartridge.file(placed.archive), 1 << 40)  # a hole that takes minutes to hash
    with reading_ahead(cartridge, {placed.archive: placed.sha256}) as done:
        [reader] = multiprocessing.active_children()
    assert not reader.is_alive()
    assert done == []
