"""A backup that is made again and again from the same state, and ends well whatever befell it."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree


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


def make_job(base: Path) -> Job:
    """Make the first backup, and change the source."""
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
    return Job(base=base, first=first, before=before, after=snapshot_of(source))


def assert_made_good(job: Job, where: str) -> None:
    """Nothing half lies under a final name; another backup ends well; all snapshots come back."""
    assert not (torn := list(not_whole(job))), f"{where}: {torn}"
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
