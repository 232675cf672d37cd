"""What every stage has in common: its identity, its output, and how it reports an error."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from typing import Any

import luigi

from tasks.catalog.runs import Place, Run
from tasks.media import durable
from tasks.media.processes import die_with_parent
from tasks.model.errors import CartridgeError, Interrupted, StageFailed
from tasks.model.words import Failure


class Whole(luigi.Target):
    """A file that is whole and flushed, or absent."""

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether the final name is there."""
        return os.path.exists(self.path)


class Stage(luigi.Task):
    """A stage of a run; workspace, profile and snapshot are its identity, all else lies on disk.

    A subclass says in `result` which file it leaves, and does its work in `work`, which may yield
    other stages. An error is recorded in the run's folder, where the engine finds it.
    """

    workspace = luigi.Parameter()
    profile = luigi.Parameter()
    snapshot = luigi.Parameter()

    @property
    def identity(self) -> dict[str, str]:
        """The parameters that all stages of a run share."""
        return {
            "workspace": self.workspace,
            "profile": self.profile,
            "snapshot": self.snapshot,
        }

    @property
    def run_folder(self) -> Run:
        """The run that the stage belongs to."""
        return Run(Place(self.workspace, self.profile), self.snapshot)

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
        try:
            with durable.in_workspace():
                yield from self.work() or ()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except CartridgeError as error:
            self.record(error)
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self.record(StageFailed(stage=self.task_family, reason=reason))
            raise

    def record(self, error: CartridgeError) -> None:
        """Leave an error in the run's folder, where the engine finds it."""
        failure = Failure(
            stage=self.task_family,
            error=error.name,
            facts=error.facts,
            traceback=traceback.format_exc(),
        )
        name = os.path.join("errors", f"{self.task_id}.json")
        if not isinstance(error, Interrupted):
            self.run_folder.save(name, failure)
