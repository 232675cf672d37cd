"""The n-th call fails, for n walking through a whole run: nothing half stays, a rerun ends well."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import MakeCartridges
from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.faults import FULL, READ_ONLY, SHORT, SICK, Fault, Faults
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

WHAT = {"full": FULL, "sick": SICK, "read-only": READ_ONLY, "short": SHORT}
QUICK = [
    ("workspace", "full", True, 150),
    ("workspace", "full", True, 1000),
    ("workspace", "sick", False, 400),
    ("cartridges", "full", False, 60),
    ("cartridges", "sick", False, 40),
    ("cartridges", "short", True, 1),
]
# How far the failing calls of a walk lie apart; FAULT_STEP=1 walks over each, in a night.
STEPS = {"workspace": 1250, "cartridges": 150}
STEP = int(os.environ.get("FAULT_STEP", "0"))


def test_an_archive_that_made_room_for_the_catalog_is_packed_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """The catalog of the first cartridge finds no room while the packer is still at work."""
    fill(source, files=60, size=250_000)
    made = cartridges(5)
    program.init("home", [source], made, capacity="4MB")
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    root = made[0] / "catalog"
    fault = Fault(roots=(root,), error=errno.ENOSPC, kinds=("open", "mkdir"), at=1)
    faults = Faults(program, fault)
    done = faults.program.backup("home", code=None)
    assert faults.hits == 1
    assert done.get("status") == "complete", done
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A profile with one snapshot and a changed source, which needs a second cartridge; resettable.

    Everything that a run may change lies in `live`, a copy of it as it was in `saved`.
    """

    base: Path
    first: str
    before: dict[bytes, Any]
    after: dict[bytes, Any]

    @property
    def live(self) -> Path:
        return self.base / "live"

    @property
    def media(self) -> list[Path]:
        return sorted((self.live / "media").iterdir())

    @property
    def program(self) -> Program:
        return Program(self.live / "program")

    def reset(self) -> None:
        """Have everything as it was before the second backup."""
        shutil.rmtree(self.live, ignore_errors=True)
        subprocess.run(["cp", "-a", self.base / "saved", self.live], check=True)

    def fault(self, place: str, what: str, lasting: bool, at: int) -> Fault:
        """Choose the calls to fail."""
        error, kinds = WHAT[what]
        root = self.program.workspace if place == "workspace" else self.live / "media"
        return Fault(roots=(root,), error=error, kinds=kinds, at=at, lasting=lasting)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    base = tmp_path_factory.mktemp("walk")
    live, source = base / "live", base / "source"
    media = [live / "media" / f"c{number}" for number in (1, 2, 3)]
    for folder in media:
        folder.mkdir(parents=True)
    program = Program(live / "program")
    small_tree(source, files=12)
    fill(source / "big", files=3, size=280_000)
    program.init("home", [source], media, capacity="2MB")
    first = program.backup("home")["snapshot"]
    before = snapshot_of(source)
    fill(source / "big", files=6, size=281_000, seed=2)
    (source / "new.txt").write_text("new")
    subprocess.run(["cp", "-a", live, base / "saved"], check=True)
    yield Job(base=base, first=first, before=before, after=snapshot_of(source))
    shutil.rmtree(base)


@pytest.mark.parametrize(("place", "what", "lasting", "at"), QUICK)
def test_a_call_that_fails_costs_nothing(
    job: Job, place: str, what: str, lasting: bool, at: int
) -> None:
    assert is_met(job, job.fault(place, what, lasting, at))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "what"),
    [(place, what) for place in STEPS for what in WHAT],
)
def test_whichever_call_fails_it_costs_nothing(job: Job, place: str, what: str) -> None:
    step = STEP or STEPS[place]
    # Every walk begins elsewhere; once and lasting take turns.
    at, lasting = 1 + 17 * len(what) % step, len(what) % 2 == 0
    while is_met(job, job.fault(place, what, lasting, at)):
        at, lasting = at + step, not lasting


def is_met(job: Job, fault: Fault) -> bool:
    """Back up with a fault, then without: what a run says is so, and all snapshots come back.

    False where the run was over before the fault; then there is nothing to see.
    """
    job.reset()
    faults = Faults(job.program, fault)
    done = faults.program.run("backup", "--json", "home", code=None)  # fails on a traceback
    told = json.loads(done.stdout)
    where = f"{fault}: {faults.first}: {told}"
    if not faults.hits:
        assert done.returncode == 0, where
        return False
    assert ("error" in told) == (done.returncode != 0), where
    assert "\n" not in told.get("message", ""), where
    assert not (torn := list(not_whole(job))), f"{where}: {torn}"
    if done.returncode == 0:
        assert told["snapshot"] in job.program.snapshots("home"), where
    ends_well(job, where)
    known = job.program.snapshots("home")
    assert known[0] == job.first, where
    assert len(known) == 2, f"{where}: {known}"
    for number, (snapshot, tree) in enumerate(zip(known, (job.before, job.after), strict=True)):
        out = job.live / f"out-{number}"
        job.program.restore("home", out, "--snapshot", snapshot)
        assert_same_tree(tree, out / "source")
    check_media(job)
    left = [path for path in job.program.workspace.rglob("*.tmp") if path.is_file()]
    assert not left, f"{where}: {left}"
    return True


def ends_well(job: Job, where: str) -> None:
    """Back up without a fault; where all cartridges were given up, a person brings new ones."""
    again = job.program.json("backup", "home", code=None)
    if again.get("error") == "CartridgeWanted":
        for name in ("new-1", "new-2"):
            folder = job.live / "media" / name
            folder.mkdir()
            job.program.run("label", folder, "--set", "home")
        again = job.program.json("backup", "home", code=None)
    assert "error" not in again, f"{where}, then {again}"


def check_media(job: Job) -> None:
    """All cartridges that are trusted and were written are as their lists say."""
    rows = job.program.json("cartridges", "home")["cartridges"]
    states = {row["serial"]: row["state"] for row in rows}
    for folder in job.media:
        state = states[Medium(path=folder).label["serial"]]
        if state != "suspect" and (folder / "SHA256SUMS").exists():
            check_cartridge(folder)


def not_whole(job: Job) -> Iterator[str]:
    """Yield files with a final name, and lines of lists, that are not what they should be."""
    for path in sorted(job.live.rglob("*")):
        try:
            if path.suffix == ".parquet":
                pq.ParquetFile(path).read()
            elif path.suffix == ".json" and "tmp" not in path.parts:
                json.loads(path.read_bytes())
        except Exception as error:
            yield f"{path}: {error}"
    for folder in job.media:
        for line in lines_of(folder / "journal.jsonl"):
            archive = folder / line["archive"]
            if not archive.exists() or digest(archive) != line["sha256"]:
                yield f"{archive} is not as the journal says"


def lines_of(journal: Path) -> list[dict[str, Any]]:
    """Read the lines that count: one that is torn off at the end was never said."""
    whole = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in whole]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
