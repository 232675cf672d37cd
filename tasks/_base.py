"""What every stage has in common: its identity, its output, and how it reports an error."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import luigi

from tasks.catalog import runlog
from tasks.catalog.progress import Meter, Report
from tasks.catalog.runs import Place, Run
from tasks.media import durable, locks
from tasks.media.processes import die_with_parent
from tasks.model.errors import CartridgeError, Interrupted, StageFailed
from tasks.model.units import format_size
from tasks.model.words import Failure


class Whole(luigi.Target):
    """A file that is whole and flushed, or absent."""

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether the final name is there."""
        return os.path.exists(self.path)


@dataclass(frozen=True, slots=True)
class Here:
    """Where this process works: the workspace as this host has it, its name in the run, and how
    many processes it may keep busy."""

    workspace: str
    participant: str
    workers: int


class Stage(luigi.Task):
    """A stage of a run; profile, snapshot and token are its identity, all else lies on disk.

    A subclass says in `result` which file it leaves, and does its work in `work`, which may yield
    other stages. An error is recorded in the run's folder, where the engine finds it.
    """

    # No parameter: what another host must not take over, and a scheduler need not know.
    here: ClassVar[Here]
    _is_unheard = False
    # Cast, not annotated: Luigi's typing takes what is annotated for a parameter.
    _meter = cast("Meter | None", None)

    profile = luigi.Parameter()
    snapshot = luigi.Parameter()
    token = luigi.Parameter(default="")

    @property
    def identity(self) -> dict[str, str]:
        """The parameters that all stages of a run share."""
        return {
            "profile": self.profile,
            "snapshot": self.snapshot,
            "token": self.token,
        }

    @property
    def run_folder(self) -> Run:
        """The run that the stage belongs to."""
        return Run(Place(self.here.workspace, self.profile), self.snapshot, self.here.participant)

    @property
    def result(self) -> str:
        """The name of the stage's output in the run's folder."""
        raise NotImplementedError

    def output(self) -> Whole:
        """Return the one output."""
        return Whole(self.run_folder.path(self.result))

    def work(self) -> Iterator[Any] | None:
        """Do the stage's work, and leave `result` behind as the last thing."""
        raise NotImplementedError

    def run(self) -> Iterator[Any]:
        """Do the work, recording an error as a sentence for people."""
        die_with_parent()
        gc.set_threshold(
            200_000, 20, 100
        )  # rows are tuples without cycles: looking for some is dear
        began = time.monotonic()
        try:
            with durable.in_workspace(), self._undisturbed():
                if not self.complete():
                    yield from self.work() or ()
            self._log("done", seconds=round(time.monotonic() - began, 3), **self._amount())
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except CartridgeError as error:
            self.record(error)
            raise
        except Exception as error:
            self.record(StageFailed.from_error(self.task_family, error))
            raise

    def _undisturbed(self) -> contextlib.AbstractContextManager[object]:
        """Keep others from the same stage: a scheduler may take one for dead that only slept."""
        return locks.exclusive(self.run_folder.path("locks", self.task_id))

    def meter(self, total: int, unit: str, note: str = "") -> Meter:
        """Return a counter of what the stage does; `total` is 0 where nobody knows it."""
        path = self.run_folder.path("progress", f"{self.task_id}.json")
        self._meter = Meter(path, self.task_family, total, unit, self._tell, note)
        return self._meter

    def _amount(self) -> dict[str, object]:
        """Return how much the stage has done, where it counts anything."""
        return {"amount": self._meter.amount, "unit": self._meter.unit} if self._meter else {}

    def _tell(self, report: Report) -> None:
        """Show a scheduler how far the stage is; where it is lost, only the view is."""
        say: Callable[[str], None] | None = self.set_status_message
        if self._is_unheard or say is None:
            return
        try:
            say(_sentence(report))
            if report.total and self.set_progress_percentage is not None:
                self.set_progress_percentage(min(100, 100 * report.done // report.total))
        except Exception:  # whatever a network may raise
            self._is_unheard = True

    def _log(self, event: str, **facts: object) -> None:
        named = {"stage": self.task_family, "task": self.task_id}
        by = self.here.participant
        runlog.log(self.run_folder.place, self.snapshot, event, **named, participant=by, **facts)

    def on_failure(self, exception: BaseException) -> str:
        """Tell Luigi what went wrong: a sentence, without a traceback and the names in it."""
        if isinstance(exception, CartridgeError):
            return str(exception)
        return f"{type(exception).__name__}: 'cartridge backup {self.profile} --debug' says where."

    def record(self, error: CartridgeError) -> None:
        """Leave an error in the run's folder, where the engine finds it."""
        failure = Failure(
            stage=self.task_family,
            error=error.name,
            facts=error.facts,
            traceback=traceback.format_exc(),
        )
        if not isinstance(error, Interrupted):
            os.makedirs(self.run_folder.errors, exist_ok=True)
            path = os.path.join(self.run_folder.errors, f"{self.task_id}.json")
            self.run_folder.save(path, failure)
            self._log("failed", error=error.name, message=str(error))


def _sentence(report: Report) -> str:
    """Tell how far a stage is, for the page of a scheduler."""
    show = format_size if report.unit == "bytes" else "{:,}".format
    done = show(report.done) if report.unit == "bytes" else f"{show(report.done)} {report.unit}"
    total = f" of {show(report.total)}" if report.total else ""
    return f"{done}{total}{f', {report.note}' if report.note else ''}"
