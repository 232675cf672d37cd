"""Memory of this process: what is kept, what goes back to the system, and a bound to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator

from tasks.model.errors import FormatDamaged

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)
_LARGE_BLOCK = 1 << 20
# More than 32 MiB is refused.
_LARGEST_BLOCK, _KEPT = 16 << 20, 24 << 20
# Bytes of address space: the libraries alone take more than a gigabyte of it.
_MOST, _LEAST = 8 << 30, 4 << 30


def keep_memory() -> None:
    """Have freed blocks kept for the next ones: for a process that works through megabytes at once.

    The C library would otherwise give each back, and the system would clear its pages anew.
    """
    with contextlib.suppress(AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _KEPT)


def trim_memory() -> None:
    """Give what is free now back to the system: after work that took much more than usual."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_memory_back() -> None:
    """Have large blocks go back to the system when they are freed: for a process that stays.

    The C library would otherwise keep as much as each of many threads has ever used at a time.
    """
    with contextlib.suppress(AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


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
