"""A process that has loaded the program once, and forks for every command: half the time of a test.

A forked command is a process like any other, with a session, an environment and files of its own.
What depends on how a process is started (`start`, signals, preloaded libraries) does not use this.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, NoReturn

_REQUEST = 1 << 20
_PID = struct.Struct("<q")
_END = struct.Struct("<qq")
# Variables that count when an interpreter starts: a fork cannot change them any more.
_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "COVERAGE")


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and its memory in bytes."""

    code: int
    memory: int


class HungError(Exception):
    """A command did not end in time, and was killed."""


class Zygote:
    """The client's side: asks for forks."""

    def __init__(self, environment: dict[str, str], folder: str) -> None:
        self._at_start = _at_start(environment)
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST)
        command = [sys.executable, "-m", "tests.helpers.zygote", str(asked.fileno())]
        process = subprocess.Popen(
            command, env=environment, cwd=folder, pass_fds=[asked.fileno()], start_new_session=True
        )
        asked.close()
        atexit.register(process.kill)

    def suits(self, environment: dict[str, str]) -> bool:
        """Whether a command with this environment can be forked."""
        return _at_start(environment) == self._at_start

    def run(
        self,
        words: Sequence[str],
        cwd: str,
        environment: dict[str, str],
        files: tuple[int, int],
        timeout: float,
        limit: int = 0,
    ) -> Ended:
        """Run a command to its end with two files as its standard output and error.

        `limit` is how many bytes of address space it gets beyond what is in use when it begins.
        """
        mine, theirs = socket.socketpair()
        request = json.dumps([words, cwd, environment, limit]).encode("ascii")
        with mine:
            socket.send_fds(self._asking, [request], [theirs.fileno(), *files])
            theirs.close()
            [pid] = _PID.unpack(mine.recv(_PID.size, socket.MSG_WAITALL))
            mine.settimeout(timeout)
            try:
                status, memory = _END.unpack(mine.recv(_END.size, socket.MSG_WAITALL))
                return Ended(os.waitstatus_to_exitcode(status), memory)
            except TimeoutError:
                raise HungError(f"no end after {timeout} s") from None
            finally:
                # Whoever is left; those that a command detached on purpose have other sessions.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if sys.exc_info()[0] is not None:
                        os.killpg(pid, signal.SIGKILL)


def _at_start(environment: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_AT_START)}


@cache
def zygote(environment: tuple[tuple[str, str], ...], folder: str) -> Zygote:
    """Return the zygote of this process for an environment; it ends with the process."""
    return Zygote(dict(environment), folder)


# ---- the other side


def _serve(asked: socket.socket) -> None:
    """Fork for every request, until nobody is left to ask."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(asked, _REQUEST, 3)
        if not request:
            return
        if os.fork() == 0:
            asked.close()
            _attend(json.loads(request), socket.socket(fileno=descriptors[0]), descriptors[1:])
        for descriptor in descriptors:
            os.close(descriptor)


def _attend(request: list[Any], reply: socket.socket, files: list[int]) -> NoReturn:
    """Start the command, wait for it, and tell."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        reply.close()
        _be_the_program(*request, *files)
    reply.sendall(_PID.pack(pid))
    _, status, usage = os.wait4(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        reply.sendall(_END.pack(status, usage.ru_maxrss * 1024))
    os._exit(0)


def _be_the_program(
    words: list[str], cwd: str, environment: dict[str, str], limit: int, out: int, err: int
) -> NoReturn:
    code = 70
    try:
        os.setsid()
        for target, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(file, target)
        os.closerange(3, 64)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        time.tzset()
        sys.argv = ["cartridge", *words]
        if limit:
            now = _address_space() + limit
            resource.setrlimit(resource.RLIMIT_AS, (now, now))
        code = _code()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code() -> int:
    from pipelines.__main__ import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _load() -> None:
    """Load what commands load, but no command: which of them is loaded is the program's choice."""
    for name in (
        *("pipelines.engine", "pipelines.watch", "rich.progress"),
        *("tasks.prune", "tasks.restore"),
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
