"""Whoever watches a run sees how far it is; whoever does not want to is left in peace."""

import contextlib
import io
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pexpect
import pytest

from pipelines.watch import Line, lines
from tasks.catalog.progress import Meter, reports
from tasks.catalog.runs import Place, Run
from tasks.formats.records import to_json
from tasks.model.words import ArchivesPlan, Bundle, Cutting
from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import fill
from tests.helpers.processes import Process
from tests.helpers.program import Program
from tests.helpers.terminal import COLUMNS, ENTER, ROWS, Terminal, end_of, screen_after, terminals

BAR = "━"
AMOUNT = r"[\d.]+ [kMGT]?B"


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A profile over 20 MB in many small archives; its source."""
    fill(source, files=40, size=500_000)
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"archive": {"archive_size": "1MB"}})
    return source


def watcher_of(process: "Process | pexpect.spawn[str]") -> int:
    """Return the process that shows how far a run is: the first child that it makes."""
    return min(processes.children(process), default=0)


def workers_of(process: "Process | pexpect.spawn[str]") -> set[int]:
    """Return all processes of a run but the one that shows how far it is."""
    return processes.members(process) - {watcher_of(process)}


def signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def in_slow_motion(child: "pexpect.spawn[str]", between: Callable[[], None] = lambda: None) -> str:
    """Let a run take a step at a time, so that it is seen whole; return all that it showed."""
    shown = io.StringIO()
    child.logfile_read = shown
    with contextlib.suppress(pexpect.EOF):
        while True:
            held = workers_of(child)
            signal_all(held, signal.SIGSTOP)
            between()
            look_at(child, 0.3)
            signal_all(held, signal.SIGCONT)
            look_at(child, 0.1)
    child.close()
    return shown.getvalue()


def look_at(child: "pexpect.spawn[str]", seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(pexpect.TIMEOUT):
            child.read_nonblocking(1 << 16, timeout=end - time.monotonic())


# ---- bars


def test_on_a_terminal_there_are_bars_with_amount_rate_and_time_left(
    program: Program, home: Path, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("backup", "home")
    shown = in_slow_motion(child)
    assert child.exitstatus == 0, shown
    assert re.search(r"Scanning .*\b40 entries", shown)
    packing = rf"Packing +{BAR}+ +\d+% {AMOUNT} of {AMOUNT} +{AMOUNT}/s +\d:\d\d:\d\d left"
    assert re.search(packing, shown)
    assert re.search(rf"Writing cartridge home 1 .*{AMOUNT} of {AMOUNT} +{AMOUNT}/s", shown)
    assert re.search(rf"Verifying cartridge home 1 .*{AMOUNT} of {AMOUNT}", shown)

    left = screen_after(shown)
    assert left[0].startswith("Snapshot "), left
    assert left[-1] == "To restore it: cartridge restore home DEST"
    assert not [line for line in left if BAR in line or "Packing" in line]


@pytest.mark.night
def test_how_much_of_an_unknown_whole_is_done_nobody_says(home: Path, terminal: Terminal) -> None:
    """Of a source that was never scanned nobody knows how many entries it has."""
    shown = in_slow_motion(terminal("backup", "home"))
    assert "40 entries" in shown
    assert not re.search(r"Scanning [^\r\n]*%[^\r\n]* 40 entries", shown)


@pytest.mark.night
def test_a_terminal_that_changes_its_size_does_no_harm(
    program: Program, home: Path, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("backup", "home")
    sizes = cycle([(24, 80), (3, 20), (1, 1), (60, 300), (50, 200)])
    shown = in_slow_motion(child, between=lambda: child.setwinsize(*next(sizes)))
    assert child.exitstatus == 0, shown
    assert "Traceback" not in shown
    assert "To restore it: cartridge restore home DEST" in shown
    program.restore("home", tmp_path / "out")
    assert_same_tree(home, tmp_path / "out" / "source")


def test_no_bar_stands_where_a_question_is_asked(
    program: Program, source: Path, cartridges: MakeCartridges, terminal: Terminal
) -> None:
    fill(source, files=20, size=250_000)
    program.init("home", [source], cartridges(1), capacity="4MB")
    child = terminal("backup", "home")
    child.expect(ENTER)
    shown = child.before + child.after
    with contextlib.suppress(pexpect.TIMEOUT):
        child.expect(pexpect.EOF, timeout=1.5)
    assert child.isalive()
    left = screen_after(shown + child.before)
    assert left[0].startswith("Waiting for cartridge home 2")
    assert "press Enter" in left[-1]
    assert not [line for line in left if BAR in line]


_AT_A_SLOW_TERMINAL = """
import sys, time
from pipelines.watch import watching
from tasks.catalog.runs import Place, Run

