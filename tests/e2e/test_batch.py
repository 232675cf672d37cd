"""All profiles in turn: whatever happens to one, the others are backed up, and you are told."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from pipelines.batch import Result, worst
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.processes import Process
from tests.helpers.program import Medium, Program

MakeCartridges = Callable[[int], list[Path]]
Profiles = Callable[..., None]


@pytest.fixture
def profiles(program: Program, source: Path, cartridges: MakeCartridges) -> Profiles:
    """Makes profiles that share a source of one small file, each with a cartridge of its own."""
    (source / "letter.txt").write_text("Dear reader,\n")

    def make(*names: str) -> None:
        for name in names:
            program.init(name, [source], cartridges(1))

    return make


def codes(found: dict[str, Any]) -> dict[str, int | None]:
    return {row["profile"]: row["exit_code"] for row in found["profiles"]}


def row_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    [row] = [row for row in found["profiles"] if row["profile"] == name]
    return row


# ---- one after the other


def test_all_profiles_are_backed_up_in_the_order_of_their_names(
    program: Program, profiles: Profiles
) -> None:
    profiles("two", "one")
    found = program.json("batch")
    assert [row["profile"] for row in found["profiles"]] == ["one", "two"]
    for row in found["profiles"]:
        assert row["status"] == "complete"
        assert [row["snapshot"]] == program.snapshots(row["profile"])
        assert row["bytes_stored"] > 0
        assert row["seconds"] > 0
        assert (row["error"], row["message"]) == (None, None)
    assert found["exit_code"] == 0


def test_only_the_profiles_named_are_backed_up_each_once_in_the_order_given(
    program: Program, profiles: Profiles
) -> None:
    profiles("one", "two", "three")
    found = program.json("batch", "two", "one", "two")
    assert [row["profile"] for row in found["profiles"]] == ["two", "one"]
    assert program.snapshots("three") == []


def test_one_that_fails_does_not_stop_the_others(program: Program, profiles: Profiles) -> None:
    profiles("broken", "good", "lost")
    program.profile("broken").write_text("[[source]\n")
    program.edit_profile("lost", {"source": [{"path": "/nowhere/at/all"}]})
    found = program.json("batch", "broken", "lost", "absent", "good", code=1)
    assert codes(found) == {"broken": 2, "lost": 1, "absent": 2, "good": 0}
    assert found["exit_code"] == 1
    errors = [row["error"] for row in found["profiles"]]
    assert errors == ["ProfileInvalid", "SourceMissing", "ProfileMissing", None]
    assert "/nowhere/at/all" in row_of(found, "lost")["message"]
    assert len(program.snapshots("good")) == 1


def test_one_that_is_killed_does_not_stop_the_others_and_goes_on_next_time(
    program: Program, profiles: Profiles
) -> None:
    profiles("first", "second")
    process = program.start("batch", "--json")
    os.kill(running(program, process, "first"), signal.SIGKILL)
    code, out, _ = processes.end_of(process)
    assert code == 1, out
    assert '"exit_code": 1, "status": "failed"' in out
    assert "signal 9" in out
    assert [len(program.snapshots(name)) for name in ("first", "second")] == [0, 1]
    found = program.json("batch")
    assert [row["status"] for row in found["profiles"]] == ["complete", "unchanged"]


def test_people_get_a_table_with_the_sentence_of_each_error(
    program: Program, profiles: Profiles
) -> None:
    profiles("good", "lost")
    program.edit_profile("lost", {"source": [{"path": "/nowhere/at/all"}]})
    told = program.run("batch", code=1).stdout.splitlines()
    assert told[:2] == ["[1/2] good", "[2/2] lost"]
    heads, good, lost = told[2:]
    assert heads.split() == ["profile", "result", "snapshot", "stored", "seconds"]
    assert good.split()[:3] == ["good", "complete", program.snapshots("good")[0]]
    assert lost.split()[:2] == ["lost", "failed"]
    assert "/nowhere/at/all" in lost


@pytest.fixture
def restless() -> Iterator[Path]:
    """A folder with a file that never holds still: in memory, where no writer waits for a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        log = Path(folder) / "restless.log"
        log.write_bytes(bytes(32_000_000))
        loop = ["sh", "-c", 'while echo x >> "$0"; do :; done', log]
        writers = [subprocess.Popen(loop) for _ in range(3)]
        try:
            yield log.parent
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()


