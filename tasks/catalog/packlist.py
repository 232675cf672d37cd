"""The pack list: the rows that a packer reads, with all that it needs to know of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.formats.manifest import integers, named_attributes, raw_paths, words


class Entry(NamedTuple):
    """What the pack list says of one row; a tuple, since one is made for every file."""

    row: int
    kind: str
    root: bytes
    path: bytes
    name: bytes
    size: int
    mtime: int
    ctime: int
    inode: int
    nlink: int
    user: str
    group: str
    xattrs: list[tuple[str, bytes]] | None
    old: bytes | None
    rest: dict[str, Any] | None


def entries(batch: pa.RecordBatch, roots: dict[str, bytes], done: set[int]) -> Iterator[Entry]:
    """Yield the rows of a pack list that are not done; `roots` are the folders of the sources."""
    sources = words(batch.column("source")).to_pylist()
    kinds = words(batch.column("type")).to_pylist()
    paths = raw_paths(batch).to_pylist()
    plain = batch.column("xattrs").null_count == batch.num_rows
    rows = zip(
        batch.column("row").to_pylist(),
        kinds,
        [roots[source] for source in sources],
        paths,
        [source.encode() + b"/" + path for source, path in zip(sources, paths, strict=True)],
        batch.column("size").to_pylist(),
        integers(batch.column("mtime")).tolist(),
        integers(batch.column("ctime")).tolist(),
        batch.column("inode").to_pylist(),
        batch.column("nlink").to_pylist(),
        words(batch.column("user")).to_pylist(),
        words(batch.column("group")).to_pylist(),
        itertools.repeat(None)
        if plain
        else map(named_attributes, batch.column("xattrs").to_pylist()),
        batch.column("old_sha256").to_pylist(),
        [None if kind == "file" else _rest(batch, i) for i, kind in enumerate(kinds)],
        strict=False,
    )
    return (Entry._make(row) for row in rows if row[0] not in done)


def _rest(batch: pa.RecordBatch, index: int) -> dict[str, Any]:
    """Return what the header of an entry without content needs."""
    names = ("mode", "uid", "gid", "rdev", "link_target")
    facts = {name: batch.column(name)[index].as_py() for name in names}
    target = facts["link_target"] or b""
    if batch.column("type")[index].as_py() == "hardlink":
        target = batch.column("source")[index].as_py().encode() + b"/" + target
    return {**facts, "link_target": target, "rdev": facts["rdev"] or 0}
