"""`cartridge batch`: every profile in turn; one that fails does not stop the others."""

from __future__ import annotations

import contextlib
import ctypes
import json as jsonlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.jobs import Taken, take_in
from pipelines.report import Voice, printable, say, table
from pipelines.workspace import find_workspace, profiles
from tasks.model.errors import CartridgeError, Interrupted, StageFailed, UsageError
from tasks.model.units import format_size

_WORST_FIRST = (130, 5, 1, 2, 6, 4, 3, 0)
_STATUS = {0: "complete", 3: "partial", 4: "waiting", 130: "interrupted"}
_PR_SET_PDEATHSIG = 1  # prctl(2)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the backup of one profile ended; one that was never started has no exit code."""

    profile: str
    exit_code: int | None
    status: str
    snapshot: str | None = None
    bytes_stored: int = 0
    seconds: float = 0.0
    error: str | None = None
    message: str | None = None


@app.command(epilog="Example: cartridge batch --jobs jobs.csv --then poweroff")
def batch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="The profiles; else all.")
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option("--jobs", metavar="FILE", help="A CSV file: source,destination in each row."),
    ] = None,
    then: Annotated[
        str | None, typer.Option("--then", metavar="COMMAND", help="Run this at the very end.")
    ] = None,
    then_delay: Annotated[
        int, typer.Option("--then-delay", min=0, metavar="SECONDS", help="Time left to cancel it.")
    ] = 60,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for cartridges that are not there.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Packers at once.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="URL", help="A luigid to report to.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Back up every profile in turn; one that fails does not stop the others."""
    voice = Voice(json)
    folder = find_workspace(workspace)
    options = ["--workspace", folder, *_passed_on(wait, workers, scheduler, debug)]
    results: list[Result] = []

    def action() -> int:
        wanted = _wanted(folder, names or [], jobs)
        with Children() as children:
            results.extend(_run_all(wanted, options, children, voice))
            code = worst(results)
            if children.stopped:
                _tell_people(results, voice)
                raise Interrupted()
            try:
                voice.result({**facts(), "exit_code": code}, _lines(results))
                sys.stdout.flush()
            finally:
                if then:
                    _run_then(then, then_delay, code, children, voice)
        return code

    def facts(error: CartridgeError | None = None) -> dict[str, Any]:
        return {"profiles": [asdict(result) for result in results]} if results else {}

    finish(voice, action, facts)


def worst(results: list[Result]) -> int:
    """Return the exit code that says most of several; 0 where there are none."""
    codes = {result.exit_code for result in results}
    return next((code for code in _WORST_FIRST if code in codes), 0)


class Children:
    """Runs one process at a time; inside `with`, what would end us is passed on to it.

    `stopped` says whether such a signal has come; nothing more is started then.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Children:
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: str | list[str], **options: Any) -> int:
        """Run a command to its end and return its exit code, negative for a signal."""
        if self.stopped:
            return -signal.SIGTERM
        self._child = subprocess.Popen(command, **options)
        if self.stopped:  # it came while the process was being made
            self._child.terminate()
        try:
            return self._child.wait()
        finally:
            self._child = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._child is not None:
            self._child.terminate()


def _passed_on(wait: bool, workers: int | None, scheduler: str | None, debug: bool) -> list[str]:
    """Return the options of a batch that are those of each backup."""
    options = ["--wait"] * wait + ["--debug"] * debug
    options += ["--workers", str(workers)] if workers else []
    return options + (["--scheduler", scheduler] if scheduler else [])


def _wanted(workspace: str, names: list[str], jobs: str | None) -> list[Taken]:
    """List what is to be backed up, each profile once; UsageError where there is nothing."""
    rows = [] if jobs is None else take_in(workspace, jobs)
    fine = {row.profile for row in rows if row.error is None}
    chosen = names if names or jobs is not None else profiles(workspace)
    wanted = [Taken(name, None) for name in dict.fromkeys(chosen) if name not in fine] + rows
    if not wanted:
        raise UsageError(
            reason=f"There is no profile in {os.path.join(workspace, 'profiles')}; write one with "
            "'cartridge init', or give a list of jobs with --jobs."
        )
    return wanted


def _run_all(
    wanted: list[Taken], options: list[str], children: Children, voice: Voice
) -> Iterator[Result]:
    for number, row in enumerate(wanted, 1):
        if children.stopped:
            yield Result(profile=row.profile, exit_code=None, status="not started")
        elif row.error is not None:
            yield _failed(row.profile, row.error)
        else:
            if not voice.json:
                _tell(f"[{number}/{len(wanted)}] {row.profile}", sys.stdout)
            yield _back_up(row.profile, options, children)


def _back_up(name: str, options: list[str], children: Children) -> Result:
    """Back up one profile in a process, and a session, of its own: Ctrl-C reaches it through us."""
    began = time.monotonic()
    command = [*_program(), "backup", "--batch", "--json", *options, "--", name]
    # Not a pipe: whoever outlives a killed backup could hold it open, and the batch up.
    with open(os.memfd_create("result"), "w+b") as told:
        try:
            code = children.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=told,
                start_new_session=True,
                preexec_fn=_ending_with_parent(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            return _failed(name, StageFailed(stage="backup", reason=f"it did not start: {error}"))
        told.seek(0)
        facts = _object(told.read())
    if children.stopped and code == -signal.SIGTERM:
        code = Interrupted.exit_code
    return _result(name, code, facts, round(time.monotonic() - began, 3))


def _program() -> list[str]:
    """Return how to run this program again; what else lies in the current folder is not it."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found_here = os.path.samefile(home, ".")
    return [sys.executable, *([] if found_here else ["-P"]), "-m", "pipelines"]