class Slow:
    def write(self, text):
        sys.__stderr__.write(text)
        sys.__stderr__.flush()
        time.sleep(0.03)

    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)

import rich.progress  # or loading it would take up most of the time in which there are bars
sys.stderr = Slow()
for n in range(30):
    with watching(Run(Place(sys.argv[1], "home"), sys.argv[2])):
        time.sleep(0.25 + 0.01 * n)
    print("question", flush=True)
"""


def test_bars_are_wiped_away_at_whatever_moment_they_have_to_go(run: Run, tmp_path: Path) -> None:
    report(run, "ScanSource", "ScanSource_a", 300, 1000, "entries")
    report(run, "PackArchive", "PackArchive_1", 1_000_000, 10_000_000, "bytes")
    report(run, "WriteCartridge", "Write_1", 1_000_000, 4_000_000, "bytes", "cartridge home 1")
    Path(run.path("request.json")).write_text("{}")
    command = ["-c", _AT_A_SLOW_TERMINAL, str(tmp_path), run.snapshot]
    child = pexpect.spawn(
        sys.executable,
        command,
        env=os.environ | {"TERM": "xterm"},
        encoding="utf-8",
        timeout=60,
        dimensions=(ROWS, COLUMNS),
    )
    child.expect(pexpect.EOF)
    assert BAR in child.before
    assert screen_after(child.before) == ["question"] * 30


# ---- no bars


def test_a_quiet_run_says_nothing_where_all_is_well(
    program: Program, home: Path, terminal: Terminal
) -> None:
    code, shown = end_of(terminal("backup", "home", "-q"))
    assert (code, shown) == (0, "")
    done = program.run("backup", "home", "--quiet")  # nothing has changed since
    assert (done.stdout, done.stderr) == ("", "")


def test_for_machines_there_is_one_object_and_no_bar(home: Path, terminal: Terminal) -> None:
    code, shown = end_of(terminal("backup", "home", "--json"))
    assert code == 0
    assert json.loads(shown)["status"] == "complete"


def test_where_files_are_named_there_is_no_bar(home: Path, terminal: Terminal) -> None:
    code, shown = end_of(terminal("backup", "home", "-v"))
    assert code == 0
    assert BAR not in shown
    assert "\x1b" not in shown
    assert shown.count("source/007.bin") == 1


def test_nothing_is_drawn_into_a_file(program: Program, home: Path, tmp_path: Path) -> None:
    """The program sits at a terminal, but what it has to say beside its result goes elsewhere."""
    log = tmp_path / "log"
    behind = Program(program.directory, ("sh", "-c", f"exec \"$@\" 2>'{log}'", "sh"))
    with terminals(behind) as start:
        code, shown = end_of(start("backup", "home"))
    assert code == 0
    assert "\x1b" not in shown
    assert log.read_text() == ""


def test_each_file_is_named_once(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=200, size=2_000)
    fill(source / "large", files=2, size=3_000_000, seed=2)
    os.link(source / "000.bin", source / "twin.bin")
    (source / "line\nbreak").write_text("x\n")
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"archive": {"archive_size": "200kB", "split_size": "1MB"}})
    done = program.run("backup", "home", "--verbose", "--workers", "3")
    named = Counter(done.stderr.splitlines())
    files = {f"source/{path.relative_to(source)}" for path in source.rglob("*") if path.is_file()}
    expected = {name.replace("\n", "\N{REPLACEMENT CHARACTER}") for name in files}
    assert {name: named[name] for name in expected} == dict.fromkeys(expected, 1)
    assert set(named) - expected <= {"source/large", "source/large/"}
    assert "source/" not in done.stdout
    (source / "007.bin").write_bytes(b"new")
    again = program.run("backup", "home", "-v", "--json")
    assert again.stderr.splitlines() == ["source/007.bin"]
    assert json.loads(again.stdout)["modified"] == 1


def test_a_quiet_run_still_names_what_it_could_not_read(barred: Program) -> None:
    done = barred.run("backup", "home", "-q", code=3)
    told = (done.stdout + done.stderr).splitlines()
    assert told == ["1 could not be read and will be tried again next time:", "  source/001.bin"]


def test_a_quiet_run_still_says_what_is_wrong(program: Program, home: Path) -> None:
    home.rename(home.with_name("unplugged"))
    done = program.run("backup", "home", "-q", code=1)
    assert done.stdout == ""
    assert str(home) in done.stderr


@pytest.mark.night
def test_without_a_terminal_there_is_a_line_now_and_then(program: Program, home: Path) -> None:
    process = program.start("backup", "home")
    packed = program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(packed.glob("*/packed/*.json")), process)
    held = workers_of(process)
    signal_all(held, signal.SIGSTOP)
    assert process.stderr
    told = process.stderr.readline()  # comes after half a minute
    signal_all(held, signal.SIGCONT)
    assert processes.end_of(process)[0] == 0
    assert re.match(rf"Scanning: 40 entries.*; Packing: {AMOUNT} of {AMOUNT} \(\d+ %\), ", told)


# ---- what the bars say


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose stages have said nothing yet."""
    made = Run(Place(str(tmp_path), "home"), "20261121T013200Z")
    os.makedirs(made.path("progress"))
    return made


