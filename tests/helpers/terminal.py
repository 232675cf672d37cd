"""A terminal of its own for the program, as somebody sits at it, and what its screen shows."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect

from tests.helpers.program import Program

Terminal = Callable[..., "pexpect.spawn[str]"]

ENTER = "press Enter"
ROWS, COLUMNS = 50, 200


@contextlib.contextmanager
def terminals(program: Program) -> Iterator[Terminal]:
    """Give a function that starts commands; whatever is still there at the end is killed."""
    started: list[pexpect.spawn[str]] = []

    def start(*args: str | Path) -> "pexpect.spawn[str]":
        command = [*program.prefix, sys.executable, "-m", "pipelines", *map(str, args)]
        child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(program.workspace),
            env=program.env | {"TERM": "xterm"},
            encoding="utf-8",
            timeout=60,
            dimensions=(ROWS, COLUMNS),
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def end_of(child: "pexpect.spawn[str]") -> tuple[int | None, str]:
    """Wait for the end and return the exit code and what was shown since the last question."""
    child.expect(pexpect.EOF)
    child.close()
    assert "Traceback" not in child.before
    return child.exitstatus, child.before


def screen_after(text: str) -> list[str]:
    """Return the lines that stand on a screen in the end; empty ones are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its authors would rather have us use another emulator
        from pexpect.ANSI import ANSI
    screen = ANSI(ROWS, COLUMNS, encoding="utf-8")
    screen.write(text)
    return [line.rstrip() for line in str(screen).splitlines() if line.strip()]
