"""A manifest made from the archives themselves, where no manifest can be read any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.catalog.export import manifest_name
from tasks.catalog.found import Copy
from tasks.catalog.given import Given
from tasks.formats.manifest import ROWS, SCHEMA, TableWriter, attribute_key
from tasks.formats.members import Found, members
from tasks.media.layout import JOURNAL
from tasks.media.untrusted import open_untrusted
from tasks.model.errors import FormatDamaged
from tasks.model.units import iso, snapshot_time
from tasks.model.words import SNAPSHOT, SnapshotInfo

_PART = re.compile(rb"(.+)\.cartridge-parts/([0-9]{15})", re.DOTALL)
_MANY = 1 << 13
_LIMITS = np.iinfo(np.int64)


def unearth(folder: str, given: Iterable[Given]) -> dict[str, Copy]:
    """Read all archives, and make one manifest in `folder` of the newest version of every file.

    What was deleted meanwhile is in it too, and a file whose content was stored under another name
    is not. Its id is that of the newest archive; {} where there is none.
    """
    places = sorted((name, one) for one in given for name in _archives(one))
    salvage = _Salvage()
    for name, one in places:
        try:
            with open_untrusted(one.cartridge.file(name)) as file:
                for found in members(file, name):
                    salvage.add(name, found)
        except (FormatDamaged, OSError):
            one.damaged.add(name)
    if not places:
        return {}
    name, origin = places[-1]
    snapshot = name.split("/")[1]
    path = os.path.join(folder, f"{snapshot}.parquet")
    info = salvage.write(path, snapshot, origin.cartridge.label.profile)
    return {snapshot: Copy(path, info, origin, manifest_name(snapshot), is_unearthed=True)}


def _archives(one: Given) -> list[str]:
    if JOURNAL not in one.damaged:
        names = [line.archive for line in one.journal]
    else:
        names = [name for name, _ in one.cartridge.files() if name.startswith("archives/")]
    return [n for n in names if n.endswith(".tar.lz4") and SNAPSHOT.fullmatch(n.split("/")[1])]


@dataclass(slots=True)
class _Salvage:
    """Rows in the order of the archives; the last of each name counts.

    Takes some hundred bytes of memory for each entry.
    """

    batches: list[pa.RecordBatch] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    chunks: dict[tuple[bytes, str], dict[int, tuple[str, Found]]] = field(default_factory=dict)

    def add(self, archive: str, found: Found) -> None:
        source, _, path = found.name.partition(b"/")
        match = _PART.fullmatch(found.name)
        if not path:
            return
        if match:
            pieces = self.chunks.setdefault((match[1], archive.split("/")[1]), {})
            pieces[int(match[2])] = (archive, found)
            return
        parts = [{**part, "archive": archive if "frame" in part else None} for part in found.parts]
        self._row(source, path, found, parts)

    def _row(
        self,
        source: bytes,
        path: bytes,
        found: Found,
        parts: list[dict[str, Any]],
        **facts: Any,
    ) -> None:
        self.keys.append(source + b"/" + path)
        self.waiting.append(_row(source, path, found, parts) | facts)
        if len(self.waiting) >= _MANY:
            self._settle()

    def _settle(self) -> None:
        self.batches.append(pa.RecordBatch.from_pylist(self.waiting, schema=SCHEMA))
        self.waiting = []

    def _join(self) -> None:
        """Put large files together whose parts lie end to end; others stay parts, as tar has them.

        Only the parts of one snapshot are sure to belong together.
        """
        for (name, _), pieces in sorted(self.chunks.items()):
            source, _, path = name.partition(b"/")
            ordered = sorted(pieces.items())
            ends = np.cumsum([0, *(found.size for _, (_, found) in ordered)])
            if [position for position, _ in ordered] == ends[:-1].tolist():
                parts = [
                    {**part, "archive": archive, "member": found.name.decode("utf-8", "replace")}
                    for _, (archive, found) in ordered
                    for part in found.parts
                ]
                first = ordered[0][1][1]
                self._row(source, path, first, parts, size=int(ends[-1]), sha256=None)
                continue
            for _, (archive, found) in ordered:
                parts = [{**part, "archive": archive} for part in found.parts]
                self._row(source, found.name.partition(b"/")[2], found, parts)

    def write(self, path: str, snapshot: str, profile: str) -> SnapshotInfo:
        """Write the manifest."""
        self._join()
        self._settle()
        table = pa.Table.from_batches(self.batches, schema=SCHEMA)
        kinds = np.array(table.column("type").cast(pa.string()).to_pylist(), dtype=object)
        order = list(_newest_in_order(self.keys, kinds))
        files = [row for row in order if kinds[row] == "file"]
        sizes = table.column("size").to_numpy()
        with TableWriter(path, SCHEMA) as writer:
            for start in range(0, len(order), ROWS):
                rows = table.take(pa.array(order[start : start + ROWS])).combine_chunks()
                for batch in rows.to_batches():
                    writer.write(batch)
            info = SnapshotInfo(
                snapshot=snapshot,
                profile=profile,
                time=iso(snapshot_time(snapshot)),
                previous=None,
                complete=False,
                entries=len(order),
                files=len(files),
                bytes=int(sizes[files].sum()),
                roots=[],
                archives=sorted(_named(table.take(pa.array(order, pa.int64())))),
                troubles=[],
            )
            writer.close(info)
        return info


def _named(table: pa.Table) -> set[str]:
    lists = table.column("parts").chunks
    return {name for parts in lists for name in parts.flatten().field(0).to_pylist() if name}


def _newest_in_order(keys: list[bytes], kinds: Any) -> Iterator[int]:
    """Yield the last row of every name, in a manifest's order.

    What is a folder in one archive and something else in another stays a folder where anything
    lies in it.
    """
    newest = {key: row for row, key in enumerate(keys)}
    folders = {key.rpartition(b"/")[0] for key in newest}
    above = {folder.rpartition(b"/")[0] for folder in folders}
    while above - folders:
        folders |= above
        above = {folder.rpartition(b"/")[0] for folder in above}
    kept = [(k, row) for k, row in newest.items() if kinds[row] == "dir" or k not in folders]
    yield from (row for _, row in sorted((k + b"/" * (kinds[r] == "dir"), r) for k, r in kept))


def _row(source: bytes, path: bytes, found: Found, parts: list[dict[str, Any]]) -> dict[str, Any]:
    shown = path.decode("utf-8", "replace")
    is_device = found.kind in ("char", "block")
    time = min(max(found.mtime_ns, _LIMITS.min + 1), _LIMITS.max)
    return {
        "source": source.decode("utf-8", "replace"),
        "path": shown,
        "raw_path": None if shown.encode() == path else path,
        "type": found.kind,
        "size": found.size,
        "mtime": time,
        "ctime": time,
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "user": found.user.encode("utf-8", "replace").decode(),
        "group": found.group.encode("utf-8", "replace").decode(),
        "inode": 0,
        "dev": 0,
        "nlink": 1,
        "link_target": _target(found),
        "rdev": os.makedev(found.major, found.minor) if is_device else None,
        "xattrs": [(attribute_key(os.fsdecode(k)), v) for k, v in found.xattrs] or None,
        "sha256": found.sha256,
        "parts": parts if found.kind == "file" else None,
    }


def _target(found: Found) -> bytes | None:
    """Return what a link names: a hard link a path in its own source."""
    if found.kind == "symlink":
        return found.link_target
    return found.link_target.partition(b"/")[2] if found.kind == "hardlink" else None
