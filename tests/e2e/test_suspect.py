"""A cartridge that fails is set aside, and what it was to hold goes to another."""

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.faults import traced
from tests.helpers.home import Home
from tests.helpers.media import archives_on, check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]


pytestmark = pytest.mark.slow


class Job(Home):
    """A profile over a tree of 6 MB, and cartridges of 4.5 MB."""

    def good(self, *bad: int) -> list[Path]:
        """The cartridges that were written, but for some."""
        return [
            folder
            for serial, folder in enumerate(self.cartridges, start=1)
            if serial not in bad and Medium(path=folder).journal
        ]

    def stops_with_a_cartridge_written(self) -> Process:
        """Start a backup and hold it when it has put archives on its first cartridge."""
        process = self.program.start("backup", "--json", "home")
        placed = self.left("placed.jsonl")
        assert processes.wait_for(placed, process), processes.end_of(process)
        processes.stop_all(process)
        assert not self.left("verified/001.json")(), "it was faster than the test"
        return process

    def check(self, out: Path, *bad: int) -> None:
        """All is on good cartridges, once, and comes back without the bad ones."""
        good = self.good(*bad)
        for folder in good:
            check_cartridge(folder)
        archives_on(*good)  # fails where one lies on two
        for serial in bad:
            shutil.move(self.cartridges[serial - 1], f"{out}-away-{serial}")
        found = self.program.restore("home", out)
        assert not {*found["cartridges"]} & {*bad}
        assert_same_tree(self.source, out / "source")
        for serial in bad:
            shutil.move(f"{out}-away-{serial}", self.cartridges[serial - 1])


def make_job(program: Program, source: Path, folders: list[Path]) -> Job:
    small_tree(source, files=30)
    fill(source / "big", files=20, size=250_000)
    program.init("home", [source], folders, capacity="4500kB")
    # No file is cut: those that are have a test of their own.
    program.edit_profile("home", {"archive": {"archive_size": "600kB"}})
    return Job(program, source, folders)


@pytest.fixture
def job(program: Program, source: Path, cartridges: MakeCartridges) -> Job:
    return make_job(program, source, cartridges(4))


def spoil(archive: Path) -> None:
    """Change one byte of an archive."""
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)


def contents_on(*folders: Path) -> list[str]:
    """Return a digest for every regular member with data, as GNU tar lists and gives them."""
    found: list[str] = []
    for folder in folders:
        for archive in Medium(path=folder).archives:
            script = 'sha256sum | cut -d" " -f1'
            command = f"lz4 -dcq '{archive}' | tar -x -f - --to-command='{script}'"
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            found += done.stdout.split()
    return [digest for digest in found if digest != hashlib.sha256(b"").hexdigest()]


# ---- the read-back fails


@pytest.mark.parametrize(
    "moment", ["placed.jsonl", pytest.param("written/001.json", marks=pytest.mark.night)]
)
def test_what_reads_back_wrong_goes_to_another_cartridge(
    job: Job, tmp_path: Path, moment: str
) -> None:
    process = job.program.start("backup", "--json", "home")
    assert processes.wait_for(job.left(moment), process, pause=0)
    processes.stop_all(process)
    if job.left("verified/001.json")():
        processes.kill_all(process)
        pytest.skip("the read-back was faster than the test")
    spoil(Medium(path=job.cartridges[0]).archives[0])
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    assert "goes to another cartridge" in err
    states = job.states()
    assert states[1] == "suspect"
    assert "suspect" not in {states[n] for n in (2, 3, 4)}
    before = snapshot_of(job.cartridges[0])
    stored = contents_on(*job.good(1))
    assert len(stored) == len({*stored}), "something was stored twice on good cartridges"
    assert {*stored} == {
        hashlib.sha256(p.read_bytes()).hexdigest() for p in job.source.rglob("*") if p.is_file()
    }
    job.check(tmp_path / "out", 1)
    fill(job.source / "more", files=2, size=100_000, seed=5)
    assert 1 not in job.program.backup("home")["cartridges"]
    assert snapshot_of(job.cartridges[0]) == before, "a suspect cartridge was written"


def test_what_is_altered_once_it_was_read_back_early_is_read_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """While the catalog was put together archives were read; the last word is of the end."""
    fill(source, files=20, size=250_000)
    job = Job(program, source, cartridges(2))
    program.init("home", [source], job.cartridges)
    process = program.start("backup", "--json", "home")
    assert processes.wait_for(job.left("written/001.json"), process, pause=0)
    processes.kill_all(process)
    if job.left("verified/001.json")():
        pytest.skip("the read-back was faster than the test")
    spoil(Medium(path=job.cartridges[0]).archives[0])
    program.backup("home")
    assert job.states() == {1: "suspect", 2: "open"}
    job.check(tmp_path / "out", 1)


