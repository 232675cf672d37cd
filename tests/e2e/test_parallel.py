"""Cartridges are written at once where the profile says so, and none is taken for another."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.faults import traced
from tests.helpers.home import Home
from tests.helpers.media import archives_on, check_cartridge, fill
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]


class Job(Home):
    """A profile over a tree of 9 MB that writes two cartridges of 4 MB at once."""

    def is_on_both(self) -> bool:
        """Whether two cartridges have archives, and none of them is sealed."""
        two = self.cartridges[:2]
        return all(Medium(path=c).journal and not (c / "SHA256SUMS").exists() for c in two)

    def start_until_both_are_written(self) -> Process:
        """Start a backup and hold it when two cartridges are being written."""
        process = self.program.start("backup", "--json", "home")
        assert processes.wait_for(self.is_on_both, process), processes.end_of(process)
        processes.stop_all(process)
        return process

    def check(self, out: Path, *but: int) -> None:
        """All is on cartridges once, in order, and comes back; but for some that were given up."""
        good = [c for n, c in enumerate(self.cartridges, 1) if n not in but]
        written = [c for c in good if Medium(path=c).journal]
        for cartridge in written:
            check_cartridge(cartridge)
        archives_on(*written)  # fails where one lies on two
        found = self.program.restore("home", out)
        assert not {*found["cartridges"]} & {*but}
        assert_same_tree(self.source, out / "source")


@pytest.fixture
def job(program: Program, source: Path, cartridges: MakeCartridges) -> Job:
    small_tree(source, files=30)
    fill(source / "big", files=34, size=250_000)
    folders = cartridges(4)
    program.init("home", [source], folders, capacity="4MB")
    program.edit_profile(
        "home", {"cartridges": {"parallel": 2}, "archive": {"archive_size": "300kB"}}
    )
    return Job(program, source, folders)


def snapshots_on(folder: Path) -> list[str]:
    """Name the manifests that a cartridge has."""
    return sorted(path.stem for path in (folder / "catalog" / "manifests").iterdir())


# ---- written at once


def test_two_cartridges_share_what_is_packed_and_the_next_two_get_the_rest(
    job: Job, tmp_path: Path
) -> None:
    outcome = job.program.backup("home")
    assert outcome["cartridges"] == [1, 2, 3, 4]
    names = [sorted(archives_on(c)) for c in job.cartridges]
    assert names[0] and names[1] and names[2]
    assert min(names[1]) < max(names[0]), "the second was only written when the first was full"
    assert job.states() == {1: "full", 2: "full", 3: "open", 4: "open"}
    assert {*map(tuple, map(snapshots_on, job.cartridges))} == {(outcome["snapshot"],)}
    rows = job.program.json("cartridges", "home")["cartridges"]
    assert all(row["verified"] for row in rows)
    job.check(tmp_path / "out")


def test_a_run_that_leaves_room_on_both_goes_on_with_both(job: Job, tmp_path: Path) -> None:
    """Of so many archives that neither has taken all of them when the other looks for some."""
    job.program.edit_profile("home", {"archive": {"archive_size": "64KiB"}})
    shutil.rmtree(job.source / "big")
    fill(job.source / "big", files=30, size=60_000)
    assert job.program.backup("home")["cartridges"] == [1, 2]
    assert job.states() == {1: "open", 2: "open", 3: "blank", 4: "blank"}
    fill(job.source / "more", files=30, size=60_000, seed=2)
    assert job.program.backup("home")["cartridges"] == [1, 2]
    job.check(tmp_path / "out")


def test_without_the_word_of_the_profile_one_is_filled_after_the_other(
    job: Job, tmp_path: Path
) -> None:
    job.program.edit_profile("home", {"cartridges": {"parallel": 1}})
    process = job.program.start("backup", "--json", "home")
    assert not processes.wait_for(job.is_on_both, process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    job.check(tmp_path / "out")


def test_empty_volumes_are_labelled_to_be_written_at_once(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=20, size=250_000)
    folders = cartridges(3)
    program.init("home", [source], folders[:1], capacity="4MB")
    places = [str(folder) for folder in folders]
    settings = {"search": places, "auto_label": True, "parallel": 2}
    program.edit_profile("home", {"cartridges": settings, "archive": {"archive_size": "300kB"}})
    assert program.backup("home")["cartridges"] == [1, 2]
    assert not any(folders[2].iterdir()), "more were labelled than can be written at once"
    Job(program, source, folders).check(tmp_path / "out")


def test_a_profile_that_wants_none_written_is_refused(job: Job) -> None:
    job.program.edit_profile("home", {"cartridges": {"parallel": 0}})
    told = job.program.run("backup", "home", code=2).stderr
    assert "cartridges.parallel" in told


# ---- killed, missing, failing


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_writes_two_goes_on_with_both(
    job: Job, tmp_path: Path
) -> None:
    process = job.start_until_both_are_written()
    before = archives_on(*job.cartridges[:2])
    processes.kill_all(process)
    outcome = job.program.backup("home")
    assert outcome["cartridges"] == [1, 2, 3, 4]
    after = archives_on(*job.cartridges)
    assert {name: after.get(name) for name in before} == before
    job.check(tmp_path / "out")


@pytest.mark.slow
def test_the_other_of_two_that_were_begun_is_asked_for(job: Job, tmp_path: Path) -> None:
    processes.kill_all(job.start_until_both_are_written())
    job.cartridges[1].rename(tmp_path / "away")
    waiting = job.program.backup("home", code=4)
    assert "home 2" in str(waiting)
    (tmp_path / "away").rename(job.cartridges[1])
    assert job.program.backup("home")["status"] == "complete"
    job.check(tmp_path / "out")


@pytest.mark.slow
def test_an_archive_that_nobody_noted_on_the_absent_one_is_not_kept_twice(
    job: Job, tmp_path: Path
) -> None:
    """As if the run was killed between the journal of the cartridge and the run's own note."""
    processes.kill_all(job.start_until_both_are_written())
    [run] = job.state.glob("runs/*")
    away = Medium(path=job.cartridges[1]).archives[0]
    number = away.name.removesuffix(".tar.lz4")
    placed = run / "placed.jsonl"
    noted = placed.read_text().splitlines(keepends=True) if placed.exists() else []
    placed.write_text("".join(line for line in noted if number not in line))
    spooled = job.state / "spool" / run.name / away.name
    if not spooled.exists():
        shutil.copy(away, spooled)
    job.cartridges[1].rename(tmp_path / "away")
    job.program.backup("home", code=4)
    (tmp_path / "away").rename(job.cartridges[1])
    assert job.program.backup("home")["status"] == "complete"
    job.check(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1, 2])
