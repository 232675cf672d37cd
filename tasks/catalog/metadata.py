"""The metadata of rows, as a restore gives it back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pyarrow as pa

from tasks.formats import tar
from tasks.formats.manifest import attribute_name, integers, named_attributes
from tasks.media.metadata import Facts
from tasks.model.words import SourceRoot


def facts_of(rows: pa.Table) -> Iterator[Facts]:
    """Yield the metadata of rows."""
    names = ("mode", "uid", "gid")
    mode, uid, gid = (rows.column(name).to_pylist() for name in names)
    times = [t for chunk in rows.column("mtime").chunks for t in integers(chunk).tolist()]
    xattrs = rows.column("xattrs")
    plain = xattrs.null_count == len(xattrs)
    pairs = itertools.repeat(None) if plain else map(named_attributes, xattrs.to_pylist())
    for i, attributes in zip(range(rows.num_rows), pairs, strict=False):
        yield Facts(
            mode=mode[i], uid=uid[i], gid=gid[i], mtime_ns=times[i], xattrs=attributes or []
        )


def root_facts(root: SourceRoot) -> Facts:
    """Return the metadata of the folder of a source."""
    xattrs = [(attribute_name(k), bytes.fromhex(value)) for k, value in root.xattrs.items()]
    return Facts(mode=root.mode, uid=root.uid, gid=root.gid, mtime_ns=root.mtime_ns, xattrs=xattrs)


def root_member(root: SourceRoot) -> tar.Member:
    """Return the folder of a source as a tar has it; names of its owner are not kept."""
    facts = root_facts(root)
    return tar.Member(
        name=root.source.encode(),
        kind="dir",
        mode=facts.mode,
        uid=facts.uid,
        gid=facts.gid,
        mtime_ns=facts.mtime_ns,
        xattrs=facts.xattrs,
    )