def test_files_that_could_not_be_read_are_named(
    program: Program, profiles: Profiles, restless: Path
) -> None:
    profiles("home")
    program.edit_profile("home", {"source": [{"path": str(restless)}]})
    [row] = program.json("batch", code=3)["profiles"]
    assert (row["exit_code"], row["status"], row["error"]) == (3, "partial", None)
    assert "restless.log" in row["message"]


def test_a_cartridge_that_is_away_is_waited_for_and_the_others_go_on(
    program: Program, profiles: Profiles, tmp_path: Path
) -> None:
    profiles("away", "here")
    (tmp_path / "media" / "c1").rename(tmp_path / "drawer")
    found = program.json("batch", code=4)
    assert codes(found) == {"away": 4, "here": 0}
    assert row_of(found, "away")["status"] == "waiting"
    assert "away 1" in row_of(found, "away")["message"]


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        ([0, 0], 0),
        ([0, 3], 3),
        ([3, 4, 0], 4),
        ([4, 6, 3], 6),
        ([6, 2, 4], 2),
        ([2, 1, 6], 1),
        ([1, 5, 2], 5),
        ([5, 130, None], 130),
    ],
)
def test_it_leaves_with_the_worst_exit_code(several: list[int | None], expected: int) -> None:
    found = [Result(profile="x", exit_code=code, status="") for code in several]
    assert worst(found) == expected


def test_without_a_profile_there_is_nothing_to_do(program: Program) -> None:
    found = program.json("batch", code=2)
    assert found["error"] == "UsageError"
    assert str(program.workspace) in found["message"]


def test_what_lies_in_the_current_folder_is_not_taken_for_the_program(
    program: Program, profiles: Profiles, tmp_path: Path
) -> None:
    profiles("home")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__main__.py").write_text("raise SystemExit(77)\n")
    command = [sys.executable, "-P", "-m", "pipelines", "batch"]
    done = subprocess.run(command, cwd=tmp_path, env=program.env, check=False)
    assert done.returncode == 0


# ---- interrupted


def running(program: Program, batch: Process, name: str) -> int:
    """Wait until a batch backs a profile up, and return the process that does."""
    lock = program.workspace / "state" / name / "lock"

    def found() -> set[int]:
        told = lock.read_text() if lock.exists() else ""
        return {pid for pid in processes.children(batch) if f"process {pid} " in told}

    assert processes.wait_for(found, batch)
    [pid] = found()
    return pid


def is_over(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(n, marks=pytest.mark.night) for n in (signal.SIGINT, signal.SIGHUP)),
    ],
)
def test_a_signal_ends_the_run_that_is_on_and_starts_no_other(
    program: Program, profiles: Profiles, tmp_path: Path, number: signal.Signals
) -> None:
    profiles("first", "second")
    after = tmp_path / "after"
    options = ("--json", "--then", f"touch {after}", "--then-delay", "0")
    process = program.start("batch", *options)
    pid = running(program, process, "first")
    os.kill(process.pid, number)
    code, out, _ = processes.end_of(process, timeout=20)
    assert code == 130, out
    assert is_over(pid)
    assert '"error": "Interrupted"' in out
    assert '"profile": "second", "exit_code": null, "status": "not started"' in out
    assert not (program.workspace / "state" / "second" / "lock").exists()
    assert not after.exists()
    again = program.json("batch")
    assert [row["status"] for row in again["profiles"]] == ["complete", "complete"]


