"""Reading back what was written, from the medium and not from the page cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tasks.media.cartridge import LABEL, Cartridge

_PIECE = 4 << 20
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a read-back has found: files read, bytes read, and the names of damaged files."""

    archives: int
    bytes: int
    damaged: list[str]


def expected_sums(cartridge: Cartridge) -> dict[str, str]:
    """Return what every file should be: the journal's word for archives, SHA256SUMS for the rest.

    A cartridge that was written to and not sealed since, because its run goes on, has sums that are
    older than its catalog; its archives and its label are judged all the same.
    """
    archives = {line.archive: line.sha256 for line in cartridge.journal()}
    sums = cartridge.sums()
    if not archives.keys() <= sums.keys():
        sums = {n: d for n, d in sums.items() if n == LABEL or n.startswith("archives/")}
    return {**sums, **archives}


def read_back(
    cartridge: Cartridge, sums: Mapping[str, str], seen: Callable[[int], None]
) -> Verdict:
    """Hash the named files as the medium has them, and compare; `seen` counts bytes read."""
    names = sorted(sums)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _digest(cartridge.file(name), seen), names))
    damaged = [name for name, (digest, _) in zip(names, found, strict=True) if digest != sums[name]]
    archives = sum(name.startswith("archives/") for name in names)
    return Verdict(archives, sum(size for _, size in found), damaged)


def _digest(path: str, seen: Callable[[int], None]) -> tuple[str, int]:
    """Return a file's SHA-256 and size; no digest at all where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return "", 0
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while piece := os.read(fd, _PIECE):
            digest.update(piece)
            size += len(piece)
            seen(len(piece))
    except OSError:
        return "", size
    finally:
        os.close(fd)
    return digest.hexdigest(), size
