"""The program mounting snapshots, as a script meets it: it waits for one line, and unmounts."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.processes import Process, end_of, kill_all
from tests.helpers.program import Arg, Program


def can_mount() -> bool:
    return os.path.exists("/dev/fuse")


def may_everybody_mount() -> bool:
    return can_mount() and os.stat("/dev/fuse").st_mode & 0o006 == 0o006


def is_mounted(folder: Path) -> bool:
    """Whether the kernel has a mount there, dead or alive."""
    return f" {folder} " in Path("/proc/mounts").read_text("utf-8", "replace")


def start_mount(program: Program, name: str, folder: Path, *args: Arg) -> Process:
    """Start `cartridge mount` and wait until it says that it is ready."""
    folder.mkdir(exist_ok=True)
    process = program.start("mount", name, folder, *args)
    assert process.stdout is not None
    line = process.stdout.readline()
    if "mounted" not in line:
        code, out, err = end_of(process)
        raise AssertionError(f"mount ended with {code}: {line}{out}{err}")
    return process


def unmount(folder: Path) -> None:
    """Unmount as a user does."""
    tool = next(t for t in ("fusermount3", "fusermount") if has(t))
    subprocess.run([tool, "-u", folder], check=True, capture_output=True)


def has(tool: str) -> bool:
    return any(os.access(os.path.join(p, tool), os.X_OK) for p in os.environ["PATH"].split(":"))


@contextlib.contextmanager
def mounted(program: Program, name: str, folder: Path) -> Iterator[Process]:
    """Have snapshots mounted while the block runs; nothing is left behind, whatever happens."""
    process = start_mount(program, name, folder)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            kill_all(process)
        if is_mounted(folder):
            subprocess.run(["umount", "-l", folder], check=False)
            raise AssertionError("the mount was left behind")