def test_one_of_two_that_reads_back_wrong_goes_to_another(
    job: Job, tmp_path: Path, bad: int
) -> None:
    process = job.start_until_both_are_written()
    archive = Medium(path=job.cartridges[bad - 1]).archives[0]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.unlink()  # else the spool's file, which may be the same, were changed as well
    archive.write_bytes(data)
    processes.go_on(process)
    code, out, err = processes.end_of(process)
    assert code == 0, out + err
    assert f"cartridge home {bad}: archives/" in err
    states = job.states()
    assert [serial for serial, state in states.items() if state == "suspect"] == [bad]
    shutil.move(job.cartridges[bad - 1], tmp_path / "bad")
    job.check(tmp_path / "out", bad)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [1, 2])
def test_one_of_two_that_gives_errors_is_set_aside_and_the_other_is_not(
    job: Job, tmp_path: Path, bad: int
) -> None:
    journal = job.cartridges[bad - 1] / "journal.jsonl"
    program = traced(job.program, "pwrite64:error=EIO:when=3", journal)
    code, out, err = processes.end_of(program.start("backup", "--json", "home"), timeout=120)
    if "ptrace" in err:
        pytest.skip("strace does not work here")
    assert code == 0, out + err
    assert "Input/output error" in err
    states = job.states()
    assert [serial for serial, state in states.items() if state == "suspect"] == [bad]
    shutil.move(job.cartridges[bad - 1], tmp_path / "bad")
    job.check(tmp_path / "out", bad)
