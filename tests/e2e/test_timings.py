"""Where the time of a run goes can be seen, stage by stage, for people and for machines."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.timings import spent
from tests.conftest import MakeCartridges
from tests.helpers.media import fill
from tests.helpers.program import Program

FIRST = {
    "ScanSource": "entries",
    "DiffManifest": "entries",
    "PlanArchives": "",
    "PackArchive": "bytes",
    "WriteCartridge": "bytes",
    "VerifyCartridge": "bytes",
    "SpanCartridges": "",
    "CommitSnapshot": "",
    "PruneBackups": "",
}


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A profile over 4 MB; its source."""
    fill(source, files=40, size=100_000)
    program.init("home", [source], cartridges(1))
    return source


def test_each_stage_of_a_run_has_its_time_its_amount_and_its_rate(
    program: Program, home: Path
) -> None:
    found = program.backup("home", "--timings")["timings"]
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert {name: stage["unit"] for name, stage in stages.items()} == FIRST
    assert stages["ScanSource"]["amount"] == 40
    assert stages["PackArchive"]["amount"] >= 4_000_000
    assert 4_000_000 <= stages["WriteCartridge"]["amount"] <= 8_000_000
    for stage in stages.values():
        assert stage["tasks"] >= 1
        assert 0 <= stage["wall"] <= stage["seconds"] + 0.01
        assert stage["wall"] <= found["seconds"]
        assert bool(stage["rate"]) == bool(stage["amount"])
    assert 0 < found["outside"] < found["seconds"]


def test_what_lay_on_a_cartridge_before_is_not_counted_as_written(
    program: Program, home: Path
) -> None:
    program.backup("home")
    (home / "new").write_bytes(bytes(1000))
    found = program.backup("home", "--timings")["timings"]
    [written] = [stage for stage in found["stages"] if stage["stage"] == "WriteCartridge"]
    assert 0 < written["amount"] < 100_000


def test_a_run_that_finds_nothing_changed_has_timings_too(program: Program, home: Path) -> None:
    program.backup("home")
    done = program.backup("home", "--timings")
    assert done["status"] == "unchanged"
    stages = [stage["stage"] for stage in done["timings"]["stages"]]
    assert stages[:3] == ["ScanSource", "DiffManifest", "PlanArchives"]
    assert "PackArchive" not in stages


def test_people_get_a_table_only_where_they_ask(program: Program, home: Path) -> None:
    lines = program.run("backup", "home", "--timings").stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("stage "))
    assert lines[head].split() == ["stage", "tasks", "seconds", "wall", "amount", "rate"]
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == [
        "ScanSource",
        "DiffManifest",
    ]
    assert "40 entries" in lines[head + 1]
    assert lines[-2].startswith("outside of stages ")
    assert lines[-1].startswith("whole run ")
    assert "ScanSource" not in program.run("backup", "home").stdout
    assert "timings" not in program.backup("home")


def test_of_a_run_that_went_on_only_this_part_is_told(
    program: Program, home: Path, cartridges: MakeCartridges
) -> None:
    """What an earlier invocation did is in the log, but was not waited for now."""
    program.edit_profile("home", {"cartridges": {"capacity": "2MB"}})
    waiting = program.backup("home", code=4)
    assert waiting["status"] == "waiting"
    for cartridge in cartridges(2):
        program.run("label", cartridge, "--set", "home")
    found = program.backup("home", "--timings")["timings"]
    assert "ScanSource" not in {stage["stage"] for stage in found["stages"]}
    assert found["stages"]


def test_tasks_at_the_same_time_count_once_as_wall_and_each_as_seconds() -> None:
    def done(stage: str, second: int, seconds: float, **amount: object) -> dict[str, Any]:
        time = f"2026-01-01T00:00:{second:02}.000Z"
        return {"event": "done", "time": time, "stage": stage, "seconds": seconds, **amount}

    events = [
        done("Scan", 2, 2.0, amount=500, unit="entries"),
        done("Pack", 6, 3.0, amount=100, unit="bytes"),
        done("Pack", 7, 3.0, amount=300, unit="bytes"),
        {"event": "ended", "time": "2026-01-01T00:00:09.000Z"},
    ]
    found = spent(events, seconds=8.5)
    scan, pack = found.stages
    assert (scan.tasks, scan.seconds, scan.wall, scan.rate) == (1, 2.0, 2.0, 250.0)
    assert (pack.tasks, pack.seconds, pack.wall, pack.rate) == (2, 6.0, 4.0, 100.0)
    assert found.outside == 2.5
