"""Processes within bounds: children that share work and die with their parent; memory."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from tasks.model.errors import FormatDamaged

Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # prctl(2)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)
_LARGE_BLOCK = 1 << 20
_HELD = {signal.SIGINT, signal.SIGTERM}
# More than 32 MiB is refused.
_LARGEST_BLOCK, _KEPT = 16 << 20, 24 << 20
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


_jobs: list[Callable[[], Any]] = []


def in_processes(jobs: Sequence[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """Run jobs in forked processes, which share this one's memory; yield results in order.

    With one worker, or one job, this process does them itself, one by one as they are asked for.
    """
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job()
        return
    _jobs[:] = jobs
    context = multiprocessing.get_context("fork")
    count = min(workers, len(jobs))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin) as pool:
        try:
            with _signals_held():
                results = pool.map(_run_job, range(len(jobs)))
            yield from results
        except BaseException:
            threading.excepthook = lambda _: None  # the pool's own thread complains of what follows
            for child in multiprocessing.active_children():
                child.terminate()  # do not wait for whole jobs that nobody wants any more
                child.join()
            raise
        finally:
            _jobs.clear()


@contextlib.contextmanager
def beside(job: Callable[[Callable[[Result], None]], None]) -> Iterator[list[Result]]:
    """Run a job in a forked process for as long as the block lasts, and no longer.

    The job is given what takes its results; those that it had by then are in the list afterwards.
    It is killed wherever it is, so it must only read.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_do_beside, args=(job, sender.send))
    results: list[Result] = []
    with _signals_held():
        child.start()
    sender.close()
    try:
        yield results
    finally:
        child.kill()
        child.join()
        with receiver, contextlib.suppress(EOFError):
            while True:
                results.append(receiver.recv())


def _do_beside(job: Callable[[Callable[[Any], None]], None], tell: Callable[[Any], None]) -> None:
    _begin()
    with contextlib.suppress(Exception):  # what it could not do, nobody takes for done
        job(tell)


def _run_job(index: int) -> Any:
    return _jobs[index]()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back while processes are forked: these would take them as their parent does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Set a forked process up: the parent tells it to stop, signals to the parent do not."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    die_with_parent()


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
