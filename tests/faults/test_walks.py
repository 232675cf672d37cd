"""The n-th call fails, for n walking through a whole run: nothing half stays, a rerun ends well."""

import dataclasses
import errno
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.faults import FULL, READ_ONLY, SHORT, SICK, Fault, Faults
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

WHAT = {"full": FULL, "sick": SICK, "read-only": READ_ONLY, "short": SHORT}
PLACES = ("workspace", "cartridges")
# The failing call as a part of all calls of a run that could fail.
QUICK = [
    ("workspace", "full", "lasting", 0.35),
    ("workspace", "sick", "once", 0.7),
    ("cartridges", "full", "once", 0.45),
    ("cartridges", "sick", "once", 0.2),
    ("cartridges", "read-only", "lasting", 0.6),
    ("cartridges", "short", "lasting", 0.0),
]
# Once and lasting failures are met at places between each other.
SLOW = {"once": (0.12, 0.62), "lasting": (0.37, 0.87)}


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

    def fault(self, place: str, what: str, how: str, part: float) -> Fault:
        """Choose the call to fail, counted in a run that is left alone; resets."""
        error, kinds = WHAT[what]
        roots = (self.program.workspace if place == "workspace" else self.live / "media",)
        self.reset()
        counted = Faults(self.program, Fault(roots=roots, error=error, kinds=kinds))
        counted.program.backup("home")
        at = 1 + int(part * counted.count)
        self.reset()
        return Fault(roots=roots, error=error, kinds=kinds, at=at, lasting=how == "lasting")


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


@pytest.mark.parametrize(("place", "what", "how", "part"), QUICK)
def test_a_call_that_fails_costs_nothing(
    job: Job, place: str, what: str, how: str, part: float
) -> None:
    check(job, job.fault(place, what, how, part))


@pytest.mark.slow
@pytest.mark.parametrize("how", SLOW)
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("place", PLACES)
def test_any_call_that_fails_costs_nothing(job: Job, place: str, what: str, how: str) -> None:
    for part in SLOW[how]:
        check(job, job.fault(place, what, how, part))


def check(job: Job, fault: Fault) -> None:
    """Back up with a fault, then without: what a run says is so, and all snapshots come back."""
    faults = Faults(job.program, fault)
    done = faults.program.run("backup", "--json", "home", code=None)  # fails on a traceback
    told = json.loads(done.stdout)
    where = f"{fault}: {faults.first}: {told}"
    assert faults.hits, where
    assert ("error" in told) == (done.returncode != 0), where
    assert "\n" not in told.get("message", ""), where
    assert (fault.error == errno.EIO) or told.get("error") != "DamageFound", where
    assert not (torn := list(not_whole(job))), f"{where}: {torn}"
    if done.returncode == 0:
        assert told["snapshot"] in job.program.snapshots("home"), where
    again = job.program.json("backup", "home", code=None)
    assert "error" not in again, f"{where}, then {again}"
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
