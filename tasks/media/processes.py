"""Processes that share work, and die with the one that forked them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tasks.model.errors import Interrupted, StageFailed

Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # prctl(2)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSE = 0.05  # seconds: so long may a signal have to wait
_fork = multiprocessing.get_context("fork")


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


def in_processes(jobs: Sequence[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """Run jobs in forked processes, which share this one's memory; yield results in order.

    With one worker, or one job, this process does them itself, one by one as they are asked for.
    What a job raises is raised. Raises StageFailed where a process was killed, and Interrupted
    where a signal came.
    """
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job()
        return
    with signals_held() as came:
        yield from _shared(jobs, min(workers, len(jobs)), came)


def _shared(jobs: Sequence[Callable[[], Any]], count: int, came: Sequence[int]) -> Iterator[Any]:
    """Run jobs in `count` processes; all that took part is gone when this has ended."""
    crew = _Crew(jobs, came)
    try:
        crew.begin(count)
        for number in range(len(jobs)):
            yield crew.result(number)
    finally:
        crew.end()


class _Crew:
    """Forked processes that take jobs one after the other, and tell what came of each.

    There is no thread and no lock here that a process which is killed could leave behind; but for
    the one of the turn, which only the others of the crew would wait for.
    """

    def __init__(self, jobs: Sequence[Callable[[], Any]], came: Sequence[int]) -> None:
        self._jobs = jobs
        self._came = came
        self._turn = _fork.Value("q", 0)
        self._members: dict[Connection, Any] = {}
        self._results: dict[int, tuple[Any, BaseException | None]] = {}

    def begin(self, count: int) -> None:
        for _ in range(count):
            receiver, sender = _fork.Pipe(duplex=False)
            member = _fork.Process(target=self._work, args=(sender,))
            member.start()
            sender.close()  # with the member's own end, all are closed when it is dead
            self._members[receiver] = member

    def result(self, number: int) -> Any:
        """Wait for what came of a job."""
        while number not in self._results:
            for receiver in wait(list(self._members), _PAUSE):
                self._hear(receiver)
            if self._came:
                raise Interrupted()
        result, error = self._results.pop(number)
        if error is not None:
            raise error
        return result

    def _hear(self, receiver: Any) -> None:
        try:
            number, result, error = receiver.recv()
        except (EOFError, OSError):  # nothing more, or only a part of what it had to say
            member = self._members.pop(receiver)
            member.join()
            if member.exitcode:
                code = member.exitcode
                reason = f"it was killed by signal {-code}" if code < 0 else f"it ended with {code}"
                raise StageFailed(stage="A process that shared the work", reason=reason) from None
        else:
            self._results[number] = result, error

    def end(self) -> None:
        """Kill those that are left: nobody waits for what they do."""
        for receiver, member in self._members.items():
            member.kill()
            member.join()
            receiver.close()

    def _work(self, sender: Connection) -> None:
        _begin()
        while (number := self._take()) < len(self._jobs):
            sender.send((number, *self._do(number)))

    def _do(self, number: int) -> tuple[Any, BaseException | None]:
        try:
            return self._jobs[number](), None
        except Exception as error:
            error.add_note(traceback.format_exc())  # a traceback does not go through a pipe
            return None, error

    def _take(self) -> int:
        with self._turn.get_lock():
            number: int = self._turn.value
            self._turn.value += 1
        return number


@contextlib.contextmanager
def beside(job: Callable[[Callable[[Result], None]], None]) -> Iterator[list[Result]]:
    """Run a job in a forked process for as long as the block lasts, and no longer.

    The job is given what takes its results; those that it had by then are in the list afterwards.
    It is killed wherever it is, so it must only read.
    """
    receiver, sender = _fork.Pipe(duplex=False)
    child = _fork.Process(target=_do_beside, args=(job, sender.send))
    results: list[Result] = []
    with signals_held():
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


@contextlib.contextmanager
def signals_held() -> Iterator[list[int]]:
    """Note signals while the block runs, and deliver them when it has ended.

    What a handler raises would come out of the blue there: in the middle of a fork, in a child that
    has taken its parent's handlers over, or where a process is forked that nobody knows yet.
    """
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no other one takes them
            for number in (*_SIGNALS, signal.SIGALRM):
                if callable(signal.getsignal(number)):  # what ignores, or kills, raises nothing
                    handlers[number] = signal.signal(number, lambda number, _: came.append(number))
        yield came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for noted in came:
            signal.raise_signal(noted)


def _begin() -> None:
    """Set a forked process up: signals are for its parent, which kills it then."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
