"""Assembling a manifest: the scan, corrected by what was really read, and where it lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.packing import ROWS
from tasks.catalog.runs import Run, sorted_sources
from tasks.formats.manifest import (
    PART,
    PARTS,
    SCHEMA,
    SHA256,
    TableWriter,
    batches,
    keys,
    read_table,
    shown,
    words,
)
from tasks.media import durable
from tasks.model.words import ScanSummary, SnapshotInfo, Trouble

_REREAD = ("size", "mtime", "ctime", "mode", "uid", "gid", "inode", "dev", "nlink")
_PLACED = pa.schema([*ROWS, ("parts", PARTS)])


def assemble(run: Run, scans: list[ScanSummary], path: str, *, complete: bool) -> SnapshotInfo:
    """Write the manifest of a run from the archives that are packed so far.

    A file whose content is not packed has no row; in a complete manifest it is a trouble. Memory
    does not grow with the entries.
    """
    request = run.request
    troubles = [t for scan in scans for t in scan.troubles] + run.troubles()
    packed = _Packed(run)
    carried = _Carried(run, request.previous)
    totals = _Totals()
    with durable.replacing(path) as draft, TableWriter(draft, SCHEMA) as writer:
        for rows in _assembled(run, packed, carried, totals):
            writer.write(rows)
        info = SnapshotInfo(
            snapshot=run.snapshot,
            profile=request.profile_name,
            time=request.started,
            previous=request.previous,
            complete=complete,
            entries=writer.count,
            files=totals.files,
            bytes=totals.bytes,
            roots=[scan.root for scan in scans],
            archives=sorted(totals.archives),
            troubles=troubles + (totals.lost(troubles) if complete else []),
        )
        writer.close(info)
    return info


class _Totals:
    """What is counted while the rows pass by."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.archives: set[str] = set()
        self.missing: list[str] = []
        self.failed: set[bytes] = set()

    def count(self, rows: pa.RecordBatch) -> None:
        is_file = pc.equal(words(rows.column("type")), "file")
        self.files += int(pc.sum(is_file).as_py() or 0)
        self.bytes += int(pc.sum(rows.column("size").filter(is_file)).as_py() or 0)
        parts = pc.list_flatten(rows.column("parts"))
        self.archives.update(a for a in pc.unique(parts.field("archive")).to_pylist() if a)

    def lost(self, known: list[Trouble]) -> list[Trouble]:
        """Return troubles for files without content that no packer has complained of."""
        paths = {trouble.path for trouble in known}
        reason = "Its content changed while a copy of it was packed"
        return [Trouble(path=p, reason=reason) for p in self.missing if p not in paths]


def _assembled(
    run: Run, packed: _Packed, carried: _Carried, totals: _Totals
) -> Iterator[pa.RecordBatch]:
    base = 0
    carries = _rebatched(batches(run.path("carry.parquet")))
    for scan in _scans(run):
        carry = integers_or(carries(scan.num_rows), -1)
        content = packed.rows(base, base + scan.num_rows)
        whole = _with_content(scan, base, carry, content, carried)
        for rows in carried.between(whole, base, base + scan.num_rows):
            kept = _drop_missing(rows, totals)
            totals.count(kept)
            yield kept
        base += scan.num_rows
    for rows in carried.after(base):
        totals.count(rows)
        yield rows


def _scans(run: Run) -> Iterator[pa.RecordBatch]:
    names = sorted_sources(run.request)
    return itertools.chain.from_iterable(batches(run.scan_path(name)) for name in names)


def _with_content(
    scan: pa.RecordBatch, base: int, carry: Any, content: pa.Table, carried: _Carried
) -> pa.RecordBatch:
    """Fill in digests and parts, and what the packer found other than the scan had."""
    count = scan.num_rows
    columns = dict(zip(scan.schema.names, scan.columns, strict=True))
    read = np.full(count, -1, np.int64)
    read[content.column("row").to_numpy() - base] = np.arange(content.num_rows)
    is_read = read >= 0
    taken = content.take(pa.array(read, mask=~is_read)).combine_chunks()
    if is_read.any():
        flags = pa.array(is_read)
        for name in _REREAD:
            columns[name] = pc.if_else(flags, _one(taken.column(name)), columns[name])
    old = carried.contents(np.where(is_read, -1, carry))
    for name in ("sha256", "parts"):
        columns[name] = _pick(is_read, _one(taken.column(name)), old.column(name))
    return pa.record_batch([columns[f.name] for f in SCHEMA], schema=SCHEMA)


def _pick(choose: Any, left: pa.Array, right: pa.Array) -> pa.Array:
    """Choose row by row; Arrow's if_else does not take lists of structs everywhere."""
    if choose.all():
        return left
    if not choose.any():
        return right
    both = pa.concat_arrays([left, right])
    places = np.arange(len(choose))
    return both.take(pa.array(np.where(choose, places, places + len(choose))))


