"""Memory for what passes through in megabytes: one buffer, filled again and again."""

from __future__ import annotations

import contextlib
import mmap


def large_buffer(size: int) -> memoryview:
    """Return `size` bytes that begin with a page, in large pages where the system has them.

    Filling a fresh object of Python takes the kernel several times as long: it clears page by page
    what it hands out, and fills one that begins in the middle of a page more slowly.
    """
    memory = mmap.mmap(-1, size)
    with contextlib.suppress(AttributeError, OSError):  # another system, or a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
