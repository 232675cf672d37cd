"""File-system calls of a run that fail: the n-th of some kinds, once or from then on.

A library that is preloaded into every process of the run counts the calls that change anything
below some folders, those of pyarrow too, and makes some fail as a sick disk would.
"""

import ctypes
import dataclasses
import errno
import mmap
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.program import Program

# In the order of the library.
KINDS = ("open", "write", "sync", "rename", "mkdir", "unlink", "truncate")
# Whom a signal may go to.
EVERYBODY = ("group", "parent", "child")
# What a disk does: which calls fail, and with which error.
FULL = (errno.ENOSPC, ("open", "write", "mkdir", "sync"))
SICK = (errno.EIO, KINDS)
READ_ONLY = (errno.EROFS, ("open", "write", "rename", "mkdir", "unlink", "truncate"))
GONE = (errno.ENODEV, KINDS)
SHORT = (0, ("write",))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The n-th call of some kinds below some folders fails, or all from the n-th on.

    With error 0 a write is not refused, but takes only half of what it is given. With `whom` the
    call itself goes well, but first somebody gets the signal with the number `error`.
    """

    roots: tuple[Path, ...]
    error: int = errno.EIO
    kinds: tuple[str, ...] = KINDS
    at: int = 0
    lasting: bool = False
    whom: str | None = None

    def __str__(self) -> str:
        if self.whom is not None:
            return f"{signal.Signals(self.error).name} to {self.whom} at {self.at}"
        name = errno.errorcode.get(self.error, "short")
        return (
            f"{name} at {self.at}{' and after' if self.lasting else ''} of {','.join(self.kinds)}"
        )


class Faults:
    """A fault set up for one run; afterwards it tells whether it was met, and where first."""

    def __init__(self, program: Program, fault: Fault, log: Path | None = None) -> None:
        library = ctypes.CDLL(str(shim()))
        library.faults_size.restype = ctypes.c_size_t
        size = library.faults_size()
        handle, self.file = tempfile.mkstemp(dir=program.directory / "tmp")
        os.truncate(handle, size)
        with mmap.mmap(handle, size) as memory:
            library.faults_prepare(ctypes.byref(ctypes.c_char.from_buffer(memory)))
        os.close(handle)
        mask = sum(1 << KINDS.index(kind) for kind in fault.kinds)
        mode = ("l" if fault.lasting else "o") + ("" if fault.error else "s")
        if fault.whom is not None:
            mode = "k" + fault.whom[0]
        roots = ":".join(str(root.resolve()) for root in fault.roots)
        words = (self.file, mask, fault.at, fault.error, mode, log or "-", roots)
        self.program = Program(program.directory)
        self.program.env = program.env | {
            "LD_PRELOAD": str(shim()),
            "FAULTS": " ".join(map(str, words)),
        }

    @property
    def count(self) -> int:
        """The calls of these kinds that were made."""
        return self._state()[0]

    @property
    def hits(self) -> int:
        """The calls that failed."""
        return self._state()[1]

    @property
    def first(self) -> str:
        """The first call that failed."""
        return self._state()[2].split(b"\0")[0].decode(errors="replace")

    def _state(self) -> tuple[int, int, bytes]:
        found: tuple[int, int, bytes] = struct.unpack_from("<QQ1024s", Path(self.file).read_bytes())
        return found


@cache
def shim() -> Path:
    """Compile the library; the test is left out where nothing can."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    target = Path(tempfile.mkdtemp(prefix="faults-")) / "faults.so"
    source = Path(__file__).with_name("faults.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", target, source, "-ldl", "-pthread"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the library cannot be compiled: {done.stderr[-200:]}")
    return target


def spread(last: int, steps: Iterable[int]) -> list[int]:
    """Return the given numbers that are not beyond the last."""
    return [step for step in steps if step <= last]


def traced(program: Program, inject: str, *paths: Path) -> Program:
    """Return the program with errors of the medium at some paths."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    limits = [word for path in paths for word in ("-P", str(path))]
    return Program(
        program.directory, ("strace", "-f", "-o", "/dev/null", *limits, "-e", f"inject={inject}")
    )
