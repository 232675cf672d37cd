"""A folder mounted once more as a slow volume.

`python -m tests.bench.slowvolume FOLDER MOUNT RATE LOG` serves it until it is unmounted. Writing
takes as long as a medium of RATE bytes a second would need, and no longer: as disks do, it takes a
little ahead, which a flush waits for. In the end LOG has the seconds that the medium was busy, and
those from its first write to its last.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mfusepy

_STAT = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_blocks", "st_dev", "st_ino")
_TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_PATIENCE = 10.0  # seconds until a mount is there
_CACHE = 1 << 20  # bytes that the medium takes ahead


class _SlowVolume(mfusepy.Operations):  # type: ignore[misc]
    """All calls go to the folder below; writes wait for the medium."""

    use_ns = True

    def __init__(self, folder: str, rate: float, log: str) -> None:
        self._folder, self._rate, self._log = folder, rate, log
        self._first = self._free = 0.0
        self._busy = 0.0

    def _at(self, path: str) -> str:
        return self._folder + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        facts = os.lstat(self._at(path))
        times = {name.removesuffix("_ns"): getattr(facts, name) for name in _TIMES}
        return {name: getattr(facts, name) for name in _STAT} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        begun = time.monotonic()
        self._first = self._first or begun
        needed = len(data) / self._rate
        self._free = max(self._free, begun) + needed
        self._busy += needed
        self._wait(_CACHE / self._rate)
        return os.pwrite(fh, data, offset)

    def _wait(self, ahead: float = 0.0) -> None:
        """Wait until the medium is at most so many seconds behind."""
        time.sleep(max(0.0, self._free - ahead - time.monotonic()))

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path), length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        """Wait for the medium that this one pretends to be; the disk behind it does not matter."""
        self._wait()

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def statfs(self, path: str) -> dict[str, int]:
        facts = os.statvfs(self._at(path))
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree")
        return {name: getattr(facts, name) for name in names}

    def destroy(self, path: str) -> None:
        facts = {"busy": self._busy, "span": self._free - self._first}
        Path(self._log).write_text(json.dumps(facts))


@contextlib.contextmanager
def slow_volume(folder: Path, mount: Path, rate: float, log: Path) -> Iterator[None]:
    """Mount `folder` at `mount` while the block runs; it takes `rate` bytes a second."""
    words = [sys.executable, "-m", "tests.bench.slowvolume", folder, mount, rate, log]
    with subprocess.Popen([str(word) for word in words]) as server:
        try:
            deadline = time.monotonic() + _PATIENCE
            while not os.path.ismount(mount):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the slow volume cannot be mounted: is FUSE installed?")
                time.sleep(0.05)
            yield
        finally:
            subprocess.run(["umount", str(mount)], check=False)
            server.wait(_PATIENCE)


if __name__ == "__main__":
    _, _folder, _mount, _rate, _log = sys.argv
    volume = _SlowVolume(os.path.realpath(_folder), float(_rate), _log)
    mfusepy.FUSE(volume, _mount, foreground=True, nothreads=True, big_writes=True)
