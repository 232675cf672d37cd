"""A workspace in which the stages are called as plain functions, up to what lies on cartridges.

Bundles have a few rows and archives a few KiB, so that contents are spread, shared and cut as in a
large run.
"""

import hashlib
import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tasks.catalog.assembly import assemble
from tasks.catalog.request import Request
from tasks.catalog.runs import Place, Run
from tasks.commit import commit
from tasks.diff import diff, summaries
from tasks.formats.archive import ContentReader
from tasks.model.profile import Profile, parse_profile
from tasks.model.words import ArchivesPlan, Bundle, Cutting, DiffSummary, SnapshotInfo
from tasks.pack import Packer
from tasks.plan import _index_stored
from tasks.scan import scan
from tests.helpers.rows import Row, key, raw_path, read

KIB = 1 << 10
SPLIT = 40 * KIB
CUTTING = Cutting(split_size=SPLIT, minimum=4 * KIB, average=8 * KIB, maximum=16 * KIB)


class House:
    """A workspace with one profile, and every archive that was ever packed in it."""

    def __init__(self, folder: Path, *sources: str) -> None:
        self.folder = folder
        self.archives: dict[str, str] = {}
        self.runs = 0
        self.profile = profile_of(folder, *sources)
        (folder / "state").mkdir(parents=True)

    def begin(self, *, full: bool = False) -> Run:
        """Open a run and leave what scan and diff leave."""
        self.runs += 1
        run = Run(Place(str(self.folder), "home"), f"202601{self.runs:02}T000000Z")
        os.makedirs(run.place.folder, exist_ok=True)
        request = Request(
            snapshot=run.snapshot,
            profile_name="home",
            profile=self.profile,
            workspace=str(self.folder),
            previous=run.store.newest(),
            full=full,
            allow_shrink=True,
            started="2026-01-01T00:00:00Z",
        )
        run.create(request)
        for source in self.profile.source:
            scan(source, str(self.folder), run.scan_path(source.name))
        run.save("diff.json", diff(run))
        _index_stored(run, request)
        return run

    def plan(self, run: Run, rows: int = 2, archive_size: int = 50 * KIB) -> ArchivesPlan:
        """Cut the pack list into bundles of a few rows."""
        count = len(read(run.path("pack.parquet")))
        starts = range(0, count, rows)
        bundles = [
            Bundle(number=n + 1, start=start, stop=min(start + rows, count), bytes=1)
            for n, start in enumerate(starts)
        ]
        plan = ArchivesPlan(archive_size=archive_size, cutting=CUTTING, bundles=bundles)
        run.save("plan.json", plan)
        return plan

    def pack(self, run: Run, plan: ArchivesPlan, bundles: Iterable[Bundle] | None = None) -> None:
        """Pack bundles, and remember where their archives are."""
        for bundle in plan.bundles if bundles is None else bundles:
            receipt = Packer(run, plan, bundle).pack()
            run.save(os.path.join("bundles", f"{bundle.number:04d}.json"), receipt)
        for packed in run.packed():
            if packed.bytes:
                self.archives[packed.archive] = run.spooled(packed.number)

    def assemble(self, run: Run, *, complete: bool = True) -> tuple[SnapshotInfo, list[Row]]:
        path = run.path("manifest.parquet")
        info = assemble(run, summaries(run), path, complete=complete)
        rows = read(path)
        assert [key(r) for r in rows] == sorted(key(r) for r in rows)
        assert info.entries == len(rows)
        return info, rows

    def back_up(self, *, full: bool = False, rows: int = 2) -> tuple[SnapshotInfo, list[Row]]:
        """Do all that a run does, but for cartridges."""
        run = self.begin(full=full)
        self.pack(run, self.plan(run, rows=rows))
        found = self.assemble(run)
        for packed in run.packed():
            if packed.bytes:
                run.note_placed(packed.number, 1)
        commit(run, run.load("diff.json", DiffSummary))
        return found

    def content(self, entry: Row) -> bytes:
        """Read a content from where its row says that it lies."""
        pieces = []
        for part in entry["parts"]:
            if part["archive"] is None:
                pieces.append(bytes(part["length"]))
                continue
            with open(self.archives[part["archive"]], "rb") as file:
                place = part["frame"], part["skip"], part["length"]
                reader = ContentReader(file, part["archive"])
                pieces.append(b"".join(map(bytes, reader.read(*place))))
            assert hashlib.sha256(pieces[-1]).digest() == part["sha256"]
        return b"".join(pieces)

    def check(self, rows: list[Row], source: Path, name: str) -> None:
        """Compare a manifest with a tree: every file there, and its content where the row says."""
        mine = {raw_path(r): r for r in rows if r["source"] == name}
        files = {}
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                files[os.fsencode(path.relative_to(source))] = path.read_bytes()
        found = {}
        for path, entry in mine.items():
            target = entry["link_target"]
            first = mine[target] if entry["type"] == "hardlink" else entry
            if first["type"] == "file":
                found[path] = self.content(first)
                assert hashlib.sha256(found[path]).digest() == first["sha256"]
                assert len(found[path]) == first["size"]
        assert found == files

    def members(self, archive: str) -> set[str]:
        """List an archive as tar does."""
        data = subprocess.run(
            ["lz4", "-dc", self.archives[archive]], capture_output=True, check=True
        ).stdout
        listed = subprocess.run(["tar", "-t"], input=data, capture_output=True, check=True).stdout
        return set(listed.decode().splitlines())

    def check_members(self, rows: list[Row]) -> None:
        """Check that each part names the member that holds it."""
        listed: dict[str, set[str]] = {}
        for entry in rows:
            for part in entry["parts"] or ():
                if part["archive"]:
                    names = listed.setdefault(part["archive"], self.members(part["archive"]))
                    assert (part["member"] or f"{entry['source']}/{entry['path']}") in names


def profile_of(folder: Path, *sources: str) -> Profile:
    text = "".join(f'[[source]]\npath = "{folder.parent / name}"\n' for name in sources)
    return parse_profile("home", text, "home.toml")


def grow(source: Path) -> None:
    """Files of every kind that content is stored in, some of them alike."""
    chance = random.Random(1)
    big = chance.randbytes(150 * KIB)
    for number in range(12):
        folder = source / f"{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(chance.randbytes(chance.randrange(1, 30 * KIB)))
        (folder / f"twin {number}").write_bytes(b"same" * (number % 2 * 4000 + 1))
    for name in ("1/empty", "empty"):
        (source / name).touch()
    (source / "0" / "big").write_bytes(big)
    (source / "2" / "big again").write_bytes(big)
    (source / "2" / "big and more").write_bytes(b"!" + big)
    (source / "1" / "exactly split").write_bytes(chance.randbytes(SPLIT))
    with (source / "1" / "sparse").open("wb") as file:
        file.write(chance.randbytes(8192))
        file.seek(1 << 20)
        file.write(chance.randbytes(8192))
        file.truncate(2 << 20)
    with (source / "2" / "hole").open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(
        ["cp", "--sparse=always", source / "1" / "sparse", source / "2" / "sparse too"], check=True
    )
    os.link(source / "0" / "big", source / "1" / "a link to big")
    os.link(source / "1" / "sparse", source / "2" / "a link to sparse")
    (source / "2" / "symlink").symlink_to("big")
    os.mkfifo(source / "fifo")
