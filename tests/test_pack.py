"""Packing: an archive is there with all that is said of it, or its error ends the stage."""

import errno
import os
import time
from pathlib import Path

import pytest

from tasks import pack
from tasks.media import durable
from tests.helpers.house import KIB, House, grow


@pytest.mark.parametrize("room", [1, 1 << 30])
def test_what_keeps_an_archive_out_of_the_spool_ends_the_packing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """It comes to light while the next is filled, or while that waits for a place."""
    grow(source)
    house = House(tmp_path / "workspace", "source")
    run = house.begin()
    plan = house.plan(run, rows=1000, archive_size=20 * KIB)
    publish = durable.publish

    def failing(draft: str, path: str) -> None:
        if path.startswith(run.spool):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        publish(draft, path)

    monkeypatch.setattr(durable, "publish", failing)
    monkeypatch.setattr(pack, "spool_limit", lambda *args: room)
    with pytest.raises(OSError, match="Input/output error"):
        house.pack(run, plan)
    assert not list(run.packed())


def test_a_source_whose_clock_is_hours_ahead_is_waited_for_once(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file looks as if it had been written just now, and might be written again unseen."""
    grow(source)
    house = House(tmp_path / "workspace", "source")
    run = house.begin()
    plan = house.plan(run, rows=1000)
    true_time, true_sleep, naps = time.time_ns, time.sleep, []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        true_sleep(seconds)

    monkeypatch.setattr(time, "time_ns", lambda: true_time() - 3600 * 10**9)
    monkeypatch.setattr(time, "sleep", sleep)
    house.pack(run, plan)
    _, rows = house.assemble(run)
    house.check(rows, source, "source")
    assert len(naps) == 1
    assert all(row["ctime"] > 0 for row in rows)