def report(
    run: Run, stage: str, task: str, done: int, total: int, unit: str, note: str = ""
) -> None:
    """Say how far a stage is, as the stage itself does."""
    path = run.path("progress", f"{task}.json")
    Meter(path, stage, total, unit, lambda report: None, note, done).report()


def test_where_no_stage_has_said_anything_there_is_no_bar(run: Run, tmp_path: Path) -> None:
    assert lines(run) == []
    assert lines(Run(Place(str(tmp_path), "other"), "20261121T013200Z")) == []


def test_several_sources_are_one_bar_whose_whole_is_known_where_all_are(run: Run) -> None:
    report(run, "ScanSource", "ScanSource_a", 300, 1000, "entries")
    report(run, "ScanSource", "ScanSource_b", 20, 50, "entries")
    assert lines(run) == [Line("Scanning", 320, 1050, "entries")]
    report(run, "ScanSource", "ScanSource_c", 7, 0, "entries")
    [line] = lines(run)
    assert (line.done, line.total, line.amount) == (327, 0, "327 entries")


def test_packing_is_one_bar_over_all_that_is_planned(run: Run) -> None:
    """Bundles that nobody has begun count as well."""
    bundles = [Bundle(number=n, start=n, stop=n + 1, bytes=10_000_000) for n in (1, 2, 3)]
    cutting = Cutting(split_size=1, minimum=1, average=1, maximum=1)
    os.makedirs(run.folder, exist_ok=True)
    plan = ArchivesPlan(archive_size=1_000_000, cutting=cutting, bundles=bundles)
    Path(run.path("plan.json")).write_bytes(to_json(plan))
    report(run, "PackArchive", "PackArchive_1", 10_000_000, 10_000_000, "bytes")
    report(run, "PackArchive", "PackArchive_2", 2_500_000, 10_000_000, "bytes")
    [line] = lines(run)
    assert line == Line("Packing", 12_500_000, 30_000_000, "bytes")
    assert line.amount == "12.5 MB of 30.0 MB"
    assert line.speed(2_500_000.0) == "2.5 MB/s"
    assert line.left(2_500_000.0) == "0:00:07 left"
    assert line.left(100.0) == "48:36:40 left"


def test_of_several_cartridges_the_last_has_a_bar_and_its_name(run: Run) -> None:
    for number, done in ((1, 4_000_000), (2, 1_000_000)):
        task = f"WriteCartridge_home_{number}"
        note = f"cartridge home {number}"
        report(run, "WriteCartridge", task, done, 4_000_000, "bytes", note)
    report(run, "VerifyCartridge", "Verify_1", 500, 4_000_000, "bytes", "cartridge home 1")
    assert [(line.title, line.amount) for line in lines(run)] == [
        ("Writing cartridge home 2", "1.0 MB of 4.0 MB"),
        ("Verifying cartridge home 1", "500 B of 4.0 MB"),
    ]


def test_when_a_cartridge_will_be_full_nobody_can_say(run: Run) -> None:
    """It has room to spare in the end, more often than not."""
    report(run, "WriteCartridge", "Write_1", 1_000_000, 4_000_000, "bytes", "cartridge home 1")
    report(run, "VerifyCartridge", "Verify_1", 1_000_000, 4_000_000, "bytes", "cartridge home 1")
    writing, verifying = lines(run)
    assert writing.left(1_000_000.0) == ""
    assert verifying.left(1_000_000.0) == "0:00:03 left"
    assert verifying.left(None) == verifying.left(0.0) == ""


def test_a_report_that_is_torn_or_strange_is_left_out(run: Run) -> None:
    report(run, "ScanSource", "ScanSource_a", 3, 10, "entries")
    folder = Path(run.path("progress"))
    (folder / "ScanSource_b.json").write_text('{"stage": "ScanSource", "do')
    (folder / "ScanSource_c.json.123").write_text("a draft")
    (folder / "ScanSource_d.json").write_bytes(b"\xff\x00")
    (folder / "DiffManifest_e.json").write_bytes((folder / "ScanSource_a.json").read_bytes())
    report(run, "Unheard", "Unheard_f", 1, 2, "things")
    assert [line.title for line in lines(run)] == ["Scanning"]


