"""The engine: the one place that gives stages to Luigi and reads back how they ended."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType
from typing import Any

import luigi
import numpy as np
import pyarrow as pa
from luigi import configuration, rpc, scheduler, worker

from pipelines import luigid
from pipelines.report import complain
from tasks._base import Here, Stage
from tasks.catalog import participants, placement
from tasks.catalog.runs import Run
from tasks.catalog.setback import settle
from tasks.model.errors import (
    CartridgeError,
    CartridgeFailed,
    DamageFound,
    Interrupted,
    PackAgain,
    RunActive,
    StageFailed,
    WorkspaceFull,
    rebuild,
)
from tasks.model.words import Failure

# Of several failures the one that a person can act on is told; the spool fills up only because
# something else has stopped.
_LEAST_TELLING = ("StageFailed", "SpoolFull")
# Seconds: for children to end, for a worker without work to look around, for others to leave.
_PATIENCE, _IDLE, _LEAVING = 5.0, 3.0, 30.0
# Bytes below which a disk counts as full.
_NO_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Crew:
    """How a run is worked on: so many packers beside the writer, here or with others at a luigid.

    `is_alone` tells whether no other participant holds the profile; then none can come.
    """

    packers: int
    url: str | None
    is_alone: Callable[[], bool]


def run_stages(run: Run, crew: Crew) -> None:
    """Run all stages of a run, alone or with others.

    Raises what the stages recorded, Interrupted on SIGINT and SIGTERM, and StageFailed where the
    output is missing all the same.
    """
    from tasks.plan import PlanArchives
    from tasks.prune import PruneBackups

    _quiet_luigi()
    pa.array(np.zeros(1))  # imports numpy.ma: once here, not in every child
    gc.collect()
    gc.freeze()  # what is there now is shared with the children, not copied by their collector
    run = replace(run, participant=participants.new_name())
    Stage.here = Here(run.place.workspace, run.participant, crew.packers)
    identity = {
        "profile": run.place.profile_name,
        "snapshot": run.snapshot,
        "token": run.request.token,
    }
    settle(run)  # a cartridge may have been given up since
    with _Interruptions() as stop, participants.joined(run, run.participant), _own_errors(run):
        # What there is to pack and to write is known, and stages are made of it, after the plan.
        for last in (PlanArchives(**identity), PruneBackups(**identity)):
            crew = _complete(last, run, crew, stop)


def _complete(last: Stage, run: Run, crew: Crew, stop: _Interruptions) -> Crew:
    """Have a stage and all it needs done; return the crew, which may have lost its luigid."""
    built = False
    while not last.complete():
        if built and crew.url is None:
            raise _no_output(last, run)
        try:
            with _no_child_left():
                _build(last, run, crew, stop)
            built = True
        except rpc.RPCError:
            stop.raise_if_any()
            crew = _without_luigid(run, crew, stop)
            continue
        stop.raise_if_any()
        errors = _failures(run)
        if errors:
            _make_good(run, errors)
            built = False
    return crew


def _no_output(last: Stage, run: Run) -> CartridgeError:
    """Say why a stage left nothing, not even its error: most often there was no room for either."""
    facts = os.statvfs(run.folder)
    if facts.f_bavail * facts.f_frsize < _NO_ROOM or (facts.f_files and not facts.f_favail):
        return WorkspaceFull(path=run.place.workspace)
    return StageFailed(stage=last.task_family, reason="it left no output")


def _make_good(run: Run, errors: list[CartridgeError]) -> None:
    """Have the run go on by itself: what failed cartridges were to hold goes to others.

    Raises the most telling of the errors where none is of that kind.
    """
    given_up = {r.label for r in run.store.cartridges() if r.state in placement.GIVEN_UP}
    mended = [e for e in errors if _is_mended(e, given_up)]
    if not mended:
        raise errors[0]
    settle(run)
    for error in mended:
        complain(f"{error} What it was to hold goes to another cartridge.")
    shutil.rmtree(run.errors)
    os.makedirs(run.errors)


def _is_mended(error: CartridgeError, given_up: Set[str]) -> bool:
    """Whether it is no use to stop: what failed has been set aside, or comes again."""
    if isinstance(error, CartridgeFailed):
        return error.facts["label"] in given_up
    return isinstance(error, DamageFound | PackAgain)


def _build(last: Stage, run: Run, crew: Crew, stop: _Interruptions) -> None:
    packers = crew.packers
    if crew.url is not None:
        packers *= 1 + len(participants.others(run, run.participant))
    luigi.build(
        [last],
        worker_scheduler_factory=_Factory(run, packers, stop, crew.url),
        detailed_summary=True,
        workers=crew.packers + run.request.profile.cartridges.parallel,
        **({"scheduler_url": crew.url} if crew.url else {"local_scheduler": True}),
    )


def _without_luigid(run: Run, crew: Crew, stop: _Interruptions) -> Crew:
    """Go on alone when luigid is lost: of several participants the first, when the others left."""
    assert crew.url is not None
    address = luigid.shown(crew.url)
    complain(f"luigid at {address} does not answer any more; the run goes on without it.")
    deadline = time.monotonic() + _LEAVING
    while not crew.is_alone():
        stop.raise_if_any()
        first = min([run.participant, *participants.others(run, run.participant)])
        if first != run.participant or time.monotonic() > deadline:
            raise RunActive(profile=run.place.profile_name, holder=first)
        time.sleep(_IDLE)
    return replace(crew, url=None)


class _Factory:
    """Workers and schedulers with our settings; a stray luigi.cfg must not change a run."""

    def __init__(self, run: Run, packers: int, stop: _Interruptions, url: str | None) -> None:
        self._run = run
        self._stop = stop
        self._url = url
        self._resources = {f"pack-{run.place.profile_name}": packers}

    def create_local_scheduler(self) -> scheduler.Scheduler:
        return scheduler.Scheduler(
            prune_on_get_work=True, record_task_history=False, resources=dict(self._resources)
        )

    def create_remote_scheduler(self, url: str) -> Any:
        remote = luigid.connect(url)
        remote.update_resources(**self._resources)
        return remote

    def create_worker(
        self, scheduler: object, worker_processes: int, assistant: bool = False
    ) -> worker.Worker:
        made = luigid.Worker(
            self._look_around,
            scheduler=scheduler,
            worker_id=self._run.participant,
            worker_processes=worker_processes,
            assistant=assistant,
            check_complete_on_run=True,
            force_multiprocessing=True,
            # With others it waits for what they do, but looks now and then whether they live.
            keep_alive=self._url is not None,
            max_keep_alive_idle_duration=timedelta(seconds=_IDLE),
            wait_interval=0.2,
            wait_jitter=0.0,
            send_failure_email=False,
            no_install_shutdown_handler=True,
        )
        self._stop.worker = made
        return made

    def _look_around(self) -> None:
        """Take over what participants that have died were at."""
        if self._url is not None:
            alive = {self._run.participant, *participants.others(self._run, self._run.participant)}
            luigid.release(self._url, self._run.request.token, alive)


@Stage.event_handler(luigi.Event.PROCESS_FAILURE)  # type: ignore[untyped-decorator]
def _note_killed(stage: Stage, message: str) -> None:
    """Record that a stage's process was killed: it could not do so itself, and others wait."""
    failed = StageFailed(stage=stage.task_family, reason="its process was killed")
    stage.record(failed)


