"""How the program grows with its work: seconds, memory and bytes, for ever more entries."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.catalog.changes import OLD_COLUMNS as COLUMNS
from tasks.catalog.changes import ChangeWriter, Judge, compare
from tasks.catalog.rowgroups import stream
from tests.bench import measure
from tests.bench.content import Content
from tests.bench.corpora import KIB, MIB
from tests.bench.measure import Run
from tests.helpers.catalogs import FOLDER, add_archives, add_numbered, make_profile
from tests.helpers.program import Program

_FILES_IN_FOLDER = 100
_JUDGE = Judge(lenient=frozenset(), unread=[], forced=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured."""

    measure: str
    what: str
    value: float
    unit: str


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: part of the full size, and for how many files."""

    scale: float
    entries: list[int]

    def of(self, count: int) -> int:
        """Return so many at this scale."""
        return max(1, int(count * self.scale))


def measured(names: Sequence[str], folder: Path, scale: float, entries: list[int]) -> list[Figure]:
    """Take the measures of these names, each in a folder of its own."""
    found = []
    for name in names:
        here = folder / name
        here.mkdir()
        for what, value, unit in MEASURES[name](here, Size(scale, entries)):
            found.append(Figure(measure=name, what=what, value=round(value, 4), unit=unit))
            print(f"{name}: {what}: {value:,.2f} {unit}", file=sys.stderr, flush=True)
    return found


def markdown(figures: Sequence[Figure]) -> str:
    """Write the figures as a table."""
    lines = ["| measure | what | value |", "|---|---|---|"]
    lines += [f"| {f.measure} | {f.what} | {f.value:,.2f} {f.unit} |" for f in figures]
    return "\n".join([*lines, ""])


Told = Iterator[tuple[str, float, str]]


def _files(folder: Path, size: Size) -> Told:
    """Back up ever more small files, and then again with nothing changed."""
    for count in size.entries:
        bench = _Bench(folder / str(count))
        _small_files(bench.source, count)
        bench.init()
        first = bench.run("backup", "bench", "--batch", "-q")
        yield f"{count:,} files: peak memory of the first backup", first.peak / 1e6, "MB"
        yield f"{count:,} files: first backup", count / first.seconds, "files/s"
        catalog = sum(p.stat().st_size for p in bench.catalog.rglob("*") if p.is_file())
        yield f"{count:,} files: catalog", catalog / count, "bytes/file"
        again = bench.run("backup", "bench", "--batch", "-q", memory=False)
        yield f"{count:,} files: nothing changed", count / again.seconds, "files/s"
        watched = bench.run("backup", "bench", "--batch", "-q")
        yield f"{count:,} files: peak memory, nothing changed", watched.peak / 1e6, "MB"


def _small_files(folder: Path, count: int) -> None:
    """Make so many files of 20 bytes each, no two alike."""
    for first in range(0, count, _FILES_IN_FOLDER):
        here = folder / f"{first // 10_000:04}" / f"{first:08}"
        here.mkdir(parents=True)
        for number in range(first, min(first + _FILES_IN_FOLDER, count)):
            (here / f"{number:08}.txt").write_bytes(b"file number %08d" % number)


def _diff(folder: Path, size: Size) -> Told:
    """Compare two manifests of which 1 % differs, in a process of its own."""
    count = size.of(10_000_000)
    store = make_profile(folder)
    numbers = np.arange(count)
    ids = ("20260101T000000Z", "20260102T000000Z")
    add_numbered(store, ids[0], numbers)
    add_numbered(store, ids[1], numbers, changed=numbers[50::100])
    old, new = (store.manifest_path(snapshot) for snapshot in ids)
    call = "import sys; from tests.bench.growth import compare_manifests as c; c(*sys.argv[1:])"
    command = f'"{sys.executable}" -c "{call}" "{old}" "{new}" "{folder}"'
    timed, watched = _checked(command, folder), _checked(command, folder, memory=True)
    yield f"{count:,} rows, start included", count / timed.seconds, "rows/s"
    yield f"{count:,} rows: peak memory", watched.peak / 1e6, "MB"


def compare_manifests(old: str, new: str, folder: str) -> None:
    """Compare as the stage does."""
    writer = ChangeWriter(*(f"{folder}/{name}" for name in ("changes", "pack", "carry", "kept")))
    with writer:
        found = compare(stream(new, COLUMNS), stream(old, COLUMNS), _JUDGE, writer)
        writer.close()
    print(found.entries, dict(found.counts))


def _archives(folder: Path, size: Size) -> Told:
    """Pack into 20,000 tiny archives, and see what Luigi makes of it."""
    bench = _Bench(folder)
    content = Content(20)
    for number in range(size.of(20_000)):
        (bench.source / f"{number:06}").write_bytes(content.noise(64 * KIB))
    bench.init()
    bench.program.edit_profile("bench", {"archive": {"archive_size": "64KiB"}})
    done = bench.program.backup("bench", "--timings", timeout=measure.LIMIT)
    spent = done["timings"]
    tasks = sum(stage["tasks"] for stage in spent["stages"])
    yield "archives", done["archives"], ""
    yield "tasks", tasks, ""
    yield f"{done['archives']:,} archives", done["seconds"], "s"
    yield (
        "time in which no stage ran: Luigi's share",
        100 * spent["outside"] / spent["seconds"],
        "%",
    )


def _insertion(folder: Path, size: Size) -> Told:
    """Put one byte before a file of 1 GiB, and see how much is stored, and how fast."""
    bench = _Bench(folder)
    file, content = bench.source / "image", Content(21)
    with file.open("xb") as out:
        for _ in range(size.of(1024)):
            out.write(content.noise(MIB))
    bench.init()
    bench.backup()
    with (folder / "longer").open("xb") as out:
        out.write(b"x" + file.read_bytes())
    (folder / "longer").rename(file)
    stored = bench.backup()
    timed, sums = stored["seconds"], _checked(f'sha256sum "{file}"', folder).seconds
    yield "bytes stored after 1 byte was put in front", stored["bytes_stored"] / 1e6, "MB"
    yield "speed of this backup", file.stat().st_size / timed / 1e6, "MB/s"
    yield "speed of sha256sum", file.stat().st_size / sums / 1e6, "MB/s"


def _lookups(folder: Path, size: Size) -> Told:
    """Look things up in a catalog of 100 snapshots with 1,000,000 entries each."""
    bench, count, snapshots = _Bench(folder), size.of(1_000_000), 100
    store = make_profile(bench.program.workspace, "bench")
    numbers = np.arange(count)
    for day in range(snapshots):
        snapshot = f"2026{day // 28 + 1:02}{day % 28 + 1:02}T000000Z"
        add_numbered(store, snapshot, numbers, changed=numbers[day :: snapshots * 10])
    add_archives(store, count, cartridges=5)
    # A file in the middle; `add_numbered` names what it makes.
    wanted = count // 2 // FOLDER * FOLDER
    inside, name = f"folder {wanted // FOLDER:05}", f"picture {wanted + 7:08}.*"
    plan = ("restore", str(folder / "nowhere"), "--plan")
    for command, *rest in (("snapshots",), ("find", name), ("ls", f"s/{inside}"), ("diff",), plan):
        what = f"{command} in {snapshots} x {count:,} entries"
        yield f"{what}: first line", bench.first_line(command, "bench", *rest), "s"
        watched = bench.run(command, "bench", *rest)
        yield f"{what}: peak memory", watched.peak / 1e6, "MB"


def _shapes(folder: Path, size: Size) -> Told:
    """Back up one folder of 1,000,000 files, one 2,000 levels deep, and a hole of 100 GiB."""
    many, levels, hole = size.of(1_000_000), size.of(2_000), size.of(100 << 30)
    for what, make, count in (
        (f"one folder of {many:,} files", _wide, many),
        (f"{levels:,} levels of folders", _deep, levels),
        (f"one file with a hole of {hole / 1e9:,.1f} GB", _hollow, hole),
    ):
        bench = _Bench(folder / make.__name__)
        make(bench.source, count)
        bench.init()
        first = bench.run("backup", "bench", "--batch", "-q")
        yield f"{what}: first backup", first.seconds, "s"
        yield f"{what}: peak memory", first.peak / 1e6, "MB"
        if make is _deep:
            back = bench.run("restore", "bench", str(folder / "back"), memory=False)
            yield f"{what}: restore", back.seconds, "s"
            subprocess.run(["rm", "-rf", folder / "back"], check=True)
        # Python's own removal of folders goes no deeper than its stack.
        subprocess.run(["rm", "-rf", bench.source], check=True)


def _wide(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number:08}.txt").write_bytes(b"file number %08d" % number)


def _deep(folder: Path, count: int) -> None:
    """Make folders in one another, and a file in each; the path is longer than any call takes."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(count):
        os.mkdir("a", dir_fd=at)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
        below = os.open("a", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)


