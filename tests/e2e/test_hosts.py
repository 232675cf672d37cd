"""Two hosts with one luigid and one workspace work on the same run."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.hosts import Host, two_hosts
from tests.helpers.luigid import Luigid
from tests.helpers.media import archives_on, check_cartridge, fill
from tests.helpers.program import Program


class Site:
    """A shared workspace and source, a luigid, and two hosts with a shelf of their own each."""

    def __init__(self, folder: Path, program: Program, north: Host, south: Host) -> None:
        self.source = folder / "source"
        self.shelves = [folder / "media" / name for name in (north.name, south.name)]
        self.boxes = [shelf / "box" for shelf in self.shelves]
        for box in self.boxes:
            box.mkdir(parents=True)
        self.hosts = [north, south]
        self.program = program
        self.luigid = Luigid(folder / "luigid", north.address, north.network)

    def own_shelves(self) -> None:
        """Let each host see its own shelf only."""
        north, south = self.hosts
        first, second = self.shelves
        self.hosts = [replace(north, hidden=(second,)), replace(south, hidden=(first,))]

    def begin(self, files: int, size: int, capacity: str) -> None:
        fill(self.source, files=files, size=size)
        self.program.init("home", [self.source], self.boxes, capacity=capacity)
        search = {"search": [str(shelf / "*") for shelf in self.shelves]}
        self.program.edit_profile(
            "home", {"cartridges": search, "archive": {"archive_size": "500kB"}}
        )

    def start(self, index: int, *args: str) -> processes.Process:
        """Start the same command on a host."""
        there = Program(self.program.directory, self.hosts[index].prefix)
        return there.start("backup", "home", "--json", "--scheduler", self.luigid.url, *args)

    def start_both(self, *args: str) -> list[processes.Process]:
        """Start on both; the first holds still at the plan until the second has joined."""
        runs = self.program.workspace / "state" / "home" / "runs"
        north = self.start(0, *args)
        assert processes.wait_for(lambda: any(runs.glob("*/plan.json")), north)
        processes.stop_all(north)
        south = self.start(1, *args)
        try:
            joined = processes.wait_for(lambda: any(runs.glob("*/participants/south-*")), south)
        finally:
            processes.go_on(north)
        assert joined
        return [north, south]

    def done(self) -> list[dict[str, str]]:
        """Return the stages that were done, each with the participant that did it."""
        [log] = (self.program.workspace / "state" / "home" / "logs").iterdir()
        events = [json.loads(line) for line in log.read_text().splitlines()]
        return [event for event in events if event["event"] == "done"]


@pytest.fixture
def site(tmp_path: Path, program: Program) -> Iterator[Site]:
    with two_hosts() as (north, south):
        made = Site(tmp_path, program, north, south)
        yield made
        made.luigid.stop()


def test_each_host_packs_its_share_and_writes_the_cartridge_that_it_has(
    site: Site, tmp_path: Path
) -> None:
    site.own_shelves()
    site.begin(files=200, size=400_000, capacity="50MB")
    both = site.start_both("--workers", "1")
    outcomes = []
    for process in both:
        code, out, err = processes.end_of(process, timeout=120)
        assert code == 0, (out, err)
        outcomes.append(json.loads(out))
    assert [o["snapshot"] for o in outcomes] == [outcomes[0]["snapshot"]] * 2
    assert outcomes[0]["cartridges"] == [1, 2]

    doers: dict[str, set[str]] = {}
    for event in site.done():
        host = event["participant"].split("-")[0]
        doers.setdefault(event["stage"], set()).add(host)
    assert doers["PackArchive"] == {"north", "south"}
    assert doers["WriteCartridge"] == {"north", "south"}
    tasks = Counter(e["task"] for e in site.done() if e["stage"] not in ("SpanCartridges",))
    assert set(tasks.values()) == {1}, "no stage was done twice"
    archives = archives_on(*site.boxes)  # fails where one lies on both
    assert len(archives) == outcomes[0]["archives"]
    for box in site.boxes:
        check_cartridge(box)
    site.program.restore("home", tmp_path / "out")
    assert_same_tree(site.source, tmp_path / "out" / "source")
    assert site.program.backup("home")["status"] == "unchanged"


@pytest.mark.parametrize(
    "moment", ["packed/0001000003.json", pytest.param("plan.json", marks=pytest.mark.night)]
)
def test_one_host_is_killed_and_the_other_finishes(site: Site, tmp_path: Path, moment: str) -> None:
    site.begin(files=300, size=400_000, capacity="200MB")
    both = [site.start(0), site.start(1)]
    runs = site.program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob(f"*/{moment}")), both[0])
    processes.kill_all(both[0])
    code, out, err = processes.end_of(both[1], timeout=150)
    assert code == 0, (out, err)
    outcome = json.loads(out)
    assert outcome["status"] == "complete"
    assert len(archives_on(*site.boxes)) == outcome["archives"]
    for box in site.boxes:
        if (box / "journal.jsonl").exists():
            check_cartridge(box)
    site.program.restore("home", tmp_path / "out")
    assert_same_tree(site.source, tmp_path / "out" / "source")


def test_a_cartridge_that_no_host_has_is_asked_for_by_both(site: Site) -> None:
    site.own_shelves()
    site.begin(files=60, size=400_000, capacity="9MB")
    both = site.start_both()
    codes = {}
    for index, process in enumerate(both):
        codes[index], out, err = processes.end_of(process, timeout=120)
        assert codes[index] == 4, (out, err)
        assert json.loads(out)["error"] == "CartridgeWanted"
