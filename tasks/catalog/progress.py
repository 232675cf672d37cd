"""How far the stages of a run are, for whoever watches: files in its folder, never flushed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tasks.catalog.runs import Run
from tasks.formats.records import from_json, to_json
from tasks.media import durable
from tasks.model.errors import FormatDamaged

# The variable that has every file named.
VERBOSE = "CARTRIDGE_VERBOSE"
# Seconds between two reports of a stage.
_PERIOD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far one stage is: `done` of `total` (0 where nobody knows), in `unit`s."""

    stage: str
    done: int
    total: int
    unit: str
    note: str


# Tells a scheduler: a sentence, and per cent where they are known.
Tell = Callable[[Report], None]


@dataclass(slots=True)
class Meter:
    """Counts what a stage does, and reports it twice a second."""

    path: str
    stage: str
    total: int
    unit: str
    tell: Tell
    note: str = ""
    done: int = 0
    # What of it was there before the stage began.
    start: int = 0
    _next: float = field(default=0.0)

    @property
    def amount(self) -> int:
        """How much the stage itself has done."""
        return self.done - self.start

    def begin_at(self, start: int) -> None:
        """Show what was there before as done, though the stage did not do it."""
        self.start = start
        self.add(start)

    def expect(self, total: int) -> None:
        """Correct how much there is to do."""
        self.total = total

    def add(self, count: int) -> None:
        """Count what has been done."""
        self.done += count
        if time.monotonic() >= self._next:
            self.report()

    def report(self) -> None:
        """Say now how far it is."""
        self._next = time.monotonic() + _PERIOD
        report = Report(
            stage=self.stage, done=self.done, total=self.total, unit=self.unit, note=self.note
        )
        with contextlib.suppress(OSError):  # a full disk stops the work itself soon enough
            draft = f"{self.path}.{os.getpid()}"
            with open(draft, "wb") as file:
                file.write(to_json(report))
            os.replace(draft, self.path)
        self.tell(report)


def ignore(count: int) -> None:
    """Count nothing: for work that nobody watches."""


def reports(run: Run) -> Iterator[Report]:
    """Read how far all stages are that have said something."""
    folder = run.path("progress")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        if name.endswith(".json"):
            try:
                text = durable.read_whole(os.path.join(folder, name), limit=1 << 16)
                yield from_json(Report, text, name)
            except (OSError, FormatDamaged):
                continue  # it is being replaced, or the run has just ended


def wants_names() -> bool:
    """Whether stages are to name every file that they read, on standard error."""
    return bool(os.environ.get(VERBOSE))


def tell_name(name: bytes) -> None:
    """Name a file, with nothing in it that a terminal would obey."""
    shown = name.decode("utf-8", "replace")
    safe = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    os.write(2, safe.encode() + b"\n")
