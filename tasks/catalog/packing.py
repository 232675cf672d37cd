"""What a packer leaves beside an archive: the rows it really read, and where contents lie."""

from __future__ import annotations

import hashlib
import os
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

    def save(self, path: str) -> None:
        """Write the rows as Parquet, durably."""
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
        _save(path, ROWS, columns)


@dataclass(slots=True)
class ContentRecords:
    """Contents that one archive stores, in the order they were added."""

    digests: list[bytes] = field(default_factory=list)
    members: list[bytes] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    stretches: dict[int, list[Stretch]] = field(default_factory=dict)
    files: dict[int, os.stat_result] = field(default_factory=dict)

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
        number = len(self.digests)
        self.digests.append(digest)
        self.members.append(member)
        self.places.append(place)
        self.lengths.append(length)
        if facts is not None:
            self.files[number] = facts
        return number

    def add_sparse(self, digest: bytes, member: bytes, stretches: list[Stretch]) -> int:
        """Add a content of data and holes; return its number."""
        number = self.add(digest, member, (0, 0), sum(map(_length, stretches)))
        self.stretches[number] = stretches
        return number

    def save(self, path: str, archive: str, frames: list[int]) -> None:
        """Write the contents as Parquet, durably; `frames` are the byte offsets of the frames."""
        count = len(self.digests)
        places = np.array(self.places, np.int64).reshape(count, 2)
        columns = {
            "sha256": digests(b"".join(self.digests)),
            "archive": pa.array([archive] * count, pa.string()),
            "member": pa.array(self.members, pa.binary()),
            "frame": pa.array(np.array(frames, np.int64)[places[:, 0]]),
            "skip": pa.array(places[:, 1]),
            "length": pa.array(self.lengths, pa.int64()),
            "parts": pa.nulls(count, PARTS),
            "mark": self._marks(),
        }
        if self.stretches:
            parts = [self._parts(number, archive, frames) for number in range(count)]
            columns["parts"] = pa.array(parts, PARTS)
        _save(path, CONTENTS, columns)

    def _marks(self) -> pa.Array:
        facts = list(self.files.values())
        found = np.zeros(len(self.digests), np.int64)
        known = np.zeros(len(self.digests), bool)
        known[list(self.files)] = True
        found[known] = marks(
            _clamped([s.st_mtime_ns for s in facts]),
            [s.st_mode & 0o7777 for s in facts],
            [s.st_uid for s in facts],
            [s.st_gid for s in facts],
        )
        return pa.array(found, mask=~known)

    def _parts(self, number: int, archive: str, frames: list[int]) -> list[dict[str, Any]] | None:
        if number not in self.stretches:
            return None
        return [
            {"length": stretch}
            if isinstance(stretch, int)
            else {
                "archive": archive,
                "frame": frames[stretch[0]],
                "skip": stretch[1],
                "length": stretch[2],
                "sha256": stretch[3],
            }
            for stretch in self.stretches[number]
        ]


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


def _save(path: str, schema: pa.Schema, columns: dict[str, Any]) -> None:
    with durable.replacing(path) as draft, TableWriter(draft, schema) as writer:
        writer.write(pa.record_batch([columns[f.name] for f in schema], schema=schema))
        writer.close()


def _clamped(nanoseconds: list[int]) -> np.ndarray[Any, Any]:
    limits = np.iinfo(np.int64)
    try:
        return np.array(nanoseconds, np.int64)
    except OverflowError:
        return np.array([min(max(n, limits.min + 1), limits.max) for n in nanoseconds], np.int64)
