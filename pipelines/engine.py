"""The engine: the one place that gives stages to Luigi and reads back how they ended."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator
from types import FrameType

import luigi
import pyarrow as pa
from luigi import configuration, rpc, scheduler, worker

from tasks._base import Stage
from tasks.catalog.runs import Run
from tasks.model.errors import CartridgeError, Interrupted, StageFailed, rebuild
from tasks.model.words import Failure

# Of several failures the one that a person can act on is told; the spool fills up only because
# something else has stopped.
_LEAST_TELLING = ("StageFailed", "SpoolFull")
_PATIENCE = 5.0
# Seconds after which a luigid forgets a worker that has died.
_FORGETTING = 90.0


class _Factory:
    """Workers and schedulers with our settings; a stray luigi.cfg must not change a run."""

    def __init__(self, profile: str, packers: int) -> None:
        self._resources = {f"pack-{profile}": packers}

    def create_local_scheduler(self) -> scheduler.Scheduler:
        return scheduler.Scheduler(
            prune_on_get_work=True, record_task_history=False, resources=dict(self._resources)
        )

    def create_remote_scheduler(self, url: str) -> rpc.RemoteScheduler:
        remote = rpc.RemoteScheduler(url)
        getattr(remote, "update_resources")(**self._resources)  # noqa: B009  # made at run time
        return remote

    def create_worker(
        self, scheduler: object, worker_processes: int, assistant: bool = False
    ) -> worker.Worker:
        return worker.Worker(
            scheduler=scheduler,
            worker_processes=worker_processes,
            assistant=assistant,
            check_complete_on_run=True,
            force_multiprocessing=True,
            keep_alive=False,
            wait_interval=0.2,
            wait_jitter=0.0,
            send_failure_email=False,
            no_install_shutdown_handler=True,
        )


def run_stages(last: Stage, packers: int, url: str | None) -> None:
    """Run a stage and all it needs, with so many packers at once beside the writer.

    `url` is a luigid; without one the scheduling is done here. Raises what the stages recorded,
    Interrupted on SIGINT and SIGTERM, and StageFailed where the output is missing all the same.
    """
    _quiet_luigi()
    run = last.run_folder
    _clear_failures(run)
    pa.array([0])  # imports pandas where it is installed: once here, not in every child
    gc.collect()
    gc.freeze()  # what is there now is shared with the children, not copied by their collector
    deadline = time.monotonic() + _FORGETTING if url else 0.0
    with _interruptible():
        while True:
            with _no_child_left():
                luigi.build(
                    [last],
                    worker_scheduler_factory=_Factory(run.place.profile_name, packers),
                    detailed_summary=True,
                    workers=packers + 1,
                    **({"scheduler_url": url} if url else {"local_scheduler": True}),
                )
            error = _worst_failure(run)
            if error is not None:
                raise error
            if last.complete() or time.monotonic() > deadline:
                break
            time.sleep(2)  # luigid still believes in the tasks of a run that was killed
    if not last.complete():
        raise StageFailed(stage=last.task_family, reason="it left no output")


@Stage.event_handler(luigi.Event.PROCESS_FAILURE)  # type: ignore[untyped-decorator]
def _note_killed(stage: Stage, message: str) -> None:
    """Record that a stage's process was killed: it could not do so itself, and others wait."""
    failed = StageFailed(stage=stage.task_family, reason="its process was killed")
    stage.record(failed)


def _clear_failures(run: Run) -> None:
    for name in os.listdir(run.path("errors")):
        os.unlink(run.path("errors", name))


def _worst_failure(run: Run) -> CartridgeError | None:
    failures = [
        run.load(os.path.join("errors", name), Failure)
        for name in sorted(os.listdir(run.path("errors")))
    ]
    telling = [f for f in failures if f.error not in _LEAST_TELLING]
    for failure in telling or sorted(failures, key=lambda f: _LEAST_TELLING.index(f.error)):
        error = rebuild(failure.error, failure.facts)
        error.__notes__ = [failure.traceback]
        return error
    return None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into Interrupted; Luigi then ends its children."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Python swallows what is raised inside a hook of fork: knock again until it is heard.
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        raise Interrupted()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted() from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_child_left() -> Iterator[None]:
    """Wait for the children when the block ends: Luigi ends them, but does not wait."""
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
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
