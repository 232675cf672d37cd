"""`cartridge backup`: one snapshot, or going on with the unfinished one."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated, Any

import luigi
import typer

from pipelines import hooks, luigid, notify
from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.notices import forget
from pipelines.outcome import EXIT, lines, remarks
from pipelines.preview import preview
from pipelines.report import Voice, complain, is_terminal, say
from pipelines.timings import Spent, spent
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog import runlog
from tasks.catalog.opening import Options, abandon, open_run, request_for
from tasks.catalog.progress import VERBOSE
from tasks.catalog.runs import Place, Run
from tasks.commit import so_far
from tasks.media import durable, locks
from tasks.media.processes import die_with_parent
from tasks.model.errors import (
    CartridgeError,
    CartridgeWanted,
    DamageFound,
    Interrupted,
    SpoolFull,
)
from tasks.model.profile import Profile
from tasks.model.units import format_size
from tasks.model.words import Outcome
from tasks.verify import DAMAGE


@app.command(epilog="Example: cartridge backup home --batch")
def backup(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    full: Annotated[bool, typer.Option("--full", help="Store everything again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be stored, and why.")
    ] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Never ask anything.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for cartridges, also where nobody can be asked.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--abandon", help="Give the unfinished snapshot up; back up nothing.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Packers at once.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="URL", help="A luigid to report to.")
    ] = None,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Accept a source that lost most files.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name every file.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what is wrong.")] = False,
    timings: Annotated[
        bool, typer.Option("--timings", help="Tell where the time went, stage by stage.")
    ] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Back up a profile: one snapshot, or go on with the unfinished one."""
    voice = Voice(json)
    began = time.monotonic()
    place = Place(find_workspace(workspace), name)
    session: list[_Session] = []

    def action() -> int:
        profile = load_profile(place.workspace, name)
        options = Options(full=full, allow_shrink=allow_shrink)
        if dry_run:
            return preview(place, profile, options, voice)
        if give_up:
            return _abandon(place, profile, voice)
        manner = Manner(
            packers=workers or profile.run.workers or os.cpu_count() or 1,
            url=_reachable(scheduler or profile.run.scheduler),
            ask=is_terminal() and not batch and not json,
            patient=wait,
            shown=not (quiet or json or verbose),
        )
        if verbose:
            os.environ[VERBOSE] = "1"
        session.append(_Session(place, profile, options, manner, began))
        outcome = session[0].run()
        told = remarks(outcome) if quiet else lines(outcome, place, name)
        facts = session[0].facts()
        if timings:
            spent = session[0].spent(outcome.seconds)
            facts, told = {**facts, "timings": asdict(spent)}, [*told, "", *spent.lines()]
        voice.result(facts, told)
        return EXIT[outcome.status]

    def facts(error: CartridgeError) -> dict[str, Any]:
        return session[0].facts() if session else {}

    finish(voice, action, facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a run goes about its work: packers at once, a luigid, whom it asks, what it shows.

    `patient` waits for cartridges without asking anybody.
    """

    packers: int
    url: str | None = None
    ask: bool = False
    patient: bool = False
    shown: bool = False


class _Session:
    """One invocation that works on a run, from the profile's lock to its last hook."""

    def __init__(
        self, place: Place, profile: Profile, options: Options, manner: Manner, began: float
    ) -> None:
        self._place, self._profile = place, profile
        self._options, self._manner, self._began = options, manner, began
        self._lock = locks.ProfileLock(place.lock, place.profile_name)
        self._run: Run | None = None
        self._outcome: Outcome | None = None
        # Archives that an earlier invocation had packed already.
        self.resumed = 0

    def run(self) -> Outcome:
        """Back up, with hooks and news around it; raises CartridgeError."""
        name, wanted = self._place.profile_name, self._profile.notify
        notify.check(wanted)
        durable.make_folders(self._place.folder)
        with durable.in_workspace(), self._locked():
            try:
                hooks.run_hooks(self._profile.hooks.before, "before", self._named())
                outcome = self._work()
            except CartridgeError as error:
                self._tell_trouble(error)
                raise
            except KeyboardInterrupt as stop:  # while it waited, or before it had begun
                interrupted = Interrupted()
                self._tell_trouble(interrupted)
                raise interrupted from stop
            facts = {**self._named(), **asdict(outcome)}
            hooks.try_hooks(self._profile.hooks.after, "after", facts)
        told = "\n".join(lines(outcome, self._place, name))
        event = "trouble" if outcome.status == "partial" else "done"
        notify.send(wanted, event, f"cartridge: {name} {outcome.status}", told)
        return outcome

    def spent(self, seconds: float) -> Spent:
        """Tell where the seconds of this invocation went, once its run has ended."""
        assert self._run is not None
        return spent(runlog.since(self._place, self._run.snapshot, os.getpid()), seconds)

    def facts(self) -> dict[str, Any]:
        """Describe how the run ended, also where an error says the rest; {} where it is not over.

        That is so where it failed, or was interrupted.
        """
        return {**asdict(self._outcome), "resumed": self.resumed} if self._outcome else {}

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return self._lock.together() if self._manner.url else self._lock.alone()

    def _work(self) -> Outcome:
        run = self._run = self._open()
        runlog.begin(self._place)
        runlog.log(self._place, run.snapshot, "begun", process=os.getpid())
        outcome = self._outcome = self._timed(self._run_until_done(run))
        runlog.log(self._place, run.snapshot, "ended", status=outcome.status)
        damaged = run.load(DAMAGE, list) if run.has(DAMAGE) else []
        run.end()
        if self._lock.is_last():
            run.discard()
        if damaged:
            told = f"{', '.join(damaged)} of earlier runs; the next backup stores them again"
            raise DamageFound(damage=told)
        return outcome

    def _open(self) -> Run:
        """Begin or join a run; only one process at a time, and it tidies up only if alone."""
        with locks.exclusive(f"{self._place.lock}.opening"):
            is_alone = self._lock.is_last()
            if is_alone:
                forget(self._place)
            before = self._place.unfinished()
            run = open_run(self._place, self._profile, self._options, is_alone=is_alone)
            if self._manner.url:
                self._lock.share()
        if before is not None:
            self.resumed = sum(1 for packed in run.packed() if packed.bytes)
            if self._manner.shown:
                say(
                    f"Going on with snapshot {run.snapshot}: {self.resumed} archives are packed, "
                    f"{len(run.placed())} of them on cartridges."
                )
        return run

    def _run_until_done(self, run: Run) -> Outcome:
        """Run the stages; where somebody can be asked, wait for cartridges and go on."""
        from pipelines.engine import Crew, run_stages

        crew = Crew(self._manner.packers, self._manner.url, self._lock.is_last)
        while True:
            try:
                with self._watching(run):
                    run_stages(run, crew)
                return run.load("outcome.json", Outcome)
            except (CartridgeWanted, SpoolFull) as error:
                if not self._goes_on(run, error):
                    self._outcome = self._timed(so_far(run))
                    raise
            except CartridgeError:
                if not run.has("plan.json") and self._lock.is_last():
                    run.discard()  # nothing is stored yet: the next run looks at the sources again
                raise

    def _watching(self, run: Run) -> contextlib.AbstractContextManager[None]:
        from pipelines.watch import watching

        return watching(run) if self._manner.shown else contextlib.nullcontext()

    def _goes_on(self, run: Run, error: CartridgeError) -> bool:
        """Wait for the cartridge that is missing; False where nobody will bring it."""
        from pipelines.waiting import is_there, wait_for_cartridge

        facts = {**self._named(), **self._error_facts(error)}
        notify.send(
            self._profile.notify, "waiting", f"cartridge: {run.place.profile_name}", str(error)
        )
        called = self._profile.hooks.waiting
        if called and hooks.try_hooks(called, "waiting", facts) and is_there(run):
            return True
        patient = self._manner.patient and isinstance(error, CartridgeWanted)
        if not self._manner.ask and not patient:
            return False
        return wait_for_cartridge(run, error, ask=self._manner.ask)

    def _tell_trouble(self, error: CartridgeError) -> None:
        """Run the hooks and send the news of a run that ended badly; waiting is no trouble."""
        if self._run is not None:
            facts = self._error_facts(error)
            runlog.log(self._place, self._run.snapshot, "ended", **facts)
        if error.exit_code == CartridgeWanted.exit_code:
            return
        facts = {**self._named(), **self._error_facts(error)}
        hooks.try_hooks(self._profile.hooks.on_error, "on_error", facts)
        title = f"cartridge: {self._place.profile_name} failed"
        notify.send(self._profile.notify, "trouble", title, f"{error} {error.help}")

    def _named(self) -> dict[str, Any]:
        snapshot = {"snapshot": self._run.snapshot} if self._run else {}
        named = {"profile": self._place.profile_name, "workspace": self._place.workspace}
        return {**named, **snapshot}

    @staticmethod
    def _error_facts(error: CartridgeError) -> dict[str, Any]:
        return {"error": error.name, "message": str(error), "exit_code": error.exit_code}

    def _timed(self, outcome: Outcome) -> Outcome:
        return replace(outcome, seconds=round(time.monotonic() - self._began, 3))


def _reachable(scheduler: str) -> str | None:
    """Return the address of the luigid that is to be used; without an answer there is none."""
    if scheduler == "local":
        return None
    if luigid.answers(scheduler):
        return scheduler
    address = luigid.shown(scheduler)
    complain(f"No luigid answers at {address}; the run goes on without it, and nobody can join it.")
    return None


def _abandon(place: Place, profile: Profile, voice: Voice) -> int:
    """Give the unfinished snapshot up, and take what it stored from the cartridges present."""
    from tasks.catalog.store import DEAD
    from tasks.prune import sweep

    request = request_for(place, profile, Options(), datetime.now(UTC))

    durable.make_folders(place.folder)
    with locks.ProfileLock(place.lock, place.profile_name).alone():
        snapshot = abandon(place)
        freed = sweep(request, place.store)
        waiting = sum(row.bytes for row in place.store.archives() if row.state == DEAD)
    told = "There is no unfinished snapshot."
    if snapshot:
        told = f"Gave up snapshot {snapshot}; freed {format_size(freed)} on the cartridges here."
        if waiting:
            told += f" {format_size(waiting)} on absent ones go when they next appear."
    voice.result({"abandoned": snapshot, "freed": freed, "waiting": waiting}, [told])
    return 0


class BackupProfile(luigi.Task):
    """The same job for Luigi's own command line, with the exit codes of `cartridge backup`.

    `luigi --module pipelines.backup BackupProfile --profile home --scheduler-host HOST`
    """

    profile = luigi.Parameter()
    workspace = luigi.Parameter(default="", significant=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        # Luigi may run this in a child; the parent, which leaves with the code, has to learn it.
        self._code = multiprocessing.Value("i", -1)
        atexit.register(_leave_with, self._code)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._interrupt)

    def complete(self) -> bool:
        """Return whether this invocation has done its job."""
        return self._code.value in (0, 3)

    def run(self) -> None:
        """Back up; the stages go to the scheduler that Luigi was given."""
        die_with_parent()
        luigi.worker.fork_lock = threading.Lock()  # Luigi may have forked us while it held it
        place = Place(find_workspace(self.workspace or None), self.profile)
        try:
            self._code.value = self._back_up(place)
        except CartridgeError as error:
            self._code.value = error.exit_code
            Voice().error(error)
            raise

    def on_failure(self, exception: BaseException) -> str:
        """Tell Luigi what went wrong in a sentence."""
        return str(exception)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """End Luigi's command as Ctrl-C does: it would die of the signal, and say nothing."""
        self._code.value = Interrupted.exit_code
        raise KeyboardInterrupt

    def _back_up(self, place: Place) -> int:
        settings = luigi.interface.core()
        profile = load_profile(place.workspace, self.profile)
        packers = max(settings.workers - 1, profile.run.workers or os.cpu_count() or 1)
        manner = Manner(packers=packers, url=_scheduler_of(settings), shown=True)
        outcome = _Session(place, profile, Options(), manner, time.monotonic()).run()
        for line in lines(outcome, place, self.profile):
            say(line)
        return EXIT[outcome.status]


def _scheduler_of(settings: Any) -> str | None:
    if settings.local_scheduler:
        return None
    url = settings.scheduler_url
    return _reachable(url or f"http://{settings.scheduler_host}:{settings.scheduler_port}")


def _leave_with(code: Any) -> None:
    """End the process with our exit code: Luigi's own knows nothing of 3, 4, 5 and 6."""
    if code.value >= 0:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code.value)
