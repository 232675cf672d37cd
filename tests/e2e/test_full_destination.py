"""Where the destination is full, nobody is told that a cartridge is damaged."""

import os
from pathlib import Path

from tests.conftest import MakeCartridges, MakeVolume
from tests.helpers.program import Program


def test_a_full_destination_is_not_called_damage(
    program: Program, source: Path, cartridges: MakeCartridges, loop_volume: MakeVolume
) -> None:
    for number in range(10):
        (source / f"{number}").write_bytes(os.urandom(1_000_000))
    program.init("home", [source], cartridges(1))
    program.backup("home")
    done = program.restore("home", loop_volume(6) / "out", code=None)
    assert done["error"] == "DestinationUnusable"
    assert "No space left" in done["message"]
