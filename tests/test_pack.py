"""Packing: an archive is there with all that is said of it, or its error ends the stage."""

import errno
import os
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
