"""What a packer leaves beside an archive: the rows it really read, and where contents lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.catalog.contents import CONTENTS, marks
from tasks.formats.archive import FRAME
from tasks.formats.manifest import MOMENT, PARTS, SHA256, TableWriter, digests, moments
from tasks.media import durable
from tasks.media.stable import zeros

# `content` is the row of the contents file beside it; `recipe` the chunks of a large file.
RECIPE = pa.list_(pa.struct([("length", pa.int64()), ("sha256", SHA256)]))
ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("size", pa.int64()),
        ("mtime", MOMENT),
        ("ctime", MOMENT),
        ("mode", pa.uint32()),
        ("uid", pa.uint32()),
        ("gid", pa.uint32()),
        ("inode", pa.uint64()),
        ("dev", pa.uint64()),
        ("nlink", pa.uint32()),
        ("sha256", SHA256),
        ("same", pa.bool_()),
        ("content", pa.int64()),
        ("recipe", RECIPE),
    ]
)

# So many records wait as Python objects.
_LOOSE = 1 << 13

Recipe = list[dict[str, Any]]
# (frame number, skip, length, digest) of a stretch of data, or the length of a hole.
Stretch = tuple[int, int, int, bytes] | int


@dataclass(slots=True)
class RowRecords:
    """Files that were read, in columns: what was really read, not what the scan saw."""

    rows: list[int] = field(default_factory=list)
    facts: list[os.stat_result] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    contents: list[int | None] = field(default_factory=list)
    recipes: list[Recipe | None] = field(default_factory=list)
    _settled: list[pa.RecordBatch] = field(default_factory=list)

    def add(
        self,
        row: int,
        facts: os.stat_result,
        digest: bytes,
        old: bytes | None,
        content: int | None,
        recipe: Recipe | None = None,
    ) -> None:
        """Add one file; `content` is None where it is stored elsewhere or as a recipe."""
        self.rows.append(row)
        self.facts.append(facts)
        self.digests.append(digest)
        self.same.append(digest == old)
        self.contents.append(content)
        self.recipes.append(recipe)
        if len(self.rows) == _LOOSE:
            self._settle()

    def save(self, path: str) -> None:
        """Write the rows as Parquet, durably."""
        self._settle()
        _save(path, ROWS, self._settled)

    def _settle(self) -> None:
        """Turn what was added last into a batch: Python's objects take ten times its memory."""
        facts = self.facts
        columns = {
            "row": pa.array(self.rows, pa.int64()),
            "size": pa.array([s.st_size for s in facts], pa.int64()),
            "mtime": moments(_clamped([s.st_mtime_ns for s in facts])),
            "ctime": moments(_clamped([s.st_ctime_ns for s in facts])),
            "mode": pa.array([s.st_mode & 0o7777 for s in facts], pa.uint32()),
            "uid": pa.array([s.st_uid for s in facts], pa.uint32()),
            "gid": pa.array([s.st_gid for s in facts], pa.uint32()),
            "inode": pa.array([s.st_ino for s in facts], pa.uint64()),
            "dev": pa.array([s.st_dev for s in facts], pa.uint64()),
            "nlink": pa.array([s.st_nlink for s in facts], pa.uint32()),
            "sha256": digests(b"".join(self.digests)),
            "same": pa.array(self.same, pa.bool_()),
            "content": pa.array(self.contents, pa.int64()),
            "recipe": pa.array(self.recipes, RECIPE)
            if any(self.recipes)
            else pa.nulls(len(facts), RECIPE),
        }
        self._settled.append(_batch(ROWS, columns))
        for added in (self.rows, facts, self.digests, self.same, self.contents, self.recipes):
            added.clear()


