"""Commands over damaged or hostile files: thousands of runs in a minute, none may crash."""

import json
from collections.abc import Sequence
from typing import Any

from tests.helpers.program import Arg, Measured, Program

HANGS = 60  # seconds


def run(program: Program, *args: Arg, timeout: float = HANGS, limit: int = 0) -> Measured:
    """Run a command to its end; a traceback or a crash is a failure.

    `limit` is how many bytes of address space it gets beyond what it begins with.
    """
    __tracebackhide__ = True
    ended = program.measure(*args, timeout=timeout, limit=limit)
    shown = f"cartridge {args}: {ended.code}\n{ended.out[-3000:]}\n{ended.err[-3000:]}"
    assert ended.code >= 0, f"killed by a signal: {shown}"
    assert "Traceback" not in ended.err, f"a traceback was shown: {shown}"
    return ended


def json_of(program: Program, command: str, *args: Arg, code: Sequence[int] = (0,)) -> Any:
    """Run a command with --json; return its object. The exit code must be among `code`."""
    __tracebackhide__ = True
    ended = run(program, command, "--json", *args)
    assert ended.code in code, f"cartridge {command} {args}: {ended.code}\n{ended.out}{ended.err}"
    return json.loads(ended.out)
