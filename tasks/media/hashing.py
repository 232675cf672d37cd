"""Hashing files as fast as their medium gives them: one thread reads in order, others hash."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
) -> Iterator[tuple[str | None, int]]:
    """Yield SHA-256 and size of each file as the medium has it, whatever memory has of it.

    The files are read one after the other in the order given: tapes and disks are slow to change
    between two. The digest is None where a file cannot be read or is no regular one; `seen` is told
    the bytes of every piece.
    """
    free: _Buffers = SimpleQueue()
    pieces = large_buffer(_PIECE * _PIECES)
    for start in range(0, len(pieces), _PIECE):
        free.put(pieces[start : start + _PIECE])
    ends: deque[tuple[Future[str] | None, int]] = deque()
    with ExitStack() as stack:
        hashers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(_HASHERS)]
        for number, path in enumerate(paths):
            hasher, digest, size = hashers[number % _HASHERS], hashlib.sha256(), 0
            try:
                for piece, count in _pieces(path, free):
                    hasher.submit(_hash, digest, piece, count, free)
                    size += count
                    seen(count)
                ends.append((hasher.submit(digest.hexdigest), size))
            except (FormatDamaged, OSError):
                ends.append((None, size))
            if number:
                yield _end(*ends.popleft())  # that of the one before: the next is read meanwhile
        yield from (_end(*end) for end in ends)


def _end(digest: Future[str] | None, size: int) -> tuple[str | None, int]:
    return (digest.result() if digest else None), size


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
