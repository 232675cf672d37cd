"""Where the contents of this run's files lie: packed beside them, or stored elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.contents import CONTENTS
from tasks.catalog.packing import ROWS
from tasks.catalog.placement import trusted_archives
from tasks.catalog.relisted import stored_by
from tasks.catalog.rowgroups import ahead
from tasks.catalog.runs import Run
from tasks.catalog.store import STORED
from tasks.formats.columns import one, pick
from tasks.formats.manifest import PART, PARTS, SHA256, batches, read_table

_PLACED = pa.schema([*ROWS, ("parts", PARTS)])
# What says where a content lies; not the metadata of its member.
_PLACES = [name for name in CONTENTS.names if name != "mark"]


class Packed:
    """The files that were read in this run, with the parts of their content, in row order."""

    def __init__(self, run: Run) -> None:
        self._files = [
            (run.path("packed", f"{p.number}.rows.parquet"), contents)
            for p in run.packed()
            for contents in [run.path("packed", f"{p.number}.contents.parquet")]
        ]
        self._found = _Elsewhere(run, [contents for _, contents in self._files])
        for rows in ahead(_read_needed, [rows for rows, _ in self._files], threads=1):
            self._found.want(rows)
        self._found.search()
        self._stream = self._tables()
        self._waiting: pa.Table | None = next(self._stream, None)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return the files among the rows [start, stop); calls come in rising order."""
        pieces = [_PLACED.empty_table()]
        while self._waiting is not None and self._waiting.num_rows:
            numbers = self._waiting.column("row").to_numpy()
            count = int(np.searchsorted(numbers, stop))
            pieces.append(self._waiting.slice(0, count))
            self._waiting = self._waiting.slice(count)
            if self._waiting.num_rows:
                break
            self._waiting = next(self._stream, None)
        return pa.concat_tables(pieces)

    def _tables(self) -> Iterator[pa.Table]:
        """Yield tables in row order: bundles follow each other; a thread makes the next one."""
        groups = itertools.groupby(self._files, key=lambda pair: _bundle(pair[0]))
        bundles = [list(group) for _, group in groups]
        return (found for found in ahead(self._table, bundles, threads=1) if found.num_rows)

    def _table(self, files: list[tuple[str, str]]) -> pa.Table:
        """Return the rows of one bundle in order: its archives may interleave."""
        table = pa.concat_tables([self._placed(*pair) for pair in files]).sort_by("row")
        return table.filter(pc.is_valid(table.column("parts"))).cast(_PLACED)

    def _placed(self, rows_path: str, contents_path: str) -> pa.Table:
        rows, contents = read_table(rows_path), read_table(contents_path)
        here = parts_of(contents, rows.column("content"))
        return rows.append_column("parts", self._found.fill(rows, here))


def _read_needed(path: str) -> pa.Table:
    return read_table(path, ["sha256", "content", "recipe", "size"])


def _bundle(path: str) -> str:
    return path.rpartition("/")[2][:4]


def parts_of(contents: pa.Table, index: pa.ChunkedArray) -> pa.Array:
    """Return the parts of the contents with the given numbers; null where the number is."""
    taken = contents.take(index).combine_chunks()
    single = part_array(taken)
    valid = one(index).is_valid().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(valid)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        pa.array(ends), single.filter(pa.array(valid)), type=PARTS, mask=pa.array(~valid)
    )
    sparse = one(taken.column("parts"))
    if sparse.null_count == len(sparse):
        return lists
    return pick(~sparse.is_valid().to_numpy(zero_copy_only=False), lists, sparse)


def part_array(contents: pa.Table) -> pa.Array:
    """Wrap contents that lie in one piece as parts; the member is still to be named."""
    columns = [
        one(contents.column("archive")),
        pa.nulls(contents.num_rows, pa.string()),
        *(one(contents.column(name)) for name in ("frame", "skip", "length", "sha256")),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(PART))


class _Elsewhere:
    """Contents that a row names by hash only: duplicates, and the chunks of large files."""

    def __init__(self, run: Run, contents: list[str]) -> None:
        stored = [] if run.request.full else run.store.stored_snapshots()
        # The newest copy is the one to refer to: a full backup begins a series of its own.
        self._lists = [partial(batches, path) for path in contents]
        self._lists += [partial(stored_by, run.store, s, _PLACES) for s in reversed(stored)]
        mine = {p.archive for p in run.packed()}
        there = {a.archive for a in run.store.archives() if a.state == STORED}
        # Those of a cartridge that failed only where there is no other.
        self._alive = [mine | trusted_archives(run.store), mine | there]
        self._wanted: set[bytes] = set()
        self._parts: dict[bytes, list[dict[str, Any]]] = {}

    def want(self, rows: pa.Table) -> None:
        """Note what the rows of one archive do not have with them."""
        for row in _without_content(rows):
            if row["recipe"] is not None:
                self._wanted.update(p["sha256"] for p in row["recipe"] if p["sha256"])
            elif row["size"]:
                self._wanted.add(row["sha256"])

    def search(self) -> None:
        """Look all wanted contents up; an archive that is no more does not count."""
        wanted = pa.array(sorted(self._wanted), SHA256)
        for alive, contents in itertools.product(self._alive, self._lists):
            if len(self._parts) == len(wanted):
                return
            archives = pa.array(alive, pa.string())
            for batch in contents():
                hit = pc.and_(
                    pc.is_in(batch.column("sha256"), wanted),
                    pc.is_in(batch.column("archive"), archives),
                )
                found = pa.Table.from_batches([batch]).filter(hit)
                if found.num_rows:
                    parts = parts_of(found, pa.chunked_array([np.arange(found.num_rows)]))
                    self._note(found, parts.to_pylist())

    def _note(self, found: pa.Table, parts: list[list[dict[str, Any]]]) -> None:
        names = zip(found["sha256"].to_pylist(), found["member"].to_pylist(), parts, strict=True)
        for digest, member, value in names:
            self._parts.setdefault(digest, name_members(value, member))

    def fill(self, rows: pa.Table, here: pa.Array) -> pa.Array:
        """Complete the parts of rows whose content lies elsewhere."""
        missing = pc.is_null(rows.column("content"))
        if not pc.any(missing).as_py():
            return here
        filled = [self._of(row) for row in _without_content(rows)]
        flags = one(missing).to_numpy(zero_copy_only=False)
        places = np.where(flags, np.cumsum(flags) - 1, 0)
        return pick(~flags, here, pa.array(filled, PARTS).take(pa.array(places)))

    def _of(self, row: dict[str, Any]) -> list[dict[str, Any]] | None:
        if row["recipe"] is None:
            return [] if not row["size"] else self._parts.get(row["sha256"])
        parts: list[dict[str, Any]] = []
        for piece in row["recipe"]:
            if piece["sha256"] is None:
                parts.append({"length": piece["length"]})
            elif piece["sha256"] in self._parts:
                parts += self._parts[piece["sha256"]]
            else:
                return None
        return parts


def _without_content(rows: pa.Table) -> list[dict[str, Any]]:
    """Return what is needed of rows whose content is not beside them."""
    named = rows.select(["size", "sha256", "recipe"])
    found: list[dict[str, Any]] = named.filter(pc.is_null(rows.column("content"))).to_pylist()
    return found


def name_members(parts: list[dict[str, Any]], member: bytes) -> list[dict[str, Any]]:
    """Write out the member's name where it was left out for being equal to the path."""
    name = member.decode("utf-8", "replace")
    return [
        {**part, "member": name} if part.get("archive") and not part.get("member") else part
        for part in parts
    ]
