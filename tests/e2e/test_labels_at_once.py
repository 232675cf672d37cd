"""Cartridges are labelled and entered one after the other: none twice, no two of one number."""

import fcntl
import json
import os
import time
from collections import Counter
from pathlib import Path

from tasks.catalog.members import joined
from tasks.model.words import CartridgeRow
from tests.helpers import processes
from tests.helpers.program import Program


def cartridge(serial: int, uuid: str) -> CartridgeRow:
    return CartridgeRow(
        serial=serial,
        set="home",
        label=f"home {serial}",
        uuid=uuid,
        capacity=None,
        state="blank",
        used=0,
        location=f"/media/{uuid}",
        created="",
    )


def test_volumes_that_are_labelled_at_once_get_numbers_of_their_own(
    program: Program, tmp_path: Path
) -> None:
    folders = [tmp_path / f"c{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
    started = [program.start("label", folder, "--set", "home", "--json") for folder in folders]
    ended = [processes.end_of(process) for process in started]
    assert [code for code, _, _ in ended] == [0] * 6, ended
    assert sorted(json.loads(out)["serial"] for _, out, _ in ended) == [1, 2, 3, 4, 5, 6]


def test_a_volume_that_two_would_label_is_labelled_by_one(program: Program, tmp_path: Path) -> None:
    """The other waits until the first is through, and then finds a cartridge."""
    volume = tmp_path / "c1"
    volume.mkdir()
    fd = os.open(volume, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    late = program.start("label", volume, "--set", "home", "--json")
    time.sleep(1.5)
    assert late.poll() is None
    assert not list(volume.iterdir())
    (volume / "CARTRIDGE.json").write_text("{}")
    os.close(fd)
    code, out, err = processes.end_of(late)
    assert (code, json.loads(out)["error"]) == (1, "LabelledAlready"), err
    assert (volume / "CARTRIDGE.json").read_text() == "{}"


def test_a_cartridge_that_somebody_else_has_entered_is_not_entered_again() -> None:
    one, two, other_two = cartridge(1, "a"), cartridge(2, "b"), cartridge(2, "c")
    assert joined([one], [one, two, other_two, two]) == [one, two]


def test_of_two_cartridges_of_one_number_a_run_takes_one(
    program: Program, source: Path, tmp_path: Path
) -> None:
    """They were labelled on two hosts that did not know of each other."""
    media = tmp_path / "media"
    for number in (1, 2, 3):
        (media / f"c{number}").mkdir(parents=True)
    (source / "file").write_text("x")
    program.init("home", [source], [media / "c1"])
    for number, workspace in ((2, "first"), (3, "second")):
        other = tmp_path / workspace
        known = other / "media"
        known.mkdir(parents=True)
        where = ("--set", "home", "--workspace", other)
        program.run("label", known, *where)
        program.run("label", media / f"c{number}", *where)
    search = [f"{media}/*"]
    program.edit_profile("home", {"cartridges": {"search": search, "parallel": 2}})
    assert program.backup("home")["status"] == "complete"
    found = program.json("cartridges", "home")["cartridges"]
    assert max(Counter(one["serial"] for one in found).values()) == 1
