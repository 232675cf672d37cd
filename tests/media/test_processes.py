"""Processes that share work end with the word of their parent, and say nothing of their own."""

import subprocess
import sys

import pytest

_STOPPED_WHEN_FORKED = """
import os, signal, sys
from tasks.media import processes

def stop(number, frame):
    raise SystemError("this is for the parent alone")

signal.signal(signal.SIGTERM, stop)
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
try:
    if sys.argv[1] == "sharing":
        print(list(processes.in_processes([int, int], 2)))
    else:
        with processes.beside(lambda tell: tell(1)) as done:
            while processes.multiprocessing.active_children():
                pass
        print(done)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("kind", "told"), [("sharing", "BrokenProcessPool"), ("beside", "[]")])
def test_a_signal_just_after_the_fork_ends_a_process_without_a_word(kind: str, told: str) -> None:
    command = [sys.executable, "-c", _STOPPED_WHEN_FORKED, kind]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (told, "")
