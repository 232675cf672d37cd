"""SQL over the catalog, read-only: DuckDB sees the catalog's tables, and no other file."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.catalog.queries import times
from tasks.catalog.store import ARCHIVES, CARTRIDGES, LOST, Store
from tasks.formats.manifest import SCHEMA, TableWriter
from tasks.model.errors import FormatDamaged, SnapshotMissing, UsageError
from tasks.model.words import SnapshotInfo

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY = "1GiB"
_THREADS = 4
_PAGE = 1 << 12
_SNAPSHOTS = pa.schema(
    [
        *(("id", pa.string()), ("time", pa.timestamp("s", "UTC"))),
        *((name, pa.int64()) for name in ("entries", "files", "bytes", "unreadable")),
    ]
)
_CARTRIDGES = pa.schema([*CARTRIDGES, ("archives", pa.int64())])
_VIEWS = f"""
create view _rows as select *, parse_filename(filename, true) as snapshot
    from read_parquet({{manifests}}, filename = true);
create view entries as select snapshot, source, path, "type", size,
    cast(mtime as timestamp_ns) as mtime, cast(ctime as timestamp_ns) as ctime,
    mode, uid, gid, "user" as user_name, "group" as group_name, inode, nlink,
    coalesce(try(decode(link_target)), cast(link_target as varchar)) as link_target,
    lower(hex(sha256)) as sha256,
    list_sort(list_distinct(list_transform(parts, lambda part: part.archive))) as archives,
    raw_path from _rows;
create view parts as select snapshot, source, path, part.archive as archive,
    case when state <> '{LOST}' then cartridge end as cartridge,
    part.length as bytes, lower(hex(part.sha256)) as sha256
    from (select snapshot, source, path, unnest(parts) as part from _rows)
    left join (select archive as name, cartridge, state from archives) on name = part.archive
    where part.archive is not null;
"""
# In this order: what comes last can undo nothing of what comes before.
_SETTINGS = """
set memory_limit = '{memory}'; set threads = {threads}; set temp_directory = '{spill}';
set timezone = 'UTC'; set enable_progress_bar = false;
set python_enable_replacements = false;
set autoinstall_known_extensions = false; set autoload_known_extensions = false;
set allow_community_extensions = false;
set allowed_paths = {manifests}; set enable_external_access = false;
set lock_configuration = true;
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gives: the names of its columns, and pages of its rows.

    Values are what JSON has: times as ISO 8601, bytes in base64, what is no number as null.
    """

    columns: list[str]
    pages: Iterator[list[list[Any]]]


@contextlib.contextmanager
def asking(store: Store, profile: str, sql: str) -> Iterator[Answer]:
    """Run one SELECT over the catalog; the answer comes as it is read, in bounded memory.

    Raises UsageError for a mistake in it or anything that it may not do, SnapshotMissing where a
    snapshot is pruned meanwhile, and FormatDamaged where the catalog is.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="cartridge-") as spill:
        known = _known(store)
        with _catalog(store, [info.snapshot for info in known], spill) as manifests:
            connection = duckdb.connect(":memory:")
            try:
                _fill(connection, store, known, manifests)
                _lock_up(connection, manifests, spill)
                told = partial(_told, store, profile, known)
                with ThreadPoolExecutor(1) as pool:
                    patient = _Patient(connection, pool, told)
                    reader = patient.result(lambda: _run(connection, sql))
                    yield Answer(reader.schema.names, _pages(reader, patient))
            finally:
                connection.close()


@dataclass(frozen=True, slots=True)
class _Patient:
    """Waits for what a thread does: signals are heard meanwhile, which DuckDB itself is deaf to."""

    connection: DuckDBPyConnection
    pool: ThreadPoolExecutor
    told: Callable[[], contextlib.AbstractContextManager[None]]

    def result(self, work: Callable[[], Any]) -> Any:
        future = self.pool.submit(work)
        try:
            with self.told():
                return future.result()
        except KeyboardInterrupt:
            self.connection.interrupt()
            raise


def _known(store: Store) -> list[SnapshotInfo]:
    """Return all snapshots but those that are pruned this very moment."""
    found = []
    for snapshot in store.snapshots():
        with contextlib.suppress(FileNotFoundError):
            found.append(store.info(snapshot))
    return found


