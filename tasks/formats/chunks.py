"""Cutting large contents at boundaries that the content itself defines (FastCDC).

Source: Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
Deduplication", USENIX ATC 2016; the cutting is done by the library `fastcdc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tasks.formats.buffers import large_buffer
from tasks.model.words import Cutting

_WINDOW = 32 << 20


class Cutter:
    """Cuts one stream after the other: all pass through the same buffer."""

    def __init__(self, cutting: Cutting) -> None:
        self._cutting = cutting
        self._window = large_buffer(max(_WINDOW, 2 * cutting.maximum))

    def cut(self, read: Callable[[memoryview], int]) -> Iterator[memoryview]:
        """Yield the chunks of a stream, in order, each good until the next one is asked for.

        `read(buffer)` fills the front of a buffer and returns how many bytes, 0 at the end. The
        cuts depend on the bytes alone, not on how the stream was read.
        """
        from fastcdc import fastcdc  # brings a command line of its own along

        window, bounds = self._window, self._cutting
        filled = 0
        ended = False
        while not ended:
            while not ended and filled < len(window):
                count = read(window[filled:])
                ended = not count
                filled += count
            start = 0
            chunks = fastcdc(window[:filled], bounds.minimum, bounds.average, bounds.maximum)
            # Where less than the longest chunk is left, more of the stream could move the cut.
            while start < filled and (ended or filled - start >= bounds.maximum):
                length = next(chunks).length
                yield window[start : start + length]
                start += length
            window[: filled - start] = window[start:filled]
            filled -= start


def cutting_for(split_size: int, smallest_capacity: int | None, archive_size: int) -> Cutting:
    """Choose where to cut: 4 MiB on average, less where the smallest cartridge asks for it.

    It depends on the set, hardly ever on the run, or equal content would be cut in other places.
    """
    average = 4 << 20
    while smallest_capacity is not None and average > 1 << 14 and average * 256 > smallest_capacity:
        average >>= 1
    split = max(min(split_size, archive_size), average * 2)
    return Cutting(split_size=split, minimum=average // 4, average=average, maximum=average * 2)
