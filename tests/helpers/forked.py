"""The same program as `Program.run`, in a fork of the tests: thousands of runs in a minute."""

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.helpers.program import Arg, Program

HANGS = 60  # seconds


class Ended(NamedTuple):
    """How a command ended: exit code, what it printed, and the most memory it took in bytes."""

    code: int
    out: str
    err: str
    memory: int

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON object on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def run(program: Program, *args: Arg, timeout: float = HANGS, limit: int = 0) -> Ended:
    """Run a command to its end; a traceback or a crash is a failure.

    `limit` is how many bytes of address space it gets beyond what the tests have.
    """
    __tracebackhide__ = True
    words = [os.fsdecode(arg) for arg in args]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _be_the_program(program, words, out.fileno(), err.fileno(), limit)
        status, memory = _wait(pid, timeout)
        told = [_text(file) for file in (out, err)]
    ended = Ended(os.waitstatus_to_exitcode(status), *told, memory)
    shown = f"cartridge {' '.join(words)}: {ended.code}\n{told[0][-3000:]}\n{told[1][-3000:]}"
    assert ended.code >= 0, f"killed by a signal: {shown}"
    assert "Traceback" not in ended.err, f"a traceback was shown: {shown}"
    return ended


def json_of(program: Program, command: str, *args: Arg, code: Sequence[int] = (0,)) -> Any:
    """Run a command with --json; return its object. The exit code must be among `code`."""
    __tracebackhide__ = True
    ended = run(program, command, "--json", *args)
    assert ended.code in code, f"cartridge {command} {args}: {ended.code}\n{ended.out}{ended.err}"
    return ended.facts


def _be_the_program(program: Program, words: list[str], out: int, err: int, limit: int) -> None:
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.chdir(program.workspace)
        os.environ.clear()
        os.environ.update(program.env)
        sys.argv = ["cartridge", *words]
        if limit:
            now = _address_space() + limit
            resource.setrlimit(resource.RLIMIT_AS, (now, now))
        from pipelines.__main__ import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _wait(pid: int, timeout: float) -> tuple[int, int]:
    deadline = time.monotonic() + timeout
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage.ru_maxrss * 1024
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"no end after {timeout} s")
        time.sleep(0.002)


def _text(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode("utf-8", "replace")
    return text
