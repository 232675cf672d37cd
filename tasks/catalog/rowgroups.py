"""Row groups of manifests: passed over where they cannot hold what is wanted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.manifest import ROWS, open_table
from tasks.model.errors import FormatDamaged

Item = TypeVar("Item")
Result = TypeVar("Result")

# The first and the last of the words in a column, by their bytes; None where nobody knows.
Bounds = tuple[str, str] | None
_THREADS = 4
# Rows that are read at a time where only some are wanted.
_STEP = 1 << 13
_FEW = 1000
_BEHIND_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a manifest, with the bounds of its sources and of its paths as shown.

    Rows are sorted by source and path together, and folders with a slash behind them: so the path
    column by itself is only nearly sorted, and nothing but its bounds may be relied upon.
    """

    manifest: str
    number: int
    sources: Bounds
    paths: Bounds

    def has_source(self, source: str) -> bool:
        """Whether rows of the source may be here."""
        return self.sources is None or self.sources[0] <= source <= self.sources[1]

    def has_at_or_below(self, path: str) -> bool:
        """Whether the path, or a path below it, may be here."""
        return self.has_between(path, path) or self.has_between(path + "/", path + _BEHIND_SLASH)

    def has_between(self, low: str, high: str) -> bool:
        """Whether a path from `low` to `high` may be here."""
        return self.paths is None or (self.paths[0] <= high and low <= self.paths[1])

    def among(self, paths: pa.Array) -> pa.Array:
        """Return those of the paths that may be here."""
        if self.paths is None:
            return paths
        low, high = self.paths
        within = pc.and_(pc.greater_equal(paths, low), pc.less_equal(paths, high))
        return paths.filter(within)

    def at(self, paths: pa.Array) -> Any:
        """Return the numbers of the rows that are shown as one of the paths.

        Where a path can be but one row, nothing is read behind the last of them.
        """
        is_one_source = self.sources is not None and self.sources[0] == self.sources[1]
        alike = pc.any(pc.match_substring(paths, "\N{REPLACEMENT CHARACTER}")).as_py()
        most = len(paths) if is_one_source and not alike else None
        found, start, count = [np.empty(0, np.int64)], 0, 0
        for batch in self._batches(_STEP if len(paths) < _FEW else ROWS, ["path"]):
            hits = pc.is_in(batch.column(0), paths).to_numpy(zero_copy_only=False)
            found.append(np.flatnonzero(hits) + start)
            start, count = start + batch.num_rows, count + len(found[-1])
            if count == most:
                break
        return np.concatenate(found)

    def read(self, columns: list[str]) -> pa.RecordBatch:
        """Read some columns; FormatDamaged where a page is bad. Threads may call this."""
        return _joined(list(self._batches(ROWS, columns)))

    def rows(self, index: Any, columns: list[str]) -> pa.RecordBatch:
        """Read some columns of the rows with the given numbers, which rise; no further than these.

        There has to be a number at least.
        """
        pieces, start = [], 0
        for batch in self._batches(_STEP, columns):
            low, high = np.searchsorted(index, [start, start + batch.num_rows])
            if high > low:
                pieces.append(batch.take(pa.array(index[low:high] - start)))
            start += batch.num_rows
            if high == len(index):
                break
        return _joined(pieces)

    def _batches(self, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        file = open_table(self.manifest)
        groups = [self.number]
        try:
            yield from file.iter_batches(rows, groups, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).split("\n")[0]
            raise FormatDamaged(file=self.manifest, reason=reason) from error


def _joined(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(pieces) == 1:
        return pieces[0]
    return pa.Table.from_batches(pieces).combine_chunks().to_batches()[0]


def row_groups(manifest: str) -> list[RowGroup]:
    """Return the row groups of a manifest, in order; only its footer is read."""
    facts = open_table(manifest).metadata
    names = facts.schema.names
    source, path = names.index("source"), names.index("path")
    groups = (facts.row_group(number) for number in range(facts.num_row_groups))
    return [
        RowGroup(manifest, number, _bounds(group.column(source)), _bounds(group.column(path)))
        for number, group in enumerate(groups)
        if group.num_rows
    ]


def stream(manifest: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of each row group; a thread reads the next one meanwhile."""
    return ahead(lambda group: group.read(columns), row_groups(manifest), threads=1)


def _bounds(column: Any) -> Bounds:
    statistics = column.statistics if column.is_stats_set else None
    if statistics is None or not statistics.has_min_max:
        return None
    return statistics.min, statistics.max


def rows_at(manifest: str, paths: pa.Array, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest that are shown as one of the paths, whatever their source."""
    ends = pc.min_max(paths)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    for group in row_groups(manifest) if len(paths) else ():
        here = group.among(paths) if group.has_between(low, high) else ()
        index = group.at(here) if len(here) else ()
        if len(index):
            yield group.rows(index, columns)


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = _THREADS
) -> Iterator[Result]:
    """Yield what becomes of each item, in order; threads work on the next few meanwhile."""
    threads = min(os.cpu_count() or 1, threads)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