@contextlib.contextmanager
def _catalog(store: Store, snapshots: list[str], spill: str) -> Iterator[list[str]]:
    """Give names of the manifests, and of an empty one, in which nothing reads as a pattern."""
    with TableWriter(os.path.join(spill, "none.parquet"), SCHEMA) as writer:
        writer.close()
    folder = os.path.dirname(store.manifest_path("any"))
    with contextlib.ExitStack() as stack:
        names = []
        for place, files in ((spill, ["none"]), (folder, snapshots)):
            if files:
                fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                names += [f"/proc/self/fd/{fd}/{name}.parquet" for name in files]
        yield names


def _fill(
    connection: DuckDBPyConnection, store: Store, known: list[SnapshotInfo], manifests: list[str]
) -> None:
    """Make the tables, which are small, and the views over the manifests."""
    archives = store.archives()
    counts = Counter(row.cartridge for row in archives)
    cartridges = [{**asdict(row), "archives": counts[row.serial]} for row in store.cartridges()]
    for name, schema, rows in (
        ("snapshots", _SNAPSHOTS, list(map(_facts, known))),
        ("archives", ARCHIVES, list(map(asdict, archives))),
        ("cartridges", _CARTRIDGES, cartridges),
    ):
        connection.from_arrow(pa.Table.from_pylist(rows, schema)).create(name)
    connection.execute(_VIEWS.format(manifests=manifests))


def _facts(info: SnapshotInfo) -> dict[str, Any]:
    return {
        "id": info.snapshot,
        "time": datetime.fromisoformat(info.time),
        "entries": info.entries,
        "files": info.files,
        "bytes": info.bytes,
        "unreadable": len(info.troubles),
    }


def _lock_up(connection: DuckDBPyConnection, manifests: list[str], spill: str) -> None:
    """From here on it reads the manifests, writes what it spills, and does nothing else."""
    quoted = spill.replace("'", "''")
    threads = min(os.cpu_count() or 1, _THREADS)
    settings = _SETTINGS.format(memory=_MEMORY, threads=threads, spill=quoted, manifests=manifests)
    connection.execute(settings)


def _run(connection: DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """Let nothing but one SELECT through: the paths that may be read might be written, too."""
    kinds = [statement.type.name for statement in connection.extract_statements(sql)]
    if kinds != ["SELECT"]:
        raise UsageError(reason="A query is one SELECT, and changes nothing.")
    return connection.sql(sql).to_arrow_reader(_PAGE)


def _pages(reader: pa.RecordBatchReader, patient: _Patient) -> Iterator[list[list[Any]]]:
    while (page := patient.result(lambda: _page(next(reader, None)))) is not None:
        yield page


def _page(batch: pa.RecordBatch | None) -> list[list[Any]] | None:
    columns = None if batch is None else map(_plain, batch.columns)
    return None if columns is None else [list(row) for row in zip(*columns, strict=True)]


@contextlib.contextmanager
def _told(store: Store, profile: str, known: list[SnapshotInfo]) -> Iterator[None]:
    """Turn what DuckDB has to say into a sentence."""
    import duckdb

    try:
        yield
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        gone = {info.snapshot for info in known} - set(store.snapshots())
        if gone:
            wanted = f"{min(gone)} any more, it was pruned meanwhile: run the query again"
            raise SnapshotMissing(profile=profile, wanted=wanted) from error
        reason = " ".join(str(error).split("\n\nLINE ")[0].split())
        if isinstance(error, duckdb.IOException):
            raise FormatDamaged(file="The catalog", reason=reason.rstrip(".")) from error
        raise UsageError(reason=f"SQL: {reason}") from error


def _plain(column: pa.Array) -> list[Any]:
    """Return a column as JSON has it; Python itself has no nanoseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        exact = column.drop_null().cast(pa.timestamp("ns", kind.tz))
        written = iter(times(exact))
        return [next(written) if valid else None for valid in column.is_valid().to_pylist()]
    if pa.types.is_list(kind):
        return [_plain(row.values) if row.is_valid else None for row in column]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        fields = zip(*(_plain(column.field(name)) for name in names), strict=True)
        rows = (dict(zip(names, values, strict=True)) for values in fields)
        return [
            row if valid else None
            for row, valid in zip(rows, column.is_valid().to_pylist(), strict=True)
        ]
    return list(map(_of_value, column.to_pylist()))


def _of_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return list(map(_of_value, value))
    return str(value)