def test_no_stage_has_done_more_than_there_is_to_do(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source, files=20, size=250_000)
    fill(source / "small", files=2000, size=10)
    program.init("home", [source], cartridges(1), capacity="4MB")
    snapshot = program.backup("home", code=4)["snapshot"]
    found = list(reports(Run(Place(str(program.workspace), "home"), snapshot)))
    assert "VerifyCartridge" in {report.stage for report in found}
    odd = [report for report in found if report.total and report.done > report.total]
    assert odd == []


# ---- the process that draws


@pytest.fixture(params=["at a terminal", pytest.param("elsewhere", marks=pytest.mark.night)])
def watched(
    program: Program, home: Path, request: pytest.FixtureRequest
) -> Iterator["Process | pexpect.spawn[str]"]:
    """A run that is packing, with a process that shows how far it is."""
    with contextlib.ExitStack() as undo:
        if request.param == "elsewhere":
            process = program.start("backup", "home")
            undo.callback(processes.kill_all, process)
        else:
            process = undo.enter_context(terminals(program))("backup", "home")
        packed = program.workspace / "state" / "home" / "runs"
        until(lambda: any(packed.glob("*/packed/*.json")))
        assert watcher_of(process)
        yield process


def until(condition: Callable[[], object], within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"what was waited for did not come in {within} s"
        time.sleep(0.005)


def ended(process: "Process | pexpect.spawn[str]") -> int | None:
    """Return how a program ended, once it has, and fail where it leaves a process behind."""
    if isinstance(process, pexpect.spawn):
        with contextlib.suppress(pexpect.EOF):
            while True:
                process.read_nonblocking(1 << 16)
        process.close()
        code = -process.signalstatus if process.signalstatus else process.exitstatus
    else:
        process.communicate(timeout=60)
        code = process.returncode
    processes.assert_none_left(process, within=3)
    return code


def test_with_the_run_ends_what_shows_it(watched: Process) -> None:
    assert ended(watched) == 0


@pytest.mark.night
def test_with_a_run_that_fails_ends_what_shows_it(watched: Process, program: Program) -> None:
    os.kill(max(processes.children(watched)), signal.SIGKILL)
    assert ended(watched) == 1
    assert program.backup("home")["status"] == "complete"


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.night)],
)
def test_with_a_run_that_is_ended_ends_what_shows_it(
    watched: Process, program: Program, number: signal.Signals
) -> None:
    os.kill(watched.pid, number)
    assert ended(watched) == (-9 if number == signal.SIGKILL else 130)
    assert program.backup("home")["status"] == "complete"


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.night)]
)
def test_a_run_does_not_depend_on_what_shows_it(watched: Process, number: signal.Signals) -> None:
    os.kill(watcher_of(watched), number)
    assert ended(watched) == 0


# ---- the log


def test_each_run_leaves_a_log_of_what_was_done_and_of_no_content(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source, files=20, size=250_000)
    (source / "letter.txt").write_text("Tell nobody, dear reader.\n")
    [first] = cartridges(1)
    program.init("home", [source], [first], capacity="4MB")
    waiting = program.backup("home", code=4)
    [second] = cartridges(1)
    program.run("label", second, "--set", "home", "--capacity", "4MB")
    done = program.backup("home")
    assert done["snapshot"] == waiting["snapshot"]

    [log] = (program.workspace / "state" / "home" / "logs").iterdir()
    assert log.name == f"{done['snapshot']}.jsonl"
    text = log.read_text("ascii")
    assert text.endswith("\n")
    events = [json.loads(line) for line in text.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["time"]) for event in events)
    assert {event["event"] for event in events} == {"begun", "done", "failed", "ended"}
    assert len([event for event in events if event["event"] == "begun"]) == 2
    [wanted] = [event for event in events if event["event"] == "failed"]
    assert (wanted["stage"], wanted["error"]) == ("WriteCartridge", "CartridgeWanted")
    assert "home 2" in wanted["message"]
    ends = [event for event in events if event["event"] == "ended"]
    assert [end.get("status") or end["error"] for end in ends] == ["CartridgeWanted", "complete"]
    stages = {event["stage"] for event in events if event["event"] == "done"}
    assert {"ScanSource", "PackArchive", "WriteCartridge", "VerifyCartridge"} <= stages
    assert "Tell nobody" not in text
    assert "letter" not in text


def test_of_many_logs_the_oldest_go(program: Program, home: Path) -> None:
    program.backup("home")
    logs = program.workspace / "state" / "home" / "logs"
    [mine] = os.listdir(logs)
    for number in range(100):
        (logs / f"20200101T0000{number:02}Z.jsonl").write_text("{}\n")
    (home / "new").write_text("x\n")
    newest = program.backup("home")["snapshot"]
    left = sorted(os.listdir(logs))
    assert len(left) <= 60
    assert left[-2:] == [mine, f"{newest}.jsonl"]
    assert "20200101T000099Z.jsonl" in left
    assert "20200101T000000Z.jsonl" not in left
