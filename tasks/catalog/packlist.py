"""The pack list: the rows that a packer reads, with all that it needs to know of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from tasks.formats.manifest import integers, named_attributes, raw_paths, words


class Entry(NamedTuple):
    """What the pack list says of one row; a tuple, since one is made for every file.

    `root` is the folder of its source, `name` its path in an archive; `link_target` is that of a
    symbolic link, or the name of the file in the archive that a hard link leads to.
    """

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
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    rdev: int
    link_target: bytes
    xattrs: list[tuple[str, bytes]] | None
    old: bytes | None


_NUMBERS = ("size", "mtime", "ctime", "inode", "nlink", "mode", "uid", "gid")


def entries(batch: pa.RecordBatch, roots: dict[str, bytes], done: set[int]) -> Iterator[Entry]:
    """Yield the rows of a pack list that are not done; `roots` are the folders of the sources."""
    kinds = words(batch.column("type")).to_pylist()
    sources = words(batch.column("source")).to_pylist()
    tops = {source: source.encode() + b"/" for source in roots}
    paths = raw_paths(batch).to_pylist()
    rows = zip(
        batch.column("row").to_pylist(),
        kinds,
        [roots[source] for source in sources],
        paths,
        [tops[source] + path for source, path in zip(sources, paths, strict=True)],
        *(integers(batch.column(name)).tolist() for name in _NUMBERS),
        words(batch.column("user")).to_pylist(),
        words(batch.column("group")).to_pylist(),
        integers(batch.column("rdev")).tolist(),
        map(_target, kinds, [tops[source] for source in sources], _listed(batch, "link_target")),
        map(named_attributes, _listed(batch, "xattrs")),
        _listed(batch, "old_sha256"),
        strict=False,
    )
    return (Entry._make(row) for row in rows if row[0] not in done)


def _listed(batch: pa.RecordBatch, name: str) -> Iterable[Any]:
    """Return the values of a column; where there are none, as many times None as one asks for."""
    column = batch.column(name)
    return itertools.repeat(None) if column.null_count == len(column) else column.to_pylist()


def _target(kind: str, top: bytes, target: bytes | None) -> bytes:
    if not target:
        return b""
    return top + target if kind == "hardlink" else target
