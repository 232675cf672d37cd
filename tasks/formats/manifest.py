"""Manifests: one Parquet row per entry of a snapshot, in path order, read as it is by any tool.

The order is that of the raw bytes of `<source>/<path>`, with `/` behind a directory's name. See
FORMAT.md for every column.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.formats.records import from_json, to_json
from tasks.model.errors import FormatDamaged, FormatUnsupported
from tasks.model.words import FORMAT_VERSION

# Arrow's own allocator takes fresh memory by the megabyte, and the system clears it each time: a
# tenth of a short run, and a third of its memory.
pa.set_memory_pool(pa.system_memory_pool())

ROWS = 1 << 16
_LARGEST_GROUP = 1 << 30
SHA256 = pa.binary(32)
WORD = pa.dictionary(pa.int32(), pa.string())
MOMENT = pa.timestamp("ns", tz="UTC")
# The ctime, in nanoseconds, of a file that never held still: no file has it, so that the next run
# reads it again.
RESTLESS = -1
PART = pa.struct(
    [
        ("archive", pa.string()),
        ("member", pa.string()),
        ("frame", pa.int64()),
        ("skip", pa.int64()),
        ("length", pa.int64()),
        ("sha256", SHA256),
    ]
)
PARTS = pa.list_(PART)
XATTRS = pa.map_(pa.string(), pa.binary())
SCHEMA = pa.schema(
    [
        ("source", WORD),
        ("path", pa.string()),
        ("raw_path", pa.binary()),
        ("type", WORD),
        ("size", pa.int64()),
        ("mtime", MOMENT),
        ("ctime", MOMENT),
        ("mode", pa.uint32()),
        ("uid", pa.uint32()),
        ("gid", pa.uint32()),
        ("user", WORD),
        ("group", WORD),
        ("inode", pa.uint64()),
        ("dev", pa.uint64()),
        ("nlink", pa.uint32()),
        ("link_target", pa.binary()),
        ("rdev", pa.uint64()),
        ("xattrs", XATTRS),
        ("sha256", SHA256),
        ("parts", PARTS),
    ]
)
_VERSION_KEY = b"cartridge.format_version"
_INFO_KEY = b"cartridge.info"
_DICTIONARY = [
    *("source", "type", "mode", "uid", "gid", "user", "group", "dev", "nlink", "rdev"),
    *("parts.list.element.archive", "parts.list.element.frame", "archive", "cartridge"),
    *("change", "reason", "snapshot", "state", "set"),
]
_DELTA = {
    "path": "DELTA_BYTE_ARRAY",
    **dict.fromkeys(
        ("size", "mtime", "ctime", "inode", "row", "old_row", "carry"), "DELTA_BINARY_PACKED"
    ),
    "parts.list.element.skip": "DELTA_BINARY_PACKED",
    "parts.list.element.length": "DELTA_BINARY_PACKED",
}


class TableWriter:
    """Write one Parquet file in row groups of `group` rows, whatever the pieces given.

    Facts that are known at the end only go into the footer as JSON through `close(info)`.
    """

    def __init__(self, path: str, schema: pa.Schema, group: int = ROWS) -> None:
        self._group = group
        self._schema = schema.with_metadata({_VERSION_KEY: str(FORMAT_VERSION)})
        leaves = set(_leaves(schema))
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=[name for name in _DICTIONARY if name in leaves],
            column_encoding={k: v for k, v in _DELTA.items() if k in leaves},
            write_page_checksum=True,
        )
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self.count = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of the file."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self.count += batch.num_rows
        if self._rows >= self._group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting).cast(self._schema)
            try:
                self._writer.write_table(table, row_group_size=self._group)
            except OSError:
                self._writer.is_open = False  # nor must it try to close what it could not write
                raise
        self._waiting, self._rows = [], 0

    def close(self, info: object = None) -> None:
        """Write what waits, and the footer."""
        self._flush()
        if info is not None:
            self._writer.add_key_value_metadata({_INFO_KEY: to_json(info).strip()})
        self._let_go()

    def _let_go(self) -> None:
        """Close the file; one that could not be closed must not try again when it is forgotten."""
        try:
            self._writer.close()
        finally:
            self._writer.is_open = False

    def __enter__(self) -> TableWriter:
        """Close the file when the block ends, whether or not it ended well."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let go of the file descriptor; closing twice is harmless."""
        if self._writer.is_open:
            with contextlib.suppress(*([OSError] if error else [])):
                self._let_go()


