"""Where the time of a run went: seconds, amounts and rates, stage by stage, from its log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.report import table
from tasks.model.units import format_size


@dataclass(frozen=True, slots=True)
class _Task:
    """One task that has ended; times are seconds since 1970."""

    stage: str
    begin: float
    end: float
    amount: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """The tasks of one stage: `seconds` is their sum, `wall` the time in which one was running.

    `rate` is what all of them did in a second of `wall`; `unit` is "" where nothing is counted.
    """

    stage: str
    tasks: int
    seconds: float
    wall: float
    amount: int
    unit: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run spent its `seconds` on; in `outside` of them no stage was running."""

    seconds: float
    outside: float
    stages: list[StageTime]

    def lines(self) -> list[str]:
        """Lay it out for people."""
        heads = ("stage", "tasks", "seconds", "wall", "amount", "rate")
        rows = [
            (s.stage, s.tasks, f"{s.seconds:.2f}", f"{s.wall:.2f}", *_speed(s)) for s in self.stages
        ]
        rest = ("outside of stages", "", "", f"{self.outside:.2f}", "", "")
        return table(heads, [*rows, rest, ("whole run", "", "", f"{self.seconds:.2f}", "", "")])


def spent(events: Iterable[Mapping[str, Any]], seconds: float) -> Spent:
    """Add up the events of a log; `seconds` is how long the run took as a whole."""
    tasks = [_task(event) for event in events if event["event"] == "done"]
    stages = dict.fromkeys(task.stage for task in sorted(tasks, key=lambda task: task.begin))
    return Spent(
        seconds=seconds,
        outside=round(max(0.0, seconds - _covered(tasks)), 3),
        stages=[_together([task for task in tasks if task.stage == stage]) for stage in stages],
    )


def _task(event: Mapping[str, Any]) -> _Task:
    end = datetime.fromisoformat(event["time"]).timestamp()
    amount, unit = event.get("amount", 0), event.get("unit", "")
    return _Task(event["stage"], end - event["seconds"], end, amount, unit)


def _together(tasks: list[_Task]) -> StageTime:
    wall = _covered(tasks)
    amount = sum(task.amount for task in tasks)
    return StageTime(
        stage=tasks[0].stage,
        tasks=len(tasks),
        seconds=round(sum(task.end - task.begin for task in tasks), 3),
        wall=round(wall, 3),
        amount=amount,
        unit=tasks[0].unit,
        rate=round(amount / max(wall, 0.001), 1),  # the log knows no shorter time
    )


def _covered(tasks: list[_Task]) -> float:
    """Return in how many seconds at least one of the tasks was running."""
    covered, reached = 0.0, 0.0
    for task in sorted(tasks, key=lambda task: task.begin):
        covered += max(0.0, task.end - max(task.begin, reached))
        reached = max(reached, task.end)
    return covered


def _speed(stage: StageTime) -> tuple[str, str]:
    if not stage.unit:
        return "", ""
    if stage.unit == "bytes":
        return format_size(stage.amount), f"{format_size(int(stage.rate))}/s"
    return f"{stage.amount:,} {stage.unit}", f"{int(stage.rate):,} {stage.unit}/s"
