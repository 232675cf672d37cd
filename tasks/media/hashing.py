"""Hashing files as fast as their medium gives them: one thread reads in order, others hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

from tasks.formats.buffers import large_buffer
from tasks.media.untrusted import open_untrusted
from tasks.model.errors import FormatDamaged

_PIECE = 1 << 20
# Pieces that may be read and not hashed yet.
_PIECES = 32
# The pieces of one file have to be hashed one after the other, but those of the next meanwhile.
_HASHERS = 2

_Buffers = SimpleQueue[memoryview]


def digests_on_medium(
    paths: Iterable[str], seen: Callable[[int], None]
) -> list[tuple[str | None, int]]:
    """Return SHA-256 and size of each file as the medium has it, whatever memory has of it.

    The files are read one after the other in the order given: tapes and disks are slow to change
    between two. The digest is None where a file cannot be read or is no regular one; `seen` is told
    the bytes of every piece.
    """
    found: list[tuple[Any, int]] = []
    free: _Buffers = SimpleQueue()
    pieces = large_buffer(_PIECE * _PIECES)
    for start in range(0, len(pieces), _PIECE):
        free.put(pieces[start : start + _PIECE])
    with ExitStack() as stack:
        hashers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(_HASHERS)]
        for number, path in enumerate(paths):
            digest, size = hashlib.sha256(), 0
            try:
                for piece, count in _pieces(path, free):
                    hashers[number % _HASHERS].submit(_hash, digest, piece, count, free)
                    size += count
                    seen(count)
                found.append((digest, size))
            except (FormatDamaged, OSError):
                found.append((None, size))
    return [(digest and digest.hexdigest(), size) for digest, size in found]


def _pieces(path: str, free: _Buffers) -> Iterator[tuple[memoryview, int]]:
    """Read a file from its medium into free buffers; yield each with the bytes that are in it."""
    with open_untrusted(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        count = 1
        while count:
            piece, count = free.get(), 0
            try:
                count = file.readinto(piece)
            finally:
                if not count:
                    free.put(piece)
            if count:
                yield piece, count


def _hash(digest: Any, piece: memoryview, count: int, free: _Buffers) -> None:
    digest.update(piece[:count])
    free.put(piece)