def open_table(path: str) -> pq.ParquetFile:
    """Open one of our Parquet files.

    Raises FormatUnsupported for a newer version and FormatDamaged for anything else.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        version = int((file.metadata.metadata or {})[_VERSION_KEY])
        _check_sizes(file.metadata)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FormatDamaged(file=path, reason=str(error).split("\n")[0]) from error
    if version > FORMAT_VERSION:
        raise FormatUnsupported(file=path, version=version, known=FORMAT_VERSION)
    return file


def _check_sizes(facts: pq.FileMetaData) -> None:
    """Raise ValueError where a row group would take far more memory than any that we write."""
    for number in range(facts.num_row_groups):
        group = facts.row_group(number)
        if group.num_rows > 2 * ROWS or group.total_byte_size > _LARGEST_GROUP:
            raise ValueError(f"row group {number} is larger than any that was ever written")


def read_info(path: str, kind: type[Any]) -> Any:
    """Read the footer's facts as a dataclass of `kind`."""
    text = (open_table(path).metadata.metadata or {}).get(_INFO_KEY)
    if text is None:
        raise FormatDamaged(file=path, reason="its footer says nothing of what it is")
    return from_json(kind, text, path)


def batches(path: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a file's rows in batches of at most 64 Ki; FormatDamaged where a page is bad."""
    file = open_table(path)
    try:
        for group in range(file.num_row_groups):  # one reader for all keeps megabytes of each
            yield from file.iter_batches(ROWS, [group], columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise FormatDamaged(file=path, reason=str(error).split("\n")[0]) from error


def rows_between(path: str, start: int, stop: int, count: int) -> Iterator[pa.RecordBatch]:
    """Stream the rows [start, stop) of a file, at most `count` at a time.

    Only the row groups that hold them are read.
    """
    file = open_table(path)
    first = 0
    for group in range(file.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if first < stop and last > start:
            at = first
            for batch in _row_group(file, group, path, count):
                low, high = max(start - at, 0), min(stop - at, batch.num_rows)
                at += batch.num_rows
                if low < high:
                    yield batch.slice(low, high - low)
        first = last


def _row_group(file: pq.ParquetFile, group: int, path: str, count: int) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(count, [group], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise FormatDamaged(file=path, reason=str(error).split("\n")[0]) from error


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """Read a small file whole."""
    file = open_table(path)
    try:
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise FormatDamaged(file=path, reason=str(error).split("\n")[0]) from error


def raw_paths(batch: pa.RecordBatch) -> pa.Array:
    """Return the exact path of every row, as bytes."""
    return pc.coalesce(batch.column("raw_path"), batch.column("path").cast(pa.binary()))


def words(column: pa.Array) -> pa.Array:
    """Decode a dictionary column, so that batches with other dictionaries compare."""
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def keys(batch: pa.RecordBatch) -> pa.Array:
    """Return `<source>/<path>`, with `/` behind directories, as bytes: the sort key."""
    is_dir = pc.equal(words(batch.column("type")), "dir")
    return pc.binary_join_element_wise(
        pc.binary_join_element_wise(
            words(batch.column("source")).cast(pa.binary()), raw_paths(batch), b"/"
        ),
        pc.if_else(is_dir, b"/", b""),
        b"",
    )


def integers(column: pa.Array) -> Any:
    """Return a column of integers or timestamps as numpy, nulls as 0."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, 0)
    return column.to_numpy(zero_copy_only=False)


def shown(batch: pa.RecordBatch) -> list[str]:
    """Return `<source>/<path>` of every row as text, with U+FFFD for what is not UTF-8."""
    return pc.binary_join_element_wise(  # type: ignore[no-any-return]
        words(batch.column("source")), batch.column("path"), "/"
    ).to_pylist()


def digests(joined: bytes) -> pa.Array:
    """Wrap SHA-256 digests that lie one behind the other as a column."""
    return pa.Array.from_buffers(SHA256, len(joined) // 32, [None, pa.py_buffer(joined)])


def digest_bytes(column: pa.Array) -> Any:
    """Return a column of SHA-256 digests, none of them null, as numpy: 32 bytes each."""
    joined = column.buffers()[1] if len(column) else b""
    return np.frombuffer(joined, "V32", len(column), 32 * column.offset)


def moments(nanoseconds: np.ndarray[Any, Any]) -> pa.Array:
    """Wrap int64 nanoseconds since 1970 as the timestamp column of a manifest."""
    return pa.array(nanoseconds, pa.int64()).view(MOMENT)


def attribute_key(name: str) -> str:
    """Return the key of an extended attribute; one that is not UTF-8 as NUL and hexadecimal.

    `name` comes from the operating system, which never has a NUL in it.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return "\0" + os.fsencode(name).hex()
    return name


def attribute_name(key: str) -> str:
    """Return the name of an attribute as the operating system takes it."""
    return os.fsdecode(bytes.fromhex(key[1:])) if key.startswith("\0") else key


def named_attributes(
    pairs: list[tuple[str, bytes]] | None,
) -> list[tuple[str, bytes]] | None:
    """Return the attributes of a row with their names as the operating system takes them."""
    return pairs and [(attribute_name(key), value) for key, value in pairs]


def _leaves(schema: pa.Schema) -> Iterator[str]:
    """Name the columns as Parquet does: lists and structs by the path to their leaves."""
    for column in schema:
        if column.type == PARTS:
            yield from (f"{column.name}.list.element.{part.name}" for part in PART)
        else:
            yield column.name
