"""Cutting large contents at boundaries that the content itself defines (FastCDC).

Source: Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
Deduplication", USENIX ATC 2016; the cutting is done by the library `fastcdc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tasks.model.words import Cutting

_WINDOW = 32 << 20


def cut(read: Callable[[int], bytes], cutting: Cutting) -> Iterator[memoryview]:
    """Yield the chunks of a stream, in order; `read(n)` returns up to n bytes, b"" at the end.

    The cuts depend on the bytes alone, not on how the stream was read.
    """
    from fastcdc import fastcdc  # brings a command line of its own along

    window = b""
    ended = False
    while not ended or window:
        while not ended and len(window) < _WINDOW:
            piece = read(_WINDOW)
            ended = not piece
            window += piece
        view = memoryview(window)
        start = 0
        for chunk in fastcdc(view, cutting.minimum, cutting.average, cutting.maximum):
            if not ended and len(window) - start < cutting.maximum:
                break  # what follows could move this cut: look again with more of the stream
            yield view[start : start + chunk.length]
            start += chunk.length
        window = window[start:]


def cutting_for(split_size: int, smallest_capacity: int | None, archive_size: int) -> Cutting:
    """Choose where to cut: 4 MiB on average, less where the smallest cartridge asks for it.

    It depends on the set, hardly ever on the run, or equal content would be cut in other places.
    """
    average = 4 << 20
    while smallest_capacity is not None and average > 1 << 14 and average * 256 > smallest_capacity:
        average >>= 1
    split = max(min(split_size, archive_size), average * 2)
    return Cutting(split_size=split, minimum=average // 4, average=average, maximum=average * 2)