@dataclass(slots=True)
class ContentRecords:
    """Contents that one archive stores, in the order they were added; `volume` is their bytes."""

    count: int = 0
    volume: int = 0
    _digests: list[bytes] = field(default_factory=list)
    _members: list[bytes] = field(default_factory=list)
    _places: list[tuple[int, int]] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)
    _facts: list[os.stat_result | None] = field(default_factory=list)
    _settled: list[pa.RecordBatch] = field(default_factory=list)
    _stretches: dict[int, list[Stretch]] = field(default_factory=dict)

    def add(
        self,
        digest: bytes,
        member: bytes,
        place: tuple[int, int],
        length: int,
        facts: os.stat_result | None = None,
    ) -> int:
        """Add a content that lies in one piece; return its number.

        `facts` are the metadata of a member that has no more than these: no attributes.
        """
        self._digests.append(digest)
        self._members.append(member)
        self._places.append(place)
        self._lengths.append(length)
        self._facts.append(facts)
        self.count += 1
        self.volume += length
        if len(self._digests) == _LOOSE:
            self._settle()
        return self.count - 1

    def add_sparse(self, digest: bytes, member: bytes, stretches: list[Stretch]) -> int:
        """Add a content of data and holes; return its number."""
        number = self.add(digest, member, (0, 0), sum(map(_length, stretches)))
        self._stretches[number] = stretches
        return number

    def save(self, path: str, archive: str, frames: list[int]) -> None:
        """Write the contents as Parquet, durably; `frames` are the byte offsets of the frames."""
        self._settle()
        offsets = np.array(frames, np.int64)
        _save(path, CONTENTS, self._finished(archive, offsets))

    def _settle(self) -> None:
        """Turn what was added last into a batch, in which frames have their numbers."""
        places = np.array(self._places, np.int64).reshape(-1, 2)
        columns = {
            "sha256": digests(b"".join(self._digests)),
            "member": pa.array(self._members, pa.binary()),
            "frame": pa.array(places[:, 0]),
            "skip": pa.array(places[:, 1]),
            "length": pa.array(self._lengths, pa.int64()),
            "mark": _marks(self._facts),
        }
        self._settled.append(pa.record_batch(columns))
        for added in (self._digests, self._members, self._places, self._lengths, self._facts):
            added.clear()

    def _finished(self, archive: str, offsets: Any) -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in self._settled:
            count = batch.num_rows
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns["archive"] = pa.array([archive] * count, pa.string())
            columns["frame"] = pa.array(offsets[batch.column("frame").to_numpy()])
            numbers = range(first, first + count)
            columns["parts"] = pa.nulls(count, PARTS)
            if any(number in numbers for number in self._stretches):
                parts = [self._parts(number, archive, offsets) for number in numbers]
                columns["parts"] = pa.array(parts, PARTS)
            yield _batch(CONTENTS, columns)
            first += count

    def _parts(self, number: int, archive: str, offsets: Any) -> list[dict[str, Any]] | None:
        if number not in self._stretches:
            return None
        return [
            {"length": stretch}
            if isinstance(stretch, int)
            else {
                "archive": archive,
                "frame": int(offsets[stretch[0]]),
                "skip": stretch[1],
                "length": stretch[2],
                "sha256": stretch[3],
            }
            for stretch in self._stretches[number]
        ]


def _marks(facts: list[os.stat_result | None]) -> pa.Array:
    known = np.array([one is not None for one in facts], bool)
    told = [one for one in facts if one is not None]
    found = np.zeros(len(facts), np.int64)
    found[known] = marks(
        _clamped([s.st_mtime_ns for s in told]),
        [s.st_mode & 0o7777 for s in told],
        [s.st_uid for s in told],
        [s.st_gid for s in told],
    )
    return pa.array(found, mask=~known)


def sparse_digest(extents: list[tuple[int, int]], pieces: list[bytes], size: int) -> bytes:
    """Return the SHA-256 of a file given by its data, holes between counted as zeros."""
    whole = hashlib.sha256()
    position = 0
    for (start, _), data in zip(extents, pieces, strict=True):
        for gap in zeros(start - position):
            whole.update(gap)
        whole.update(data)
        position = start + len(data)
    for gap in zeros(size - position):
        whole.update(gap)
    return whole.digest()


def add_hole(recipe: Recipe, whole: Any, length: int) -> None:
    """Add the zeros of a hole, if there is one, to a recipe and to the digest of the whole file."""
    for piece in zeros(length):
        whole.update(piece)
    if length > 0:
        recipe.append({"length": length, "sha256": None})


def stretches(
    extents: list[tuple[int, int]], pieces: list[bytes], size: int, place: tuple[int, int]
) -> list[Stretch]:
    """Turn extents into data and holes; `place` is where the first data lies in the archive."""
    found: list[Stretch] = []
    position, data = 0, place[0] * FRAME + place[1]
    for (start, length), piece in zip(extents, pieces, strict=True):
        if start > position:
            found.append(start - position)
        found.append((*divmod(data, FRAME), length, hashlib.sha256(piece).digest()))
        position, data = start + length, data + length
    if size > position:
        found.append(size - position)
    return found


def _length(stretch: Stretch) -> int:
    return stretch if isinstance(stretch, int) else stretch[2]


def _batch(schema: pa.Schema, columns: dict[str, Any]) -> pa.RecordBatch:
    return pa.record_batch([columns[f.name] for f in schema], schema=schema)


def _save(path: str, schema: pa.Schema, found: Iterable[pa.RecordBatch]) -> None:
    with durable.replacing(path) as draft, TableWriter(draft, schema) as writer:
        for batch in found:
            writer.write(batch)
        writer.close()


def _clamped(nanoseconds: list[int]) -> np.ndarray[Any, Any]:
    limits = np.iinfo(np.int64)
    try:
        return np.array(nanoseconds, np.int64)
    except OverflowError:
        return np.array([min(max(n, limits.min + 1), limits.max) for n in nanoseconds], np.int64)