def _one(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)


def _drop_missing(rows: pa.RecordBatch, totals: _Totals) -> pa.RecordBatch:
    """Drop files whose content is nowhere, and hard links to them."""
    kinds = words(rows.column("type"))
    missing = pc.and_(pc.equal(kinds, "file"), rows.column("sha256").is_null())
    if pc.any(missing).as_py():
        totals.failed.update(keys(rows.filter(missing)).to_pylist())
        totals.missing += shown(rows.filter(missing))
    if totals.failed:
        sources = words(rows.column("source")).cast(pa.binary())
        targets = pc.binary_join_element_wise(sources, rows.column("link_target"), b"/")
        dangling = pc.and_(
            pc.equal(kinds, "hardlink"), pc.is_in(targets, pa.array(list(totals.failed)))
        )
        missing = pc.or_(missing, dangling)
    return rows.filter(pc.invert(missing)) if pc.any(missing).as_py() else rows


class _Packed:
    """The files that were read in this run, with the parts of their content, in row order."""

    def __init__(self, run: Run) -> None:
        self._files = [
            (run.path("packed", f"{p.number}.rows.parquet"), contents)
            for p in run.packed()
            for contents in [run.path("packed", f"{p.number}.contents.parquet")]
        ]
        self._found = _Elsewhere(run, [contents for _, contents in self._files])
        for rows, _ in self._files:
            self._found.want(read_table(rows, ["sha256", "content", "recipe", "size"]))
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
        """Yield tables in row order: bundles follow each other, archives in one may interleave."""
        for _, group in itertools.groupby(self._files, key=lambda pair: _bundle(pair[0])):
            tables = [self._placed(rows, contents) for rows, contents in group]
            table = pa.concat_tables(tables).sort_by("row")
            if table.num_rows:
                yield table.filter(pc.is_valid(table.column("parts"))).cast(_PLACED)

    def _placed(self, rows_path: str, contents_path: str) -> pa.Table:
        rows, contents = read_table(rows_path), read_table(contents_path)
        here = parts_of(contents, rows.column("content"))
        return rows.append_column("parts", self._found.fill(rows, here))


def _bundle(path: str) -> str:
    return path.rpartition("/")[2][:4]


def parts_of(contents: pa.Table, index: pa.ChunkedArray) -> pa.Array:
    """Return the parts of the contents with the given numbers; null where the number is."""
    taken = contents.take(index).combine_chunks()
    single = part_array(taken)
    valid = _one(index).is_valid().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(valid)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        pa.array(ends), single.filter(pa.array(valid)), type=PARTS, mask=pa.array(~valid)
    )
    sparse = _one(taken.column("parts"))
    if sparse.null_count == len(sparse):
        return lists
    return _pick(~sparse.is_valid().to_numpy(zero_copy_only=False), lists, sparse)


def part_array(contents: pa.Table) -> pa.Array:
    """Wrap contents that lie in one piece as parts; the member is still to be named."""
    columns = [
        _one(contents.column("archive")),
        pa.nulls(contents.num_rows, pa.string()),
        *(_one(contents.column(name)) for name in ("frame", "skip", "length", "sha256")),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(PART))


