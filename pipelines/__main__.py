"""Entry point: `cartridge` and `python -m pipelines`."""

from __future__ import annotations

import atexit
import importlib
import io
import os
import signal
import sys
from types import FrameType

from pipelines.imports import sparingly

COMMANDS = (
    "init",
    "label",
    "backup",
    "restore",
    "cat",
    "export",
    "snapshots",
    "ls",
    "find",
    "diff",
    "query",
    "cartridges",
    "status",
    "report",
    "verify",
    "drill",
    "prune",
    "batch",
    "schedule",
    "log",
    "continue",
    "remind",
    "lost",
    "recover",
    "mount",
)


_SOON = 0.02  # seconds
# Commands whose names Python keeps for itself, or that another module has.
_MODULES = {"continue": "continue_", "report": "page"}


class _Stopped(KeyboardInterrupt):
    """A signal came.

    CPython notes a plain KeyboardInterrupt that leaves `exec`, and dies of SIGINT in the end.
    """


def main_and_exit() -> None:
    """Run the command line, and leave without taking apart what was loaded, which takes 40 ms."""
    code = 0
    _open_what_is_closed()
    try:
        try:
            main()
        except SystemExit as end:
            if not isinstance(end.code, int):
                raise
            code = end.code
        sys.stdout.flush()
    except OSError as error:  # a full disk, or a reader that has had enough
        print(f"cartridge: cannot write what it had to say: {error.strerror}.", file=sys.stderr)
        code = code or 1
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


def _open_what_is_closed() -> None:
    """Have three standard streams, as all programs expect: files would get their numbers else."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            if fd != number:
                os.dup2(fd, number)
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


def main() -> None:
    """Run the command line; only the module of the command that is asked for is loaded."""
    sys.unraisablehook = _hear_again
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name never costs the exit code
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    try:
        try:
            _run()
        finally:
            _ignore_signals()  # the exit code is settled
    except KeyboardInterrupt:
        _ignore_signals()
        print("cartridge: Interrupted. Run the same command again.", file=sys.stderr)
        sys.exit(130)


def _run() -> None:
    with sparingly():
        from pipelines.cli import app, run_for_machines

        wanted = sys.argv[1] if len(sys.argv) > 1 else ""
        for name in [wanted] if wanted in COMMANDS else COMMANDS:
            importlib.import_module(f"pipelines.{_MODULES.get(name, name)}")
    if "--json" in sys.argv:
        sys.exit(run_for_machines(app))
    app(prog_name="cartridge")


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Make every signal that ends a program end it in the same way, as Ctrl-C does.

    In the middle of an import an exception may be swallowed, or taken for another: look again soon.
    """
    if _is_importing(frame):
        _interrupt_soon()
    else:
        raise _Stopped


def _interrupt_soon() -> None:
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _SOON)


def _hear_again(swallowed: sys.UnraisableHookArgs) -> None:
    """Raise a signal again that came where Python lets nothing out, as just behind a fork."""
    if isinstance(swallowed.exc_value, _Stopped):
        _interrupt_soon()
    else:
        sys.__unraisablehook__(swallowed)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


if __name__ == "__main__":
    main_and_exit()
