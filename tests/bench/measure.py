"""Running one command: how long it takes from start to exit, and how much memory at its peak."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

# Seconds between two looks at the memory, and before a command counts as hanging.
_PERIOD, LIMIT = 0.1, 3600.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a command went; `peak` is in bytes, and 0 where nobody looked."""

    seconds: float
    code: int
    peak: int


def run(
    command: str,
    env: Mapping[str, str],
    log: Path,
    memory: bool = False,
    limit: float = LIMIT,
) -> Run:
    """Run a command of the shell; what it prints goes to the end of the log.

    Its memory is looked at only where asked for: looking takes time from what is measured.
    """
    os.sync()  # what was written before is not this command's to wait for
    with log.open("ab") as out:
        out.write(f"$ {command}\n".encode())
        out.flush()
        began = time.perf_counter()
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        with _killed_after(process, limit), _watched(process, memory) as peak:
            code = process.wait()
            seconds = time.perf_counter() - began
    return Run(seconds=round(seconds, 4), code=code, peak=max(peak))


def read_all(folder: str) -> None:
    """Bring all files below a folder into the page cache."""
    command = f'tar -C "{folder}" -cf - . | cat > /dev/null'
    subprocess.run(["bash", "-c", command], check=False, stderr=subprocess.DEVNULL)


def fill_memory(file: Path, spare: int = 2 << 30) -> None:
    """Fill the memory that is free, but for so many bytes, with the cache of a sparse file.

    A virtual machine gives back memory that is free for long, and touching it again is slow: the
    same write takes several times as long as a minute before, whoever makes it.
    """
    piece = 1 << 20
    with file.open("a+b") as sparse:
        for place in range(max(0, psutil.virtual_memory().free - spare) // piece):
            sparse.truncate((place + 1) * piece)
            os.pread(sparse.fileno(), piece, place * piece)


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[bytes], limit: float) -> Iterator[None]:
    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes], wanted: bool) -> Iterator[list[int]]:
    """Note the memory of a process and all that it has started, while the block lasts."""
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(_PERIOD):
            seen.append(_share_of(process.pid))

    watcher = threading.Thread(target=look, daemon=True)
    if wanted:
        watcher.start()
    try:
        yield seen
    finally:
        over.set()
        if wanted:
            watcher.join()


def _share_of(pid: int) -> int:
    """Add up the proportional set sizes (PSS) of a process and its descendants, in bytes.

    Memory that processes share counts once, as it should.
    """
    total = 0
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total
