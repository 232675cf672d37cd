"""Participants of a run know of each other while they live."""

import fcntl
import os
from pathlib import Path

import pytest

from tasks.catalog import participants
from tests.helpers.house import House


def test_one_that_is_taken_for_dead_while_it_joins_joins_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may see its file before it is locked, and take it for that of a dead one."""
    (source / "file").write_text("x")
    run = House(tmp_path / "workspace", "source").begin()
    flock, removed = fcntl.flock, list[str]()

    def late(fd: int, kind: int) -> None:
        if not removed:
            removed.append(os.readlink(f"/proc/self/fd/{fd}"))
            assert participants.others(run, "another") == []
        flock(fd, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    with participants.joined(run, "late"):
        assert removed == [run.path("participants", "late")]
        participants.want(run, "late", 3)
        assert participants.wanted(run, "late") == 3
        assert participants.others(run, "another") == ["late"]
    assert participants.others(run, "another") == []