def test_only_what_the_failed_cartridge_was_to_hold_is_packed_again(
    job: Job, tmp_path: Path
) -> None:
    """The second of two fails: the first keeps its archives, byte for byte."""
    process = job.program.start("backup", "--json", "home")
    assert processes.wait_for(job.left("verified/001.json"), process)
    two = job.cartridges[1]
    assert processes.wait_for(lambda: bool(Medium(path=two).journal), process, pause=0)
    processes.stop_all(process)
    assert not job.left("verified/002.json")(), "it was faster than the test"
    before = archives_on(job.cartridges[0])
    spoil(Medium(path=two).archives[0])
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    assert job.states()[2] == "suspect"
    after = archives_on(job.cartridges[0])
    assert {name: after.get(name) for name in before} == before
    job.check(tmp_path / "out", 2)


def test_a_file_of_which_a_part_was_on_the_failed_cartridge_is_completed(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Files of 250 kB are cut on so small cartridges; some have a part on both."""
    small_tree(source, files=30)
    fill(source / "big", files=20, size=250_000)
    folders = cartridges(4)
    program.init("home", [source], folders, capacity="4500kB")
    job = Job(program, source, folders)
    process = program.start("backup", "--json", "home")
    assert processes.wait_for(lambda: bool(Medium(path=folders[0]).journal), process, pause=0)
    processes.stop_all(process)
    spoil(Medium(path=folders[0]).archives[0])
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    job.check(tmp_path / "out", 1)


def test_where_there_is_no_other_the_run_waits_and_goes_on_with_one(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    small_tree(source, files=30)
    fill(source / "big", files=8, size=250_000)
    folders = cartridges(1)
    program.init("home", [source], folders)
    job = Job(program, source, folders)
    process = job.stops_with_a_cartridge_written()
    spoil(Medium(path=folders[0]).archives[0])
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 4, out + err
    assert job.states() == {1: "suspect"}
    before = snapshot_of(folders[0])
    assert program.backup("home", code=4)["status"] == "waiting"
    more = cartridges(1)
    program.run("label", more[0], "--set", "home")
    assert program.backup("home")["cartridges"] == [2]
    assert snapshot_of(folders[0]) == before, "a suspect cartridge was written"
    Job(program, source, [*folders, *more]).check(tmp_path / "out", 1)


# ---- the medium gives errors


INJECTED = {
    "the journal": ("pwrite64:error=EIO:when=3", "journal.jsonl"),
    "the flush of the journal": ("fsync:error=EIO:when=2", "journal.jsonl"),
    "the flush of the label's folder": ("fsync:error=EIO", ""),
    "the catalog": ("sendfile:error=EIO", "catalog/archives.parquet.tmp"),
    "the flush of the sums": ("fsync:error=EIO", "SHA256SUMS.tmp"),
}
SLOW = {*INJECTED} - {"the journal", "the catalog"}


@pytest.mark.parametrize(
    "where", [pytest.param(w, marks=pytest.mark.night if w in SLOW else ()) for w in INJECTED]
)
def test_a_cartridge_that_gives_errors_while_it_is_written_is_set_aside(
    job: Job, tmp_path: Path, where: str
) -> None:
    inject, name = INJECTED[where]
    program = traced(job.program, inject, job.cartridges[0] / name)
    process = program.start("backup", "--json", "home")
    code, out, err = processes.end_of(process, timeout=120)
    if "ptrace" in err:
        pytest.skip("strace does not work here")
    assert code == 0, out + err
    assert "Input/output error" in err
    assert job.states()[1] == "suspect"
    job.check(tmp_path / "out", 1)


@pytest.mark.slow
def test_a_volume_whose_device_fails_is_set_aside(
    program: Program,
    source: Path,
    loop_volume: MakeVolume,
    cartridges: MakeCartridges,
    tmp_path: Path,
) -> None:
    """A stick that has less memory than it says: the kernel gets errors when it writes back."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    memory, stick = tmp_path / "memory", tmp_path / "stick"
    for folder in (memory, stick):
        folder.mkdir()
    mount: list[Any] = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", memory]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        image = memory / "image"
        with image.open("wb") as file:
            file.truncate(30_000_000)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, stick], check=True)
        small_tree(source, files=30)
        fill(source / "big", files=24, size=300_000)
        folders = cartridges(1)
        program.init("home", [source], [stick, *folders])
        done = program.backup("home", code=None)
        assert done.get("status") == "complete", done
        rows = program.json("cartridges", "home")["cartridges"]
        assert rows[0]["state"] == "suspect"
    finally:
        subprocess.run(["umount", "-l", stick], check=False, capture_output=True)
        subprocess.run(["umount", "-l", memory], check=False, capture_output=True)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- lost