def _hollow(folder: Path, count: int) -> None:
    with (folder / "image").open("xb") as file:
        file.truncate(count)
        file.seek(count // 2)
        file.write(b"in the middle")


def _medium(folder: Path, size: Size) -> Told:
    """Write to a medium that is ten times slower than the packer, and see how busy it is kept."""
    yield "a medium of 10 MB/s is busy", min(_busy(folder / "one", size.of(300), media=1)), "%"
    two = min(_busy(folder / "two", size.of(600), media=2))
    yield "each of two that are written at once is busy", two, "%"


def _busy(folder: Path, mebibytes: int, media: int) -> list[float]:
    """Back up to media of 10 MB/s, all at once; return which part of its time each was busy."""
    from tests.bench.slowvolume import slow_volume  # needs FUSE

    folder.mkdir()
    bench, content = _Bench(folder), Content(22)
    for number in range(mebibytes):
        (bench.source / f"{number:03}").write_bytes(content.noise(MIB))
    more = [folder / f"cartridge-{number}" for number in range(1, media)]
    for path in more:
        path.mkdir()
    bench.init(*more)
    bench.program.edit_profile("bench", {"cartridges": {"parallel": media}})
    with contextlib.ExitStack() as volumes:
        for mount in (bench.cartridge, *more):
            behind = mount.with_suffix(".behind")
            mount.rename(behind)
            mount.mkdir()
            log = mount.with_suffix(".json")
            volumes.enter_context(slow_volume(behind, mount, 10e6, log))
        bench.backup()
    found = [json.loads(log.read_text()) for log in folder.glob("cartridge*.json")]
    # One to which nothing was written, as so little was to be, had nothing to do.
    return [100 * one["busy"] / one["span"] if one["span"] else 0.0 for one in found]


MEASURES: dict[str, Callable[[Path, Size], Told]] = {
    "files": _files,
    "diff": _diff,
    "archives": _archives,
    "insertion": _insertion,
    "lookups": _lookups,
    "shapes": _shapes,
    "medium": _medium,
}


class _Bench:
    """A profile `bench` over one source, with one cartridge."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = Program(folder / "program")
        self.program.env.pop("PYTHONDONTWRITEBYTECODE")
        self.source, self.cartridge = folder / "source", folder / "cartridge"
        for made in (self.source, self.cartridge):
            made.mkdir(parents=True)

    @property
    def catalog(self) -> Path:
        """The catalog in the workspace."""
        return self.program.catalog("bench")

    def init(self, *more: Path) -> None:
        """Write the profile, and label the cartridge, and more of them."""
        self.program.init("bench", [self.source], [self.cartridge, *more])

    def backup(self) -> dict[str, Any]:
        """Back up, and return what the program says about it."""
        return self.program.backup("bench", timeout=measure.LIMIT)

    def first_line(self, *args: str) -> float:
        """Return the seconds until a command of the program says something."""
        began = time.monotonic()
        command = [sys.executable, "-m", "pipelines", *args]
        with subprocess.Popen(command, env=self.program.env, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seconds = time.monotonic() - began
            process.kill()
        return seconds

    def run(self, *args: str, memory: bool = True) -> Run:
        """Run a command of the program; RuntimeError where it fails."""
        words = " ".join(f'"{arg}"' for arg in args)
        command = f'"{sys.executable}" -m pipelines {words}'
        return _checked(command, self._folder, memory, self.program.env)


def _checked(
    command: str, folder: Path, memory: bool = False, env: dict[str, str] | None = None
) -> Run:
    env = env or Program(folder / "program").env
    done = measure.run(command, env, folder / "log", memory)
    if done.code:
        raise RuntimeError((folder / "log").read_text("utf-8", "replace")[-4000:])
    return done
