"""What snapshots stored, from their lists of contents, or from manifests where there is none.

A snapshot that stored most of what it has keeps no list: it would repeat the manifest. Cartridges
have no lists at all.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.catalog.contents import CONTENTS, marks
from tasks.catalog.store import Store
from tasks.formats.columns import one
from tasks.formats.manifest import (
    PARTS,
    ROWS,
    TableWriter,
    batches,
    digest_bytes,
    integers,
    keys,
    open_table,
)
from tasks.media import durable
from tasks.model.errors import FormatDamaged

# What of a manifest the columns of a list follow from; all of them from these two.
_ALWAYS = ["sha256", "parts"]
_NAMES = ["source", "path", "raw_path", "type"]
_FACTS = ["mtime", "mode", "uid", "gid", "xattrs"]
_ARCHIVE = "parts.list.element.archive"
_CHUNK = ".cartridge-parts/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A manifest to read, and the snapshots whose archives it is to tell of."""

    path: str
    snapshots: Collection[str]


@dataclass(slots=True)
class Held:
    """What the manifests say that an archive holds: contents, and their bytes."""

    contents: int = 0
    bytes: int = 0


def stored_by(store: Store, snapshot: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns of CONTENTS: all that a snapshot stored; a content may come twice.

    Of a snapshot that was given up after it had stored something, nobody knows anything.
    """
    listed, manifest = store.contents_path(snapshot), store.manifest_path(snapshot)
    if os.path.exists(listed):
        yield from batches(listed, list(columns))
    elif os.path.exists(manifest):
        told = Told(path=manifest, snapshots=[snapshot])
        for batch in _batches(told, columns):
            yield from _contents(batch, told, columns).combine_chunks().to_batches()


def is_repeated(contents: int, entries: int) -> bool:
    """Whether a list of so many contents would repeat most of a manifest of so many entries."""
    return 2 * contents > entries


def forget_manifest(store: Store, snapshot: str) -> None:
    """Remove a manifest; what it alone says of contents that are still needed goes into a list."""
    path = store.manifest_path(snapshot)
    if os.path.exists(path) and not os.path.exists(store.contents_path(snapshot)):
        relist(store, [Told(path=path, snapshots=[snapshot])])
    durable.remove(path)


def relist(store: Store, manifests: Iterable[Told]) -> dict[str, Held]:
    """Write the lists of contents of all snapshots that the manifests tell of.

    Memory grows with 8 bytes for each content. Raises FormatDamaged, naming a manifest's path.
    """
    held: dict[str, Held] = {}
    with contextlib.ExitStack() as stack:
        lists: dict[str, _List] = {}
        for told in manifests:
            for batch in _batches(told, CONTENTS.names):
                for snapshot, rows in _by_snapshot(_contents(batch, told, CONTENTS.names)):
                    if snapshot not in lists:
                        path = store.contents_path(snapshot)
                        draft = stack.enter_context(durable.replacing(path))
                        writer = stack.enter_context(TableWriter(draft, CONTENTS))
                        lists[snapshot] = _List(writer)
                    _count(held, lists[snapshot].add(rows))
        for listed in lists.values():
            listed.writer.close()
    return held


@dataclass(slots=True)
class _List:
    """The list of one snapshot; a content that is there already is not added again."""

    writer: TableWriter
    seen: Any = field(default_factory=lambda: np.empty(0, ">u8"))

    def add(self, rows: pa.Table) -> pa.Table:
        heads = _heads(rows.column("sha256"))
        fresh, first = np.unique(heads, return_index=True)
        is_new = ~np.isin(fresh, self.seen)
        added = rows.take(pa.array(np.sort(first[is_new])))
        self.seen = np.concatenate([self.seen, fresh[is_new]])
        for batch in added.combine_chunks().to_batches():
            self.writer.write(batch)
        return added


def _heads(digests: pa.ChunkedArray) -> Any:
    """Return the first 8 bytes of each digest: enough to tell a million of them apart."""
    return digest_bytes(one(digests)).view(">u8")[::4]


def _count(held: dict[str, Held], rows: pa.Table) -> None:
    sums = rows.group_by("archive").aggregate([("length", "sum"), ("length", "count")])
    for row in sums.to_pylist():
        archive = held.setdefault(row["archive"], Held())
        archive.contents += row["length_count"]
        archive.bytes += row["length_sum"]


def _batches(told: Told, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Read the row groups that may tell of one of the snapshots, as far as columns need them."""
    needed = [*_ALWAYS]
    needed += _NAMES if "member" in columns else []
    needed += _FACTS if "mark" in columns else []
    file = open_table(told.path)
    groups = [n for n in range(file.num_row_groups) if _may_tell(file.metadata.row_group(n), told)]
    try:
        if groups:
            yield from file.iter_batches(ROWS, groups, columns=needed, use_threads=False)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise FormatDamaged(file=told.path, reason=str(error).split("\n")[0]) from error


def _may_tell(group: pq.RowGroupMetaData, told: Told) -> bool:
    columns = (group.column(number) for number in range(group.num_columns))
    facts = next((c.statistics for c in columns if c.path_in_schema == _ARCHIVE), None)
    if facts is None or not facts.has_min_max:
        return True
    return any(
        _folder(snapshot) <= facts.max and facts.min <= _folder(snapshot) + "~"
        for snapshot in told.snapshots
    )


def _folder(snapshot: str) -> str:
    return f"archives/{snapshot}/"


def _by_snapshot(contents: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    owners = pc.utf8_slice_codeunits(contents.column("archive"), len("archives/"))
    owners = pc.list_element(pc.split_pattern(owners, "/", max_splits=1), 0)
    for owner in pc.unique(owners).to_pylist():
        yield owner, contents.filter(pc.equal(owners, owner))


def _contents(batch: pa.RecordBatch, told: Told, columns: Collection[str]) -> pa.Table:
    """Return the contents that files of a batch have in archives of the snapshots told of."""
    column = batch.column("parts")
    flat = pc.list_flatten(column)
    rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    wanted = _is_in_archive_of(flat.field("archive"), told.snapshots)
    chunk = pc.fill_null(pc.match_substring(flat.field("member"), _CHUNK), False)
    single = np.bincount(rows, minlength=batch.num_rows)[rows] == 1
    plain = wanted & (single | chunk.to_numpy(zero_copy_only=False))
    has_digest = flat.field("sha256").is_valid().to_numpy(zero_copy_only=False)
    plain &= has_digest
    others = np.unique(rows[wanted & ~plain])
    is_sparse = np.array([_is_one_member(column[row].as_py()) for row in others.tolist()], bool)
    # A file that was cut, of which a piece is the whole of another file.
    plain |= wanted & has_digest & np.isin(rows, others[~is_sparse])
    found = _in_one_piece(batch, flat, rows, np.flatnonzero(plain), columns)
    return pa.concat_tables([found, _sparse(batch, others[is_sparse], columns)])


def _is_one_member(parts: list[dict[str, Any]]) -> bool:
    """Whether all that is no hole lies in one member: that of a sparse file."""
    return len({(part["archive"], part["member"]) for part in parts if part["archive"]}) == 1


def _is_in_archive_of(archives: pa.Array, snapshots: Collection[str]) -> Any:
    """Return for each part whether its archive is one of these snapshots'; never for holes."""
    coded = archives.dictionary_encode()
    names = coded.dictionary.to_pylist()
    mine = np.array([n.count("/") == 2 and n.split("/")[1] in snapshots for n in names] + [False])
    return mine[pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False)]


def _in_one_piece(
    batch: pa.RecordBatch, flat: pa.Array, rows: Any, index: Any, columns: Collection[str]
) -> pa.Table:
    parts = flat.take(pa.array(index))

    def column(name: str) -> pa.Array:
        if name == "parts":
            return pa.nulls(len(parts), PARTS)
        if name == "mark":
            return _marks(batch, rows[index], parts)
        if name == "member":
            own = keys(batch).take(pa.array(rows[index]))
            return pc.coalesce(parts.field("member").cast(pa.binary()), own)
        return parts.field(name)

    return pa.table({name: column(name) for name in columns}, schema=_schema(columns))


def _schema(columns: Collection[str]) -> pa.Schema:
    return pa.schema([CONTENTS.field(name) for name in columns])


def _marks(batch: pa.RecordBatch, rows: Any, parts: pa.Array) -> pa.Array:
    """Mark the metadata of members that have all of it: those of files stored as they are."""
    facts = [integers(batch.column(name))[rows] for name in ("mtime", "mode", "uid", "gid")]
    plain = pc.is_null(batch.column("xattrs")).to_numpy(zero_copy_only=False)[rows]
    own = pc.is_null(parts.field("member")).to_numpy(zero_copy_only=False)
    return pa.array(marks(*facts), mask=~(plain & own))


def _sparse(batch: pa.RecordBatch, rows: Any, columns: Collection[str]) -> pa.Table:
    """Return the contents of sparse files: data of one member, and holes between."""
    if not len(rows):
        return _schema(columns).empty_table()
    taken = batch.take(pa.array(rows))
    names = keys(taken).to_pylist() if "member" in columns else itertools.repeat(b"")
    found = []
    for row, name in zip(taken.select(_ALWAYS).to_pylist(), names, strict=False):
        first = next(part for part in row["parts"] if part["archive"])
        found.append(
            {
                "sha256": row["sha256"],
                "archive": first["archive"],
                "member": first["member"].encode() if first["member"] else name,
                "frame": 0,
                "skip": 0,
                "length": sum(part["length"] for part in row["parts"]),
                "parts": [{**part, "member": None} for part in row["parts"]],
            }
        )
    whole = [row for row in found if row["sha256"]]
    return pa.Table.from_pylist(whole, schema=CONTENTS).select(list(columns))
