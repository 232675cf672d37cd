"""Watching a run: bars on a terminal, a line now and then elsewhere.

The watcher is a process of its own that never forks: a bar's threads and locks, copied into a
forked child, would one day stop it for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.report import printable
from tasks.catalog.progress import Report, reports
from tasks.catalog.runs import Run
from tasks.media.processes import killed_with_parent
from tasks.model.errors import CartridgeError
from tasks.model.units import format_size
from tasks.model.words import ArchivesPlan

_BARS, _LINES = 0.25, 30.0
_TITLES = {
    "ScanSource": "Scanning",
    "PackArchive": "Packing",
    "WriteCartridge": "Writing",
    "VerifyCartridge": "Verifying",
}


@contextlib.contextmanager
def watching(run: Run) -> Iterator[None]:
    """Show how far a run is, on standard error, while the block lasts."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_watcher(run, parent)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _be_watcher(run: Run, parent: int) -> None:
    """Watch until told to stop; never returns."""
    code = 1
    try:
        killed_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Held back and asked for: a handler that raised would cut into what is being drawn.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if sys.stderr.isatty():
            _draw(run)
        else:
            _print(run)
        code = 0
    except BaseException:  # a bar is not worth a backup
        pass
    finally:
        os._exit(code)


def _told_to_stop(within: float) -> bool:
    """Wait that many seconds for the word to stop; return whether it came."""
    return signal.sigtimedwait({signal.SIGTERM}, within) is not None


@dataclass(frozen=True, slots=True)
class Line:
    """One bar: `total` is 0 where nobody knows it."""

    title: str
    done: int
    total: int
    unit: str
    # Whether the stage ends when `done` is `total`; a cartridge need not become full.
    is_work: bool = True

    @property
    def amount(self) -> str:
        """How far it is."""
        return self._shown(self.done) + (f" of {self._shown(self.total)}" if self.total else "")

    def speed(self, rate: float | None) -> str:
        """Write a rate per second, "" where there is none."""
        return f"{self._shown(int(rate))}/s" if rate else ""

    def left(self, rate: float | None) -> str:
        """Write the time that is left at a rate, "" where nobody knows."""
        if not rate or not self.total or not self.is_work or self.done >= self.total:
            return ""
        seconds = int((self.total - self.done) / rate)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"

    def _shown(self, number: int) -> str:
        return format_size(number) if self.unit == "bytes" else f"{number:,} {self.unit}"


def lines(run: Run) -> list[Line]:
    """Return the bars of a run as it stands: stages of a kind are one bar."""
    found = list(reports(run))
    told = []
    for stage, title in _TITLES.items():
        mine = [report for report in found if report.stage == stage]
        if stage in ("WriteCartridge", "VerifyCartridge"):
            told += [_one(title, report) for report in mine if not _is_over(report, mine)]
        elif mine:
            told.append(_together(run, title, mine))
    return told


def _one(title: str, report: Report) -> Line:
    is_work = report.stage != "WriteCartridge"
    return Line(f"{title} {report.note}", report.done, report.total, report.unit, is_work)


def _is_over(report: Report, all_of_kind: list[Report]) -> bool:
    """Only the last cartridge is shown: those before it are full."""
    return report is not all_of_kind[-1]


def _together(run: Run, title: str, mine: list[Report]) -> Line:
    totals = [report.total for report in mine]
    total = sum(totals) if all(totals) else 0
    if mine[0].stage == "PackArchive":
        with contextlib.suppress(CartridgeError, OSError):
            plan = run.load("plan.json", ArchivesPlan)
            total = sum(bundle.bytes for bundle in plan.bundles)
    return Line(title, sum(report.done for report in mine), total, mine[0].unit)


def _print(run: Run) -> None:
    began = time.monotonic()
    while not _told_to_stop(within=_LINES):
        seconds = time.monotonic() - began
        told = [_text(line, line.done / seconds) for line in lines(run)]
        if told:
            print(printable("; ".join(told)), file=sys.stderr, flush=True)


def _text(line: Line, rate: float) -> str:
    """Write a bar as words: how far, how fast, and how long still."""
    percent = f" ({min(100, 100 * line.done // line.total)} %)" if line.total else ""
    words = [f"{line.title}: {line.amount}{percent}", line.speed(rate), line.left(rate)]
    return ", ".join(word for word in words if word)


def _draw(run: Run) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TaskProgressColumn,
        TextColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    )
    bars: dict[str, TaskID] = {}
    with Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=4
    ) as progress:
        while os.path.exists(run.path("request.json")) and not _told_to_stop(within=_BARS):
            for line in lines(run):
                if line.title not in bars:
                    bars[line.title] = progress.add_task(
                        line.title, total=None, amount="", rate="", left=""
                    )
                bar = bars[line.title]
                progress.update(bar, completed=line.done, total=line.total or None)
                _label(progress.tasks[progress.task_ids.index(bar)], line)


def _label(task: object, line: Line) -> None:
    """Put amount, rate and time beside a bar, in the words that people use for each."""
    speed = getattr(task, "speed", None) or getattr(task, "finished_speed", None)
    fields = getattr(task, "fields")  # noqa: B009  # rich's Task, imported late
    fields["amount"] = line.amount
    fields["rate"] = line.speed(speed)
    fields["left"] = line.left(speed)
