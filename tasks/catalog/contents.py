"""Which contents are stored already: in earlier snapshots, or by another packer of this run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.formats.manifest import PARTS, SHA256, digest_bytes
from tasks.media import durable, locks
from tasks.media.memory import trim_memory

# A content and where it lies: `parts` only for a sparse file, whose data is not in one piece;
# `mark` tells the metadata of its member, where that is a whole file without attributes.
CONTENTS = pa.schema(
    [
        ("sha256", SHA256),
        ("archive", pa.string()),
        ("member", pa.binary()),
        ("frame", pa.int64()),
        ("skip", pa.int64()),
        ("length", pa.int64()),
        ("parts", PARTS),
        ("mark", pa.int64()),
    ]
)
_CLAIM = np.dtype([("sha256", "V32"), ("archive", "<u8")])
_MERGE = 1 << 15
# So many claims are read at once.
_PIECE = 1 << 16
# Odd, and without a pattern that metadata could have.
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)


def marks(mtime: Any, mode: Any, uid: Any, gid: Any) -> Any:
    """Mix the metadata of files into one number each: equal ones for equal metadata.

    Those of others may be equal too, with a chance of 1 in 2**64; `mtime` in nanoseconds.
    """
    mixed = np.zeros(len(mtime), np.uint64)
    for values, factor in zip((mtime, mode, uid, gid), _FACTORS, strict=True):
        mixed += np.asarray(values).astype(np.int64).view(np.uint64) * np.uint64(factor)
    return mixed.view(np.int64)


def write_index(path: str, contents: Iterable[pa.RecordBatch], alive: set[str]) -> int:
    """Write the SHA-256 of all contents in living archives, sorted, for a search by halves.

    `contents` have the columns `sha256` and `archive`. Each digest is four big-endian 64-bit words;
    returns their number.
    """
    archives = pa.array(sorted(alive), pa.string())
    pieces = [np.empty(0, "S32").view("V32")]
    for batch in contents:
        kept = batch.filter(pc.is_in(batch.column("archive"), archives)).column("sha256")
        pieces.append(digest_bytes(kept))
    digests = np.concatenate(pieces)
    quads = np.frombuffer(digests.tobytes(), ">u8").astype("<u8").reshape(-1, 4)
    quads = quads[np.argsort(quads[:, 0], kind="stable")]
    with durable.replacing(path) as draft, open(draft, "wb") as file_out:
        file_out.write(quads.tobytes())
    return len(quads)


class StoredIndex:
    """The contents of earlier snapshots, searched in a file that is mapped, not loaded."""

    def __init__(self, path: str) -> None:
        count = os.path.getsize(path) // 32
        self._quads: Any = np.memmap(path, "<u8", "r", shape=(count, 4)) if count else None

    def __contains__(self, digest: bytes) -> bool:
        if self._quads is None:
            return False
        quad = np.frombuffer(digest, ">u8").astype("<u8")
        first = int(np.searchsorted(self._quads[:, 0], quad[0]))
        while first < len(self._quads) and self._quads[first, 0] == quad[0]:
            if (self._quads[first] == quad).all():
                return True
            first += 1
        return False


class Claims:
    """Contents that some packer of this run stores, in a file that all packers share.

    A packer claims a content for the archive that it is filling; another that meets the same
    content then refers to it. Claims of this packer's own bundle count only for its archives that
    are whole (`finished`): what a killed packer had claimed is stored again. Claims for archives
    that were taken back (`gone`) count for nobody.
    """

    def __init__(
        self, path: str, bundle: int, finished: set[int], gone: Collection[int] = ()
    ) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lock = path + ".lock"
        self._bundle = bundle
        self._finished = finished
        self._gone = sorted(gone)
        self._read = 0
        self._recent: dict[bytes, int] = {}
        self._prefixes = np.empty(0, "<u8")
        self._positions = np.empty(0, "<u4")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def claim(self, digests: Sequence[bytes], archive: int, stored: StoredIndex) -> list[bool]:
        """Return for each content whether it is to be stored now, in `archive`."""
        with locks.exclusive(self._lock):
            self._catch_up()
            older = self._older(digests)
            fresh: list[bytes] = []
            verdicts = []
            for digest, position in zip(digests, older, strict=True):
                known = position >= 0 or digest in self._recent or digest in stored
                verdicts.append(not known)
                if not known:
                    fresh.append(digest)
                    self._recent[digest] = self._read // _CLAIM.itemsize + len(fresh) - 1
            self._append(fresh, archive)
        return verdicts

    def _append(self, digests: list[bytes], archive: int) -> None:
        if digests:
            number = archive.to_bytes(8, "little")
            text = b"".join(digest + number for digest in digests)
            while text:
                done = os.pwrite(self._fd, text, self._read)
                text, self._read = text[done:], self._read + done

    def _catch_up(self) -> None:
        """Read what other packers have claimed since the last look."""
        size = os.fstat(self._fd).st_size // _CLAIM.itemsize * _CLAIM.itemsize
        heads: list[Any] = []
        positions: list[Any] = []
        while self._read < size:
            first = self._read // _CLAIM.itemsize
            news = self._next_claims(min(size - self._read, _PIECE * _CLAIM.itemsize))
            own = news["archive"] // BUNDLE == self._bundle
            counts = ~own | np.isin(news["archive"], list(self._finished))
            counts &= ~np.isin(news["archive"], self._gone)
            found = np.flatnonzero(counts)
            if not heads and len(found) + len(self._recent) <= _MERGE and self._read >= size:
                digests = news["sha256"][found].tolist()
                self._recent.update(zip(digests, (found + first).tolist(), strict=True))
                return
            heads.append(_heads(news)[found])
            positions.append((found + first).astype("<u4"))
        if heads:
            self._merge(heads, positions)

    def _next_claims(self, size: int) -> Any:
        news = np.frombuffer(os.pread(self._fd, size, self._read), _CLAIM)
        self._read += len(news) * _CLAIM.itemsize
        return news

    def _merge(self, heads: list[Any], positions: list[Any]) -> None:
        """Move claims to the sorted arrays: 12 bytes each instead of a dictionary's 150."""
        recent = np.frombuffer(b"".join(digest[:8] for digest in self._recent), ">u8")
        prefixes = np.concatenate([self._prefixes, recent, *heads]).astype("<u8", copy=False)
        places = [self._positions, np.array(list(self._recent.values()), "<u4"), *positions]
        self._recent = {}
        order = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[order]
        self._positions = np.concatenate(places)[order]
        del prefixes, order
        trim_memory()  # sorting took three times what is kept

    def _older(self, digests: Sequence[bytes]) -> list[int]:
        """Return the position of each digest in the sorted arrays, or -1."""
        if not len(self._prefixes):
            return [-1] * len(digests)
        wanted = np.frombuffer(b"".join(d[:8] for d in digests), ">u8").astype("<u8")
        firsts = np.searchsorted(self._prefixes, wanted)
        return [
            self._confirm(int(first), prefix, digest)
            for first, prefix, digest in zip(firsts, wanted, digests, strict=True)
        ]

    def _confirm(self, index: int, prefix: Any, digest: bytes) -> int:
        while index < len(self._prefixes) and self._prefixes[index] == prefix:
            position = int(self._positions[index])
            if os.pread(self._fd, 32, position * _CLAIM.itemsize) == digest:
                return position
            index += 1
        return -1


def _heads(claims: Any) -> Any:
    """Return the first 8 bytes of the digest of each claim, as numbers."""
    words = np.frombuffer(claims.tobytes(), ">u8").reshape(len(claims), -1)
    return words[:, 0].astype("<u8")


# Archive numbers are ten digits: four for the bundle, six for the archive in it.
BUNDLE = 1_000_000


def trim(path: str) -> None:
    """Cut a claim off that a crash has torn."""
    if os.path.exists(path):
        os.truncate(path, os.path.getsize(path) // _CLAIM.itemsize * _CLAIM.itemsize)