@contextlib.contextmanager
def _own_errors(run: Run) -> Iterator[None]:
    """Have a folder for the errors of this participant while the block lasts."""
    os.makedirs(run.errors, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(run.errors, ignore_errors=True)


def _failures(run: Run) -> list[CartridgeError]:
    """Return the errors that stages have recorded, the most telling first."""
    names = sorted(os.listdir(run.errors))
    failures = [run.load(os.path.join(run.errors, name), Failure) for name in names]
    telling = [f for f in failures if f.error not in _LEAST_TELLING]
    if not telling:
        telling = sorted(failures, key=lambda f: _LEAST_TELLING.index(f.error))
    return [_rebuilt(failure) for failure in telling]


def _rebuilt(failure: Failure) -> CartridgeError:
    error = rebuild(failure.error, failure.facts)
    error.__notes__ = [failure.traceback]
    return error


class _Interruptions:
    """SIGINT, SIGTERM and SIGHUP while stages run.

    Nothing is raised out of the blue, where it might leave a lock of somebody's library behind: the
    children, which may be killed at any time, are killed, and Luigi is told to ask for no more.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

    def __init__(self) -> None:
        self.worker: worker.Worker | None = None
        self._came = False
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interruptions:
        """Take the signals over."""
        for number in self._SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back; one that came at the last moment still counts."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_any(self) -> None:
        """Raise Interrupted where a signal came."""
        if self._came:
            raise Interrupted()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            os._exit(Interrupted.exit_code)
        self._came = True
        if self.worker is not None:
            self.worker._stop_requesting_work = True
            for process in list(self.worker._running_tasks.values()):
                if process.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
        # One that is being forked just now is not known yet: look again.
        signal.setitimer(signal.ITIMER_REAL, 0.2)


@contextlib.contextmanager
def _no_child_left() -> Iterator[None]:
    """Wait for the children when the block ends: Luigi ends them, but does not wait."""
    try:
        yield
    finally:
        for child in multiprocessing.active_children():
            child.join(_PATIENCE)
            if child.is_alive():
                child.kill()
                child.join()


def _quiet_luigi() -> None:
    """Keep Luigi from configuring logging; what a run says is said by its reports."""
    configuration.get_config().set("core", "no_configure_logging", "true")
    for name in ("luigi", "luigi-interface", "luigi.scheduler"):
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    warnings.filterwarnings("ignore", category=UserWarning, module="luigi.*")