@pytest.fixture
def history(program: Program, source: Path, cartridges: MakeCartridges) -> Job:
    """Two snapshots over three cartridges; some of what the first had is gone since."""
    chance = random.Random(7)
    small_tree(source, files=20)
    (source / "disk.img").write_bytes(chance.randbytes(3_000_000))
    fill(source / "big", files=8, size=200_000)
    (source / "twin.bin").write_bytes((source / "big" / "000.bin").read_bytes())
    (source / "hard.bin").hardlink_to(source / "big" / "001.bin")
    folders = cartridges(6)
    program.init("home", [source], folders, capacity="3MB")
    program.backup("home")
    (source / "big" / "002.bin").rename(source / "moved.bin")
    (source / "big" / "003.bin").unlink()
    fill(source / "later", files=3, size=200_000, seed=9)
    program.backup("home")
    return Job(program, source, folders)


@pytest.mark.night
@pytest.mark.parametrize("serial", [1, *(pytest.param(n, marks=pytest.mark.night) for n in (2, 3))])
def test_what_lay_only_on_a_lost_cartridge_is_stored_again_and_nothing_else(
    history: Job, tmp_path: Path, serial: int
) -> None:
    program, expected = history.program, snapshot_of(history.source)
    gone = history.cartridges[serial - 1]
    lay_there = {*contents_on(gone)}
    rest = [f for f in history.good() if f != gone]
    before = contents_on(*rest)
    told = program.json("lost", "home", str(serial))
    assert told["serial"] == serial
    assert told["archives"] == len(Medium(path=gone).archives)
    assert {*told["snapshots"]} <= {*program.snapshots("home")}
    gone.rename(tmp_path / "away")
    outcome = program.backup("home")
    assert outcome["status"] == "complete"
    after = contents_on(*[f for f in history.good(serial) if f.exists()])
    new = list(after)
    for digest in before:
        new.remove(digest)
    assert len(new) == len({*new}), "something was stored twice"
    assert {*new} <= lay_there, "something was stored again that was not lost"
    program.restore("home", tmp_path / "out")
    assert_same_tree(expected, tmp_path / "out" / "source")
    assert program.backup("home")["status"] == "unchanged"


def test_older_snapshots_list_what_a_lost_cartridge_took_from_them(
    history: Job, tmp_path: Path
) -> None:
    program = history.program
    first = program.snapshots("home")[0]
    program.run("lost", "home", "1")
    history.cartridges[0].rename(tmp_path / "away")
    program.backup("home")
    found = program.restore("home", tmp_path / "old", "--snapshot", first, code=None)
    assert found["exit_code"] in (4, 5)
    listed = {*found["damaged"], *found["missing"]}
    assert listed
    there = {f"source/{path.decode()}" for path in snapshot_of(tmp_path / "old" / "source")}
    assert not listed & there
    program.restore("home", tmp_path / "new")
    assert_same_tree(history.source, tmp_path / "new" / "source")


def test_a_lost_serial_that_does_not_exist_is_wrong_usage(job: Job) -> None:
    before = snapshot_of(job.state / "catalog")
    error = job.program.json("lost", "home", "99", code=2)
    assert error["error"] == "UsageError"
    assert "99" in error["message"]
    assert snapshot_of(job.state / "catalog") == before


def test_a_lost_cartridge_is_not_written_where_it_turns_up_again(
    history: Job, tmp_path: Path
) -> None:
    program = history.program
    program.run("lost", "home", "1")
    before = snapshot_of(history.cartridges[0])
    fill(history.source / "more", files=2, size=100_000, seed=11)
    assert 1 not in program.backup("home")["cartridges"]
    assert history.states()[1] == "lost"
    assert snapshot_of(history.cartridges[0]) == before
    program.restore("home", tmp_path / "out")
    assert_same_tree(history.source, tmp_path / "out" / "source")


@pytest.mark.parametrize("serial", [1, pytest.param(2, marks=pytest.mark.night)])
def test_a_cartridge_is_lost_while_a_run_is_unfinished(
    job: Job, tmp_path: Path, serial: int
) -> None:
    """The run was killed with cartridges written; one of them burns before it goes on."""
    process = job.program.start("backup", "--json", "home")
    two = job.cartridges[1]
    assert processes.wait_for(lambda: bool(Medium(path=two).journal), process, pause=0)
    processes.kill_all(process)
    job.program.run("lost", "home", str(serial))
    shutil.rmtree(job.cartridges[serial - 1])
    outcome = job.program.backup("home")
    assert outcome["status"] == "complete"
    assert serial not in outcome["cartridges"]
    job.cartridges[serial - 1].mkdir()
    out = tmp_path / "out"
    job.program.restore("home", out)
    assert_same_tree(job.source, out / "source")
    archives_on(*job.good(serial))
