"""A running program and all its processes: waiting for a moment, stopping, killing, counting."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Process = subprocess.Popen[str]
STATE, PARENT, SESSION = 0, 1, 3  # of the words behind the name in /proc/PID/stat


def members(process: Process) -> set[int]:
    """Return the living processes of a program's session: itself, its children, their orphans."""
    return {pid for pid, words in _stats() if int(words[SESSION]) == process.pid and _lives(words)}


def children(process: Process) -> set[int]:
    """Return the living direct children of a program."""
    return {pid for pid, words in _stats() if int(words[PARENT]) == process.pid and _lives(words)}


def _stats() -> Iterator[tuple[int, list[str]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "stat").read_text("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(folder.name), text.rpartition(")")[2].split()


def _lives(words: list[str]) -> bool:
    return words[STATE] not in "ZX"


def wait_for(
    condition: Callable[[], object], process: Process, timeout: float = 60, pause: float = 0.0005
) -> bool:
    """Look until a condition holds; False where the program ends before."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            return bool(condition())
        if time.monotonic() > deadline:
            raise AssertionError(f"what was waited for did not come in {timeout} s")
        time.sleep(pause)
    return True


def end_of(process: Process, timeout: float = 60) -> tuple[int, str, str]:
    """Wait for a program and return its exit code and what it printed; kill it where it hangs."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        left = members(process)
        kill_all(process)
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s; {left} live\n{out}\n{err}") from None
    if "Traceback" in err:
        raise AssertionError(f"a traceback was shown:\n{err}")
    return process.returncode, out, err


def kill_all(process: Process) -> None:
    """Kill a program and every process of its session, as a power cut would, and reap it."""
    _signal(process.pid, signal.SIGKILL)
    while left := members(process):
        for pid in left:
            _signal(pid, signal.SIGKILL)
        process.poll()
    process.wait()


def stop_all(process: Process) -> None:
    """Hold all processes of a program where they are."""
    _to_each(process, signal.SIGSTOP)


def go_on(process: Process) -> None:
    """Let the processes of a program go on."""
    _to_each(process, signal.SIGCONT)


def assert_none_left(process: Process, within: float = 10) -> None:
    """Fail where a process of a program that has ended still lives, and kill it."""
    deadline = time.monotonic() + within
    while left := members(process):
        if time.monotonic() > deadline:
            told = {pid: _command(pid) for pid in left}
            kill_all(process)
            raise AssertionError(f"processes were left after {within} s: {told}")
        time.sleep(0.02)


def _to_each(process: Process, number: signal.Signals) -> None:
    for pid in members(process):
        _signal(pid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone"
