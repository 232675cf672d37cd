"""Entry point: `cartridge` and `python -m pipelines`."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

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
_BLAS = "OPENBLAS_NUM_THREADS"
# A command whose name Python keeps for itself.
_MODULES = {"continue": "continue_"}


class _Unwanted:
    """What PyArrow, NumPy and Luigi load, and nothing here makes use of."""

    names = ("pandas", "pyarrow._s3fs", "pyarrow._gcsfs", "pyarrow._azurefs", "tornado")
    # Luigi does as well without; those who send news load it when they need it.
    early: tuple[str, ...] = ("requests",)
    # These put documentation together for every function, which takes a tenth of the start.
    texts = (
        "numpy._core._add_newdocs",
        "numpy._core._add_newdocs_scalars",
        "pyarrow.vendored.docscrape",
    )

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in _Unwanted.names + _Unwanted.early:
            raise ModuleNotFoundError(name)
        return ModuleSpec(name, _Untold()) if name in _Unwanted.texts else None


class _Untold(Loader):
    """Gives an empty module in place of one that documents others."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["NumpyDocString"] = lambda text: {"Parameters": ()}


class _Stopped(KeyboardInterrupt):
    """A signal came.

    CPython notes a plain KeyboardInterrupt that leaves `exec`, and dies of SIGINT in the end.
    """


def main_and_exit() -> None:
    """Run the command line, and leave without taking apart what was loaded, which takes 40 ms."""
    try:
        main()
        code = 0
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    try:
        sys.stdout.flush()
    except OSError as error:  # a full disk, or a reader that has had enough
        print(f"cartridge: cannot write what it had to say: {error.strerror}.", file=sys.stderr)
        code = code or 1
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


def main() -> None:
    """Run the command line; only the module of the command that is asked for is loaded."""
    sys.unraisablehook = _hear_again
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
    sys.meta_path.insert(0, _Unwanted)
    gc.disable()  # what modules make stays: looking for garbage in it takes a tenth of the start
    from pipelines.cli import app

    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with _without_threads_of_blas():
        for name in [wanted] if wanted in COMMANDS else COMMANDS:
            importlib.import_module(f"pipelines.{_MODULES.get(name, name)}")
    _Unwanted.early = ()
    gc.freeze()
    gc.enable()
    app(prog_name="cartridge")


@contextlib.contextmanager
def _without_threads_of_blas() -> Iterator[None]:
    """Have NumPy start none of its threads for matrices, which wait for work at full speed.

    Commands of the user, which run later, get the environment as it was.
    """
    if _BLAS in os.environ:
        yield
        return
    os.environ[_BLAS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS]


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