def test_control_c_at_a_terminal_ends_it_and_shows_how_far_it_came(
    program: Program, profiles: Profiles
) -> None:
    profiles("first", "second")
    child = on_terminal(program, "batch")
    child.expect("1/2. first")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "interrupted" in child.before
    assert "not started" in child.before
    assert "Traceback" not in child.before


def test_a_batch_that_is_killed_leaves_no_backup_running(
    program: Program, profiles: Profiles
) -> None:
    profiles("first")
    process = program.start("batch")
    pid = running(program, process, "first")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while not is_over(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert program.json("batch")["exit_code"] == 0


# ---- then


def on_terminal(program: Program, *args: str) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        sys.executable,
        ["-m", "pipelines", *args],
        cwd=str(program.workspace),
        env=program.env | {"TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 300),
    )


def then(command: str, delay: int = 0) -> tuple[str, ...]:
    return ("--then", command, "--then-delay", str(delay))


@pytest.mark.parametrize("name", ["good", "absent"])
def test_a_command_is_run_at_the_end_whatever_the_result(
    program: Program, profiles: Profiles, tmp_path: Path, name: str
) -> None:
    profiles("good")
    after = tmp_path / "after"
    done = program.run("batch", name, *then(f"echo $CARTRIDGE_EXIT_CODE > {after}"), code=None)
    assert done.returncode == (0 if name == "good" else 2)
    assert after.read_text() == f"{done.returncode}\n"
    *_, row, announced = done.stdout.splitlines()
    assert row.startswith(name)
    assert announced.startswith("In 0 s: echo")


def test_nothing_is_run_where_nothing_could_be_tried(program: Program, tmp_path: Path) -> None:
    program.run("batch", *then(f"touch {tmp_path / 'after'}"), code=2)
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_command_and_the_result_stands(
    program: Program, tmp_path: Path, number: signal.Signals
) -> None:
    after = tmp_path / "after"
    process = program.start("batch", "absent", *then(f"touch {after}", 600))
    assert process.stdout
    assert any(line.startswith("In 600 s: touch") for line in process.stdout)
    os.kill(process.pid, number)
    assert process.stdout.read() == f"Cancelled: touch {after}.\n"
    assert process.wait(timeout=10) == 2
    assert not after.exists()


def test_a_command_that_fails_is_told_and_the_result_stands(
    program: Program, profiles: Profiles
) -> None:
    profiles("home")
    done = program.run("batch", *then("exit 7"))
    assert "'exit 7' failed with exit code 7" in done.stderr


def test_with_json_the_announcement_and_the_command_keep_off_standard_output(
    program: Program, profiles: Profiles
) -> None:
    profiles("home")
    done = program.run("batch", "--json", *then("echo well done"))
    assert done.stdout.startswith("{")
    assert done.stdout.count("\n") == 1
    assert done.stderr.splitlines() == ["In 0 s: echo well done. Ctrl-C cancels it.", "well done"]


def test_a_reader_that_has_gone_away_stops_neither_the_backups_nor_the_command(
    program: Program, profiles: Profiles, tmp_path: Path
) -> None:
    profiles("one", "two")
    reader, writer = os.pipe()
    os.close(reader)
    process = program.start("batch", *then(f"touch {tmp_path / 'after'}"), stdout=writer)
    os.close(writer)
    process.communicate(timeout=60)
    assert [len(program.snapshots(name)) for name in ("one", "two")] == [1, 1]
    assert (tmp_path / "after").exists()


# ---- a list of jobs


class Jobs:
    """A CSV file with its sources and destinations beside it."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.file = folder / "jobs.csv"
        folder.mkdir()

    def write(self, *rows: dict[str, str]) -> None:
        with self.file.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def source(self, path: str) -> str:
        """Make a source that holds one file, and return its relative path."""
        (self.folder / path).mkdir(parents=True)
        (self.folder / path / "note.txt").write_text(f"This lies in {path}.\n")
        return path

    def run(self, *args: str, code: int = 0) -> dict[str, Any]:
        return self.program.json("batch", "--jobs", self.file, *args, code=code)

    def profiles(self) -> set[str]:
        return {path.stem for path in (self.program.workspace / "profiles").glob("*.toml")}


@pytest.fixture
def jobs(program: Program, tmp_path: Path) -> Jobs:
    """A folder of jobs, which is not the folder that the program is run in."""
    return Jobs(program, tmp_path / "a list")


def test_each_row_becomes_a_profile_and_a_cartridge_and_is_backed_up(
    jobs: Jobs, tmp_path: Path
) -> None:
    docs, more = jobs.source("work/docs"), jobs.source("old/docs")
    jobs.write(
        {"source": docs, "destination": "disks/new one/here"},
        {"source": str(jobs.folder / more), "destination": str(tmp_path / "c2")},
    )
    (tmp_path / "c2").mkdir()
    found = jobs.run()
    assert codes(found) == {"docs": 0, "docs-2": 0}
    media = {"docs": jobs.folder / "disks/new one/here", "docs-2": tmp_path / "c2"}
    for name, source in (("docs", docs), ("docs-2", more)):
        assert Medium(path=media[name]).label["set"] == name
        jobs.program.restore(name, tmp_path / name)
        assert_same_tree(jobs.folder / source, tmp_path / name / "docs")


def test_the_same_file_again_goes_on_where_it_was(jobs: Jobs) -> None:
    jobs.write({"source": jobs.source("docs"), "destination": "c1", "name": "papers", "keep": "1"})
    first = jobs.run()["profiles"][0]["snapshot"]
    label = (jobs.folder / "c1" / "CARTRIDGE.json").read_bytes()
    assert jobs.run()["profiles"][0]["status"] == "unchanged"
    (jobs.folder / "docs" / "new.txt").write_text("new")
    second = jobs.run()["profiles"][0]
    assert (second["profile"], second["status"]) == ("papers", "complete")
    assert jobs.program.snapshots("papers") == [second["snapshot"]] != [first]
    assert (jobs.folder / "c1" / "CARTRIDGE.json").read_bytes() == label
    assert len(jobs.program.json("cartridges", "papers")["cartridges"]) == 1
    assert jobs.profiles() == {"papers"}


def test_a_changed_row_changes_its_profile(jobs: Jobs) -> None:
    row = {"source": jobs.source("docs"), "destination": "c1", "keep": "", "codec": ""}
    jobs.write(row)
    jobs.run()
    text = jobs.program.profile("docs").read_text()
    assert text.startswith("# Written by 'cartridge batch --jobs'")
    jobs.write(row | {"keep": "5", "codec": "lz4"})
    jobs.run()
    assert jobs.program.profile("docs").read_text() == (
        text + '\n[archive]\ncodec = "lz4"\n\n[retention]\nkeep_last = 5\n'
    )


def test_a_row_keeps_its_profile_when_those_above_it_go(jobs: Jobs) -> None:
    one = {"source": jobs.source("a/docs"), "destination": "c1"}
    two = {"source": jobs.source("b/docs"), "destination": "c2"}
    jobs.write(one, two)
    jobs.run()
    jobs.write(two)
    found = jobs.run()
    assert codes(found) == {"docs-2": 0}
    assert found["profiles"][0]["status"] == "unchanged"


def test_jobs_run_together_with_profiles_that_are_named(jobs: Jobs, profiles: Profiles) -> None:
    profiles("home", "other")
    jobs.write({"source": jobs.source("docs"), "destination": "c1"})
    assert codes(jobs.run("home")) == {"home": 0, "docs": 0}


def test_a_profile_of_your_own_is_never_overwritten(jobs: Jobs, profiles: Profiles) -> None:
    profiles("docs")
    before = jobs.program.profile("docs").read_bytes()
    jobs.write(
        {"source": jobs.source("docs"), "destination": "c1"},
        {"source": jobs.source("fine"), "destination": "c2"},
    )
    found = jobs.run(code=2)
    assert codes(found) == {"docs": 2, "fine": 0}
    assert "line 2" in found["profiles"][0]["message"]
    assert jobs.program.profile("docs").read_bytes() == before
    assert not (jobs.folder / "c1").exists()


def test_a_row_that_cannot_be_a_profile_or_a_cartridge_does_not_stop_the_others(
    jobs: Jobs,
) -> None:
    (jobs.folder / "foreign").mkdir()
    (jobs.folder / "foreign" / "thesis.doc").write_text("Not a cartridge.")
    jobs.write(
        {"source": jobs.source("odd"), "destination": "c1", "codec": "zstd"},
        {"source": jobs.source("docs"), "destination": "foreign", "codec": ""},
        {"source": jobs.source("fine"), "destination": "c3", "codec": "lz4"},
    )
    found = jobs.run(code=1)
    assert codes(found) == {"odd": 2, "docs": 1, "fine": 0}
    assert "line 2: archive.codec: not yet supported" in row_of(found, "odd")["message"]
    assert row_of(found, "docs")["error"] == "ForeignVolume"
    assert [path.name for path in (jobs.folder / "foreign").iterdir()] == ["thesis.doc"]
    assert jobs.profiles() == {"fine"}


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_disk_that_is_not_there_is_waited_for_and_nothing_is_labelled_in_its_place(
    jobs: Jobs, left: str
) -> None:
    jobs.write({"source": jobs.source("docs"), "destination": "disk/c1"})
    jobs.run()
    (jobs.folder / "disk").rename(jobs.folder / "drawer")
    if left == "an empty folder":
        (jobs.folder / "disk" / "c1").mkdir(parents=True)
    (jobs.folder / "docs" / "new.txt").write_text("new")
    found = jobs.run(code=4)
    assert "docs 1" in found["profiles"][0]["message"]
    assert not list((jobs.folder / "disk").rglob("CARTRIDGE.json"))


def test_all_mistakes_in_the_list_are_told_at_once_and_nothing_is_started(jobs: Jobs) -> None:
    jobs.file.write_text(
        "source,destination,name,keep\n"
        ",c1,,\n"
        "\n"
        "docs, ,,\n"
        "docs,c1,-x,\n"
        "docs,c2,one,0\n"
        "docs,c3,two,\n"
        "docs,c3,two,1\n"
        "docs,c4\n"
    )
    found = jobs.run(code=2)
    assert found["error"] == "UsageError"
    head, *mistakes = found["message"].splitlines()
    assert "7 mistake(s)" in head
    told = [mistake.removeprefix(f"{jobs.file}: ") for mistake in mistakes]
    assert [mistake.partition(":")[0] for mistake in told] == [
        f"line {number}" for number in (2, 4, 5, 6, 8, 8, 9)
    ]
    assert not jobs.profiles()
    assert os.listdir(jobs.folder) == ["jobs.csv"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "line 1: the column 'source' is missing"),
        (b"source,target\na,b\n", "line 1: unknown column 'target'"),
        (b"source,destination,source\na,b,c\n", "line 1: there are 2 columns 'source'"),
        (b"source,destination\n", "line 2: there is no row"),
        (b'source,destination\n"a,b\n', "line 2: not CSV"),
        (b"source,destination\n\xff,b\n", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_list_that_is_none_is_told(jobs: Jobs, text: bytes | None, expected: str) -> None:
    if text is not None:
        jobs.file.write_bytes(text)
    assert expected in jobs.run(code=2)["message"]


def test_a_list_saved_by_a_spreadsheet_is_read(jobs: Jobs) -> None:
    jobs.source("docs, and more")
    jobs.file.write_bytes(
        b'\xef\xbb\xbfSource,Destination,Name\r\n"docs, and more",c1,papers\r\n\r\n'
    )
    assert codes(jobs.run()) == {"papers": 0}
