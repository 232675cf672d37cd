"""Processes that share work end with the word of their parent, and say nothing of their own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tasks.media.processes import in_processes
from tasks.model.errors import FormatDamaged, Interrupted, StageFailed
from tests.helpers.program import REPOSITORY

_STOPPED_WHEN_FORKED = """
import os, signal, sys
from tasks.media import processes

def stop(number, frame):
    raise SystemError("this is for the parent alone")

signal.signal(signal.SIGTERM, stop)
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
if sys.argv[1] == "sharing":
    print(list(processes.in_processes([int, int], 2)))
else:
    with processes.beside(lambda tell: tell(1)) as done:
        while processes.multiprocessing.active_children():
            pass
    print(done)
"""

_STOPPED_AT_ANY_MOMENT = """
import os, random, signal, sys, time
from tasks.media.processes import in_processes

class Stopped(BaseException):
    pass

def stop(number, frame):
    raise Stopped

signal.signal(signal.SIGALRM, stop)
heard = 0
for moment in range(300):
    signal.setitimer(signal.ITIMER_REAL, random.Random(moment).uniform(0.0001, 0.015))
    try:
        for result in in_processes([lambda: bytes(100_000)] * 8, 3):
            assert len(result) == 100_000
        while True:
            time.sleep(0.001)
    except Stopped:
        heard += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        os.waitpid(-1, os.WNOHANG)
        sys.exit("a child is left")
    except ChildProcessError:
        pass
print(heard)
"""


class Stopped(BaseException):
    pass


@pytest.fixture
def stopping() -> Iterator[None]:
    """SIGTERM raises Stopped, as it does in a command."""

    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def run(code: str, *args: str) -> tuple[str, str]:
    """Run a program; return what it printed, and complained of."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip(), done.stderr


def test_results_come_in_the_order_of_the_jobs_whoever_is_done_first() -> None:
    jobs = [lambda n=n: time.sleep(0.03 * (n == 0)) or n for n in range(20)]
    assert list(in_processes(jobs, 3)) == list(range(20))


def test_an_error_comes_with_the_place_where_it_was_raised() -> None:
    def damaged() -> None:
        raise FormatDamaged(file="here", reason="there")

    with pytest.raises(FormatDamaged, match="here") as caught:
        list(in_processes([damaged, damaged], 2))
    assert "in damaged" in caught.value.__notes__[0]
    assert not multiprocessing.active_children()


def test_a_process_that_was_killed_is_told() -> None:
    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(StageFailed, match="killed by signal 9"):
        list(in_processes([int, killed], 2))
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("stopping")
def test_a_signal_ends_work_that_would_go_on_for_long() -> None:
    parent = os.getpid()
    jobs = [lambda: os.kill(parent, signal.SIGTERM), lambda: time.sleep(60)]
    with pytest.raises(Stopped) as caught:
        list(in_processes(jobs, 2))
    assert isinstance(caught.value.__context__, Interrupted), "the work was waited for"
    assert not multiprocessing.active_children()


def test_no_process_is_left_where_nobody_wants_more_results() -> None:
    results = in_processes([int, lambda: time.sleep(60)], 2)
    assert next(results) == 0
    del results
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("kind", "told"), [("sharing", "[0, 0]"), ("beside", "[1]")])
def test_a_signal_just_after_the_fork_is_not_for_the_child(kind: str, told: str) -> None:
    assert run(_STOPPED_WHEN_FORKED, kind) == (told, "")


def test_a_signal_is_heard_at_any_moment_and_leaves_no_process_behind() -> None:
    assert run(_STOPPED_AT_ANY_MOMENT) == ("300", "")