class _Elsewhere:
    """Contents that a row names by hash only: duplicates, and the chunks of large files."""

    def __init__(self, run: Run, contents: list[str]) -> None:
        stored = [] if run.request.full else run.store.stored_snapshots()
        self._files = [*contents, *(run.store.contents_path(s) for s in stored)]
        self._alive = pa.array(
            [p.archive for p in run.packed()]
            + [a.archive for a in run.store.archives() if a.state == "stored"],
            pa.string(),
        )
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
        if not self._wanted:
            return
        wanted = pa.array(sorted(self._wanted), SHA256)
        for file in self._files:
            for batch in batches(file):
                hit = pc.and_(
                    pc.is_in(batch.column("sha256"), wanted),
                    pc.is_in(batch.column("archive"), self._alive),
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
        flags = _one(missing).to_numpy(zero_copy_only=False)
        places = np.where(flags, np.cumsum(flags) - 1, 0)
        return _pick(~flags, here, pa.array(filled, PARTS).take(pa.array(places)))

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


class _Carried:
    """Rows of the previous manifest whose content, or which themselves, are taken over."""

    def __init__(self, run: Run, previous: str | None) -> None:
        self._path = run.store.manifest_path(previous) if previous else None
        self._moved = self._gather(list(_moved_rows(run)))
        kept = read_table(run.path("kept.parquet")).to_pylist()
        self._kept_at = [row["row"] for row in kept]
        self._kept = self._rows([row["old_row"] for row in kept])
        self._next_kept = 0
        self._window = _Window(self._path)

    def _gather(self, old_rows: list[int]) -> dict[int, pa.RecordBatch]:
        rows = sorted(set(old_rows))
        return dict(zip(rows, self._rows(rows), strict=True))

    def _rows(self, old_rows: Iterable[int]) -> list[pa.RecordBatch]:
        """Read some rows of the previous manifest, given in rising order, one batch each."""
        wanted, base = list(old_rows), 0
        found: list[pa.RecordBatch] = []
        if self._path and wanted:
            for batch in batches(self._path):
                while len(found) < len(wanted) and wanted[len(found)] < base + batch.num_rows:
                    found.append(batch.slice(wanted[len(found)] - base, 1))
                base += batch.num_rows
        return found

    def contents(self, carry: Any) -> pa.RecordBatch:
        """Return digest and parts for every row of `carry`: an old row number, or -1."""
        pieces = [_no_content()]
        index = np.zeros(len(carry), np.int64)
        straight = np.array([c >= 0 and c not in self._moved for c in carry.tolist()], bool)
        if straight.any():
            table, base = self._window.rows(int(carry[straight].min()), int(carry[straight].max()))
            index[straight] = carry[straight] - base + 1
            pieces += table
        total = sum(piece.num_rows for piece in pieces)
        for place in np.flatnonzero((carry >= 0) & ~straight):
            pieces.append(_renamed(self._moved[int(carry[place])]))
            index[place] = total
            total += 1
        table = pa.Table.from_batches([_content(piece) for piece in pieces]).combine_chunks()
        return table.take(pa.array(index)).to_batches()[0]

    def between(self, rows: pa.RecordBatch, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield a batch of rows with the kept ones that belong between them."""
        done = 0
        while self._next_kept < len(self._kept) and self._kept_at[self._next_kept] < stop:
            place = self._kept_at[self._next_kept] - start
            if place > done:
                yield rows.slice(done, place - done)
                done = place
            yield self._kept[self._next_kept]
            self._next_kept += 1
        if done < rows.num_rows:
            yield rows.slice(done)

    def after(self, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the kept rows that come last."""
        yield from self._kept[self._next_kept :]
        self._next_kept = len(self._kept)


class _Window:
    """A stretch of the previous manifest, which only moves forward."""

    def __init__(self, path: str | None) -> None:
        self._stream = batches(path, ["sha256", "parts"]) if path else iter(())
        self._held: list[pa.RecordBatch] = []
        self._base = 0
        self._end = 0

    def rows(self, first: int, last: int) -> tuple[list[pa.RecordBatch], int]:
        """Return batches that cover the rows first..last, and the number of their first row."""
        while self._end <= last:
            batch = next(self._stream)
            self._held.append(batch)
            self._end += batch.num_rows
        while self._held and self._base + self._held[0].num_rows <= first:
            self._base += self._held.pop(0).num_rows
        return self._held, self._base


_CONTENT = pa.schema([SCHEMA.field("sha256"), SCHEMA.field("parts")])


def _no_content() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"sha256": None, "parts": None}], schema=_CONTENT)


def _content(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [rows.column("sha256"), rows.column("parts")]
    return pa.record_batch(columns, schema=_CONTENT)


def _renamed(old: pa.RecordBatch) -> pa.RecordBatch:
    """Name the members of a moved file: they still have the old path."""
    parts = old.column("parts")[0].as_py()
    named = parts if parts is None else name_members(parts, keys(old)[0].as_py())
    columns = [old.column("sha256"), pa.array([named], PARTS)]
    return pa.record_batch(columns, schema=_CONTENT)


def name_members(parts: list[dict[str, Any]], member: bytes) -> list[dict[str, Any]]:
    """Write out the member's name where it was left out for being equal to the path."""
    name = member.decode("utf-8", "replace")
    return [
        {**part, "member": name} if part.get("archive") and not part.get("member") else part
        for part in parts
    ]


def _moved_rows(run: Run) -> Iterator[int]:
    for batch in batches(run.path("changes.parquet"), ["change", "old_row"]):
        moved = batch.filter(pc.equal(words(batch.column("change")), "moved"))
        yield from moved.column("old_row").to_pylist()


def integers_or(column: pa.Array, default: int) -> Any:
    """Return a column of integers as numpy, with a value for nulls."""
    return pc.fill_null(column, default).to_numpy(zero_copy_only=False)


def _rebatched(stream: Iterator[pa.RecordBatch]) -> Any:
    """Return a function that takes the next n values of a one-column stream."""
    held: list[pa.Array] = []

    def take(count: int) -> pa.Array:
        while sum(map(len, held)) < count:
            held.append(next(stream).column(0))
        whole = pa.concat_arrays(held) if held else pa.array([], pa.int64())
        held[:] = [whole.slice(count)]
        return whole.slice(0, count)

    return take
