"""Files that a killed restore had put together in part: what is right of them is not read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.catalog.selection import Need, Selected
from tasks.media.destination import Destination
from tasks.media.draft import PART, shared_path
from tasks.media.safepaths import join

_PIECE = 1 << 20


@dataclass(slots=True)
class TakenUp:
    """What is still needed, and the bytes that parts of some rows take already."""

    selected: Selected
    taken: dict[int, int] = field(default_factory=dict)


def take_up(
    place: Destination,
    selected: Selected,
    paths: Sequence[bytes],
    there: Mapping[bytes, frozenset[bytes]],
) -> TakenUp:
    """Check every stretch of the parts that lie in folders; those of other files are removed."""
    found = TakenUp(selected)
    parts = {join(f, name) for f, names in there.items() for name in names if PART.fullmatch(name)}
    if not parts:
        return found
    needs = selected.needs
    sizes, digests = selected.rows.column("size").to_numpy(), selected.rows.column("sha256")
    done = np.zeros(len(needs), bool)
    for row in np.unique(needs["row"][needs["length"] != sizes[needs["row"]]]).tolist():
        part = shared_path(paths[row], digests[row].as_py())
        if part in parts:
            mine = np.flatnonzero(needs["row"] == row)
            right, size = _check(place, part, list(Need.each(needs[mine])))
            if right is not None:
                parts.discard(part)
                done[mine] = right
                found.taken[row] = size
    for part in parts:
        place.remove(part)
    found.selected = replace(selected, needs=needs[~done])
    return found


def _check(place: Destination, part: bytes, needs: list[Need]) -> tuple[list[bool] | None, int]:
    """Return which stretches are right, and the bytes on disk; None where holes are not empty.

    Neither is a file to go on with that has another name elsewhere.
    """
    fd = place.open_file(part)
    if fd is None:
        return None, 0
    try:
        status = os.fstat(fd)
        if status.st_nlink != 1 or not _is_empty_between(fd, status.st_size, needs):
            return None, 0
        right = [_digest(fd, need) == need.sha256 for need in needs]
        return right, status.st_blocks * 512
    finally:
        os.close(fd)


def _digest(fd: int, need: Need) -> bytes:
    digest = hashlib.sha256()
    offset, length = need.offset, need.length
    while length > 0 and (piece := os.pread(fd, min(length, _PIECE), offset)):
        digest.update(piece)
        offset, length = offset + len(piece), length - len(piece)
    return digest.digest()


def _is_empty_between(fd: int, size: int, needs: list[Need]) -> bool:
    at = 0
    for need in sorted(needs, key=lambda need: need.offset):
        if not _is_empty(fd, at, need.offset):
            return False
        at = need.offset + need.length
    return _is_empty(fd, at, size)


def _is_empty(fd: int, start: int, stop: int) -> bool:
    while start < stop and (piece := os.pread(fd, min(stop - start, _PIECE), start)):
        if piece.strip(b"\0"):
            return False
        start += len(piece)
    return True
