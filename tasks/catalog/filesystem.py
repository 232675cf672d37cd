"""All snapshots of a profile as one file system: `<snapshot>/<source>/<path>`, and `latest`."""

from __future__ import annotations

import bisect
import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.catalog.retrieval import Part, Retrieval
from tasks.catalog.store import Store
from tasks.catalog.tree import Entry, SnapshotTree, new_cache, time_ns
from tasks.model.errors import FormatDamaged

LATEST = b"latest"
_SNAPSHOT = re.compile(rb"[0-9]{8}T[0-9]{6}Z")
_TYPES = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}
_ROOT_INODE = 1
# Bytes: a hole in a smaller file saves nothing, so its parts need not be looked at.
_SPARSE = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `lstat` tells of an entry; times in nanoseconds, `blocks` of 512 bytes."""

    mode: int
    inode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is read: its shown path, its size in bytes, and its parts in order."""

    shown: str
    size: int
    parts: list[Part]


class Filesystem:
    """What `mount` shows; paths are raw bytes without a slash at either end, b"" is the top.

    Nothing can be changed. Methods raise OSError with the number that a system call would give, and
    CartridgeError where the catalog or a cartridge is damaged or not to be had. Snapshots that come
    or go meanwhile are seen at once. Threads may share it.
    """

    def __init__(self, store: Store, retrieval: Retrieval) -> None:
        self._store = store
        self._retrieval = retrieval
        self._cache = new_cache()
        self._trees: dict[str, tuple[tuple[int, ...], SnapshotTree]] = {}

    def status(self, path: bytes) -> Status:
        """Describe an entry, not following a symlink."""
        snapshot, _, below = path.partition(b"/")
        if path == LATEST:
            target = self.target(path)
            time = time_ns(target.decode())
            return _status(_ROOT_INODE + 1, stat.S_IFLNK | 0o777, time, size=len(target))
        if not path:
            known = self._snapshots()
            return _status(_ROOT_INODE, _FOLDER, time_ns(known[-1].decode()) if known else 0)
        tree = self._tree(snapshot)
        if not below:
            return _status(_inode(snapshot), _FOLDER, time_ns(snapshot.decode()))
        entry = tree.entry(below)
        blocks = -(-entry.size // 512)
        if entry.kind == "file" and entry.size >= _SPARSE:
            blocks = -(-tree.stored(below) // 512)
        return _described(entry, _inode(snapshot + b"/" + entry.path), blocks)

    def names(self, path: bytes) -> Iterator[tuple[bytes, int, int]]:
        """Yield name, type and inode number of all in a folder; type 0 where it is not at hand."""
        snapshot, _, below = path.partition(b"/")
        above = path.rpartition(b"/")[0]
        yield b".", stat.S_IFDIR, self.status(path).inode
        yield b"..", stat.S_IFDIR, self.status(above).inode
        if not path:
            for name in [*self._snapshots(), LATEST]:
                with contextlib.suppress(FileNotFoundError):  # it has just gone, or there is none
                    found = self.status(name)
                    yield name, stat.S_IFMT(found.mode), found.inode
        elif not below:
            for name in self._tree(snapshot).sources():
                yield name, stat.S_IFDIR, _inode(path + b"/" + name)
        else:
            for name, kind, first in self._tree(snapshot).names(below):
                yield name, _TYPES.get(kind, 0), _inode(snapshot + b"/" + first)

    def target(self, path: bytes) -> bytes:
        """Return what a symlink points at."""
        if path == LATEST:
            known = self._snapshots()
            if not known:
                raise _missing(path)
            return known[-1]
        snapshot, _, below = path.partition(b"/")
        entry = self._tree(snapshot).entry(below)
        if entry.kind != "symlink":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return entry.link_target

    def attributes(self, path: bytes) -> dict[str, bytes]:
        """Return the extended attributes of an entry."""
        snapshot, _, below = path.partition(b"/")
        return dict(self._tree(snapshot).attributes(below)) if below else {}

    def open(self, path: bytes) -> OpenFile:
        """Look up what a file's content is made of; no cartridge is needed yet."""
        snapshot, _, below = path.partition(b"/")
        tree = self._tree(snapshot)
        size = tree.entry(below).size
        parts = tree.parts(below)
        if sum(part.length for part in parts) != size:
            reason = "the parts of a file in it are not as long as the file"
            raise FormatDamaged(
                file=self._store.manifest_path(os.fsdecode(snapshot)), reason=reason
            )
        return OpenFile(below.decode("utf-8", "replace"), size, parts)

    def read(self, file: OpenFile, start: int, size: int) -> bytes:
        """Return the bytes from `start` on, at most `size`; fewer only at the end of the file."""
        stop = min(start + size, file.size)
        number = bisect.bisect_right(file.parts, start, key=lambda part: part.offset) - 1
        pieces = []
        while start < stop:
            part = file.parts[number]
            piece = self._retrieval.read(part, start - part.offset, stop - start)
            pieces.append(piece)
            start += len(piece)
            number += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _snapshots(self) -> list[bytes]:
        """Return the ids of all snapshots, oldest first."""
        names = [name.encode() for name in self._store.snapshots()]
        return [name for name in names if _SNAPSHOT.fullmatch(name)]

    def _tree(self, snapshot: bytes) -> SnapshotTree:
        """Return the tree of a snapshot, as its manifest is now."""
        if not _SNAPSHOT.fullmatch(snapshot):
            raise _missing(snapshot)
        name = snapshot.decode()
        path = self._store.manifest_path(name)
        facts = os.stat(path)
        state = facts.st_ino, facts.st_mtime_ns, facts.st_size
        known = self._trees.get(name)
        if known is None or known[0] != state:
            known = self._trees[name] = state, SnapshotTree(path, name, self._cache)
        return known[1]


_FOLDER = stat.S_IFDIR | 0o755


def _status(inode: int, mode: int, time_ns: int, size: int = 0) -> Status:
    """Describe what is in no snapshot."""
    return Status(
        mode=mode,
        inode=inode,
        nlink=1,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        size=size,
        blocks=0,
        mtime_ns=time_ns,
        ctime_ns=time_ns,
    )


def _described(entry: Entry, inode: int, blocks: int) -> Status:
    if entry.kind not in _TYPES:
        raise FormatDamaged(file="the manifest", reason=f"{entry.kind!r} is no type of an entry")
    return Status(
        mode=_TYPES[entry.kind] | entry.mode & 0o7777,
        inode=inode,
        nlink=entry.nlink,
        uid=entry.uid,
        gid=entry.gid,
        rdev=entry.rdev,
        size=entry.size,
        blocks=blocks,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
    )


def _inode(path: bytes) -> int:
    """Number an entry by its first name: the same at each mount, without a table of numbers.

    Two of a thousand million entries meet with a chance of 5 in a hundred; it would matter only
    between two files with several names each.
    """
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little") | 1 << 8


def _missing(path: bytes) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
