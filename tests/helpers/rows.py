"""Manifest rows made by hand, and what a manifest says, without the code that is tested."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.formats.manifest import SCHEMA, TableWriter

WHEN = 1_700_000_000_000_000_000
Row = dict[str, Any]


def row(path: bytes | str, kind: str = "file", *, source: str = "s", **facts: Any) -> Row:
    """One row as a scan would write it; `path` in bytes or text, times in nanoseconds."""
    raw = path if isinstance(path, bytes) else path.encode()
    shown = raw.decode("utf-8", "replace")
    fields: Row = {
        "source": source,
        "path": shown,
        "raw_path": None if shown.encode() == raw else raw,
        "type": kind,
        "size": 0,
        "mtime": WHEN,
        "ctime": WHEN,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "user": "",
        "group": "",
        "inode": 1,
        "dev": 1,
        "nlink": 1,
        "link_target": None,
        "rdev": None,
        "xattrs": None,
        "sha256": None,
        "parts": None,
    }
    return {**fields, **facts}


def raw_path(of: Row) -> bytes:
    """The exact path of a row."""
    exact = of["raw_path"]
    return exact if exact is not None else of["path"].encode()


def key(of: Row) -> bytes:
    """What rows are sorted by: `<source>/<path>`, and a slash behind directories."""
    return of["source"].encode() + b"/" + raw_path(of) + b"/" * (of["type"] == "dir")


def batch(rows: Iterable[Row]) -> pa.RecordBatch:
    """Rows as Arrow has them."""
    given = list(rows)
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in given]
        if pa.types.is_dictionary(field.type):
            columns.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
        elif pa.types.is_timestamp(field.type):
            columns.append(pa.array(values, pa.int64()).view(field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.record_batch(columns, schema=SCHEMA)


def write(path: Path | str, rows: Iterable[Row], info: object = None) -> None:
    """Write a manifest of rows, in the order of their keys."""
    with TableWriter(str(path), SCHEMA) as writer:
        given = sorted(rows, key=key)
        if given:
            writer.write(batch(given))
        writer.close(info)


def read(path: Path | str) -> list[Row]:
    """Read any Parquet file with pyarrow alone; times come as nanoseconds."""
    table = pq.read_table(str(path), use_threads=False)
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            chunks = [chunk.view(pa.int64()) for chunk in table.column(number).chunks]
            table = table.set_column(number, field.name, pa.chunked_array(chunks, pa.int64()))
    found: list[Row] = table.to_pylist()
    return found
