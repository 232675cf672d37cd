"""Retention keeps the last version of what cannot be read: its disk may never give it again."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import Program


@pytest.fixture
def precious(barred: Program, commons: Path) -> Path:
    """A file in a folder, that one snapshot of `home` has; only the newest one is to be kept."""
    program, source = barred, commons / "source"
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    (source / "001.bin").chmod(0o644)
    found = source / "letters" / "precious"
    found.parent.mkdir()
    found.write_text("first")
    program.backup("home")
    found.write_text("last")
    last = program.backup("home")["snapshot"]
    assert program.snapshots("home") == [last]
    return found


def backed_up_with_news(program: Program, source: Path, code: int = 3) -> Any:
    """Back up with a new file, for which there must be a snapshot."""
    (source / f"news {len(os.listdir(source))}").write_text("news")
    return program.backup("home", "--allow-shrink", code=code)["snapshot"]


def test_the_last_version_of_what_cannot_be_read_stays_until_it_can(
    barred: Program, commons: Path, precious: Path
) -> None:
    program, source = barred, commons / "source"
    [last] = program.snapshots("home")
    precious.chmod(0)
    for _ in range(2):
        newest = backed_up_with_news(program, source)
        assert program.snapshots("home") == [last, newest]
    assert "could not be read" in program.run("prune", "home", "--dry-run").stdout
    program.restore("home", commons / "out", "--snapshot", last)
    assert (commons / "out" / "source" / "letters" / "precious").read_text() == "last"
    precious.chmod(0o644)
    readable = backed_up_with_news(program, source, code=0)
    assert program.snapshots("home") == [readable]


def test_it_stays_while_its_folder_cannot_be_looked_into(
    barred: Program, commons: Path, precious: Path
) -> None:
    program, source = barred, commons / "source"
    [last] = program.snapshots("home")
    precious.chmod(0)
    backed_up_with_news(program, source)
    precious.parent.chmod(0)
    for _ in range(2):
        newest = backed_up_with_news(program, source)
        assert program.snapshots("home") == [last, newest]


@pytest.mark.parametrize("renamed", ["folder", "source"])
def test_it_stays_where_what_it_lies_in_has_another_name_by_now(
    barred: Program, commons: Path, precious: Path, renamed: str
) -> None:
    program, source = barred, commons / "source"
    [last] = program.snapshots("home")
    precious.chmod(0)
    if renamed == "folder":
        precious.parent.rename(source / "mail")
    else:
        program.edit_profile("home", {"source": [{"name": "docs", "path": str(source)}]})
    newest = backed_up_with_news(program, source)
    assert program.snapshots("home") == [last, newest]


def test_a_snapshot_that_nobody_can_look_through_stays_while_a_file_cannot_be_read(
    barred: Program, commons: Path, precious: Path
) -> None:
    """It may have the last version; the backup goes on."""
    program, source = barred, commons / "source"
    program.edit_profile("home", {"retention": {"keep_last": 2}})
    damaged = backed_up_with_news(program, source, code=0)
    backed_up_with_news(program, source, code=0)
    with open(program.catalog("home") / "manifests" / f"{damaged}.parquet", "r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 600)
    precious.chmod(0)
    backed_up_with_news(program, source)
    backed_up_with_news(program, source)
    assert damaged in program.snapshots("home")


def test_what_was_never_stored_keeps_nothing(barred: Program, commons: Path) -> None:
    program, source = barred, commons / "source"
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    for number in range(3):
        (source / "news").write_text(str(number))
        newest = program.backup("home", code=3)["snapshot"]
        assert program.snapshots("home") == [newest]