def _ending_with_parent() -> Callable[[], None]:
    """Return what a new process does first, so that a killed batch leaves no backup running."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _object(text: bytes) -> dict[str, Any]:
    """Read the JSON object that a backup has printed; {} where it could not say anything."""
    try:
        found = jsonlib.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _failed(name: str, error: CartridgeError) -> Result:
    facts = {"error": error.name, "message": str(error)}
    return _result(name, error.exit_code, facts, 0.0)


def _result(name: str, code: int, facts: dict[str, Any], seconds: float) -> Result:
    known = code if code in _WORST_FIRST else StageFailed.exit_code
    if known not in _STATUS and "error" not in facts:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        error = StageFailed(stage="backup", reason=f"its process ended {how}.")
        facts = {**facts, "error": error.name, "message": str(error)}
    return Result(
        profile=name,
        exit_code=known,
        status=facts.get("status") or _STATUS.get(known, "failed"),
        snapshot=facts.get("snapshot"),
        bytes_stored=facts.get("bytes_stored") or 0,
        seconds=seconds,
        error=facts.get("error"),
        message=facts.get("message") or _unreadable(facts.get("unreadable") or []),
    )


def _unreadable(paths: list[str]) -> str | None:
    """Say which files a partial snapshot lacks: the batch is all that a person sees of it."""
    if not paths:
        return None
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"Could not be read, and will be tried again: {', '.join(paths[:3])}{more}."


def _lines(results: list[Result]) -> list[str]:
    rows = [
        (
            result.profile,
            result.status,
            result.snapshot or "-",
            format_size(result.bytes_stored) if result.snapshot else "-",
            f"{result.seconds:.1f}",
            " ".join((result.message or "").split()),
        )
        for result in results
    ]
    return table(("profile", "result", "snapshot", "stored", "seconds", ""), rows)


def _tell_people(results: list[Result], voice: Voice) -> None:
    if not voice.json:
        for line in _lines(results):
            say(line)


def _run_then(command: str, delay: int, code: int, children: Children, voice: Voice) -> None:
    """Run a command through the shell, after a delay in seconds in which it can be cancelled."""
    where = sys.stderr if voice.json else sys.stdout
    _tell(f"In {delay} s: {command}. Ctrl-C cancels it.", where)
    end = time.monotonic() + delay
    while not children.stopped and time.monotonic() < end:
        time.sleep(0.05)
    if children.stopped:
        _tell(f"Cancelled: {command}.", where)
        return
    env = {**os.environ, "CARTRIDGE_EXIT_CODE": str(code)}
    try:
        ended = children.run(command, shell=True, env=env, stdout=where)
    except OSError as error:
        _tell(f"cartridge: '{command}' could not be run: {error}.", sys.stderr)
        return
    if ended:
        how = f"was ended by signal {-ended}" if ended < 0 else f"failed with exit code {ended}"
        _tell(f"cartridge: '{command}' {how}.", sys.stderr)


def _tell(line: str, where: Any) -> None:
    """Say something on the way; nobody listening is no reason to stop."""
    with contextlib.suppress(OSError):
        print(printable(line), file=where, flush=True)
