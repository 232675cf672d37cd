"""Processes within bounds: children that never outlive their parent, memory with a limit."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator

from tasks.model.errors import FormatDamaged

_PR_SET_PDEATHSIG = 1  # prctl(2)
# Bytes of address space: the libraries alone take more than a gigabyte of it.
_MOST, _LEAST = 8 << 30, 4 << 30


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it is no more: no orphan writes.

    In a process that multiprocessing did not make, this does nothing.
    """
    if multiprocessing.parent_process() is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def killed_with_parent(parent: int) -> None:
    """Do the same in a process that `parent` has just forked itself; it may be gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def bounded_memory(what: str) -> Iterator[None]:
    """Limit the memory of this process while the block runs; children begin with the same limit.

    Raises FormatDamaged, naming `what`, where it does not suffice: no honest catalog takes as much.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [max(min(memory, _MOST), _LEAST), soft, hard]
    lowest = min(limit for limit in limits if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
    try:
        yield
    except MemoryError as error:
        raise FormatDamaged(file=what, reason="reading it takes all memory") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
