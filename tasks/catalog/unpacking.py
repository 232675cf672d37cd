"""Taking the contents of files out of one archive, each checked before it gets its name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.catalog.metadata import facts_of
from tasks.catalog.selection import Need, Selected
from tasks.formats.archive import ContentReader
from tasks.media.destination import Destination
from tasks.media.metadata import Facts
from tasks.media.untrusted import open_untrusted
from tasks.model.errors import FormatDamaged

# What concerns one entry alone: its name, its size, or what lies in its way.
_OF_ONE = (
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ, errno.EFBIG, errno.ENOENT, errno.ENOTEMPTY),
    *(errno.EPERM, errno.EACCES, errno.EEXIST, errno.EISDIR, errno.EBUSY, errno.ETXTBSY),
)
# Bytes of content: less is not worth another reading of what lies around it.
_LEAST_SHARE = 4 << 20


@dataclass(slots=True)
class Unpacked:
    """What came of one archive: `files` that are whole, and rows where something was wrong.

    `failed` has reasons; `not_kept` has rows by what the place could not keep of them.
    """

    files: int = 0
    bytes: int = 0
    damaged: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)
    not_kept: dict[str, list[int]] = field(default_factory=dict)


def reason_for_one(error: OSError) -> str:
    """Return the reason where an error concerns one entry alone; raise all others."""
    if error.errno not in _OF_ONE:
        raise error
    return error.strerror or str(error)


def shares(needs: Any, processes: int) -> list[Any]:
    """Cut what is needed, sorted by archive and place, so that all processes have their share.

    None reaches over two archives, and none ends in the middle of a frame.
    """
    share = max(_LEAST_SHARE, int(needs["length"].sum()) // (2 * processes))
    archives, places = needs["archive"], needs["frame"]
    frames = np.flatnonzero(np.diff(places, prepend=-1) | np.diff(archives, prepend=-1))
    before = (np.cumsum(needs["length"]) - needs["length"])[frames] // share
    cuts = frames[1:][(np.diff(before) > 0) | (np.diff(archives[frames]) > 0)]
    return [each for each in np.split(needs, cuts) if len(each)]


class Unpacker:
    """Restores contents at `paths`, by row; works in forked processes."""

    def __init__(self, place: Destination, selected: Selected, paths: Sequence[bytes]) -> None:
        self._place = place
        self._selected = selected
        self._paths = paths
        self._sizes = selected.rows.column("size").to_numpy()

    def unpack(self, cartridge: str, mine: Any) -> Unpacked:
        """Restore some of what is needed of one archive on a cartridge.

        Files that lie in several archives are put together in drafts.
        """
        self._place.forget_parent()
        done = Unpacked()
        name = self._selected.archives[mine["archive"][0]]
        try:
            file = open_untrusted(os.path.join(cartridge, name))
        except (OSError, FormatDamaged):
            done.damaged.update(mine["row"].tolist())
            return done
        facts = facts_of(self._selected.rows.take(pa.array(mine["row"])))
        with file:
            reader = ContentReader(file, name)
            for need, entry in zip(Need.each(mine), facts, strict=True):
                try:
                    self._one_content(need, entry, reader, done)
                except FormatDamaged:
                    done.damaged.add(need.row)
                except OSError as error:
                    done.failed[need.row] = reason_for_one(error)
        return done

    def _one_content(self, need: Need, entry: Facts, reader: ContentReader, done: Unpacked) -> None:
        row, length = need.row, need.length
        pieces = reader.checked(need.frame, need.skip, length, need.sha256)
        if length != self._sizes[row]:
            self._write_part(row, need.offset, pieces)
            return
        draft = self._place.write_file(self._paths[row], pieces)
        draft.publish(entry)
        done.files += 1
        done.bytes += length
        if self._place.not_kept:
            for kind in self._place.take_not_kept():
                done.not_kept.setdefault(kind, []).append(row)

    def _write_part(self, row: int, offset: int, pieces: Iterator[memoryview]) -> None:
        """Write one stretch of a file that is put together from several archives."""
        digest = self._selected.rows.column("sha256")[row].as_py()
        fd = self._place.open_shared(self._paths[row], digest)
        try:
            for piece in pieces:
                os.pwrite(fd, piece, offset)
                offset += len(piece)
        finally:
            os.close(fd)


def is_right(path: str, need: Need) -> bool:
    """Whether an archive still has a stretch of content as it was written."""
    try:
        with open_untrusted(path) as file:
            for _ in ContentReader(file, path).checked(
                need.frame, need.skip, need.length, need.sha256
            ):
                pass
    except (OSError, FormatDamaged):
        return False
    return True
