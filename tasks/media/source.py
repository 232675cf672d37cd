"""Walking a source tree in manifest order, and opening what the walk has found."""

from __future__ import annotations

import copy
import errno
import itertools
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tasks.media.beneath import FOLDER, LONG, open_beneath
from tasks.media.patterns import Rules
from tasks.model.profile import Source

_BATCH = 1 << 14
# So many entries of one folder are known at a time; of the others only the names.
_WIDE = 1 << 13
# What os.fsencode looks up for every name anew.
_CODING = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"

Xattrs = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Unread:
    """A path below the source that could not be looked at, and why."""

    path: bytes
    reason: str
    folder: bool


# An entry: its path, what lstat says, the target of a link, its attributes, and whether the walk
# goes into it. The source's own folder, which has no path, is no entry.
Child = tuple[bytes, os.stat_result, bytes | None, Xattrs | None, bool]


@dataclass(frozen=True, slots=True)
class Found:
    """Some thousand entries, column by column, in manifest order."""

    paths: Sequence[bytes]
    stats: Sequence[os.stat_result]
    targets: Sequence[bytes | None]
    xattrs: Sequence[Xattrs | None]

    @classmethod
    def of(cls, children: Sequence[Child]) -> Found:
        """Turn entries, of which there is one at least, into columns."""
        paths, stats, targets, xattrs, _ = zip(*children, strict=True)
        return cls(paths, stats, targets, xattrs)


class Walk:
    """Walk a source, depth first and in manifest order, collecting what it meets on the way.

    `skipped` are directories (device, inode) whose inside is never taken, such as the workspace's
    own state. What cannot be read is collected in `unread`, sockets in `sockets`.
    """

    def __init__(self, source: Source, root: bytes, skipped: Sequence[tuple[int, int]]) -> None:
        self._source = source
        self._root = root
        self._skipped = set(skipped)
        self._rules = Rules(source.exclude, source.include)
        self._takes_all = self._rules.empty
        self._markers = [os.fsencode(name) for name in source.exclude_if_present]
        self.unread: list[Unread] = []
        self.sockets: list[bytes] = []
        self.facts = os.stat(root)

    def branch(self) -> Walk:
        """Return the same walk with troubles and sockets of its own, for another process."""
        twin = copy.copy(self)
        twin.unread, twin.sockets = [], []
        return twin

    def outline(self, folders: int, most: int) -> list[Child]:
        """List the tree from the top, level by level, until so many folders are to be gone into.

        The entries come in manifest order; with `most` of them, no other folder is listed, and a
        very wide one, be it the source's own, never is.
        """
        children: list[Child] = [(b"", self.facts, None, None, True)]
        known, grows = 0, True
        while grows and sum(child[-1] for child in children) < folders:
            grows, opened = False, []
            for child in children:
                inside = self._few(child[0]) if child[-1] and known < most else None
                opened += [child] if inside is None else [(*child[:-1], False), *inside]
                known += len(inside or ())
                grows = grows or inside is not None
            children = opened
        return children

    def _few(self, folder: bytes) -> list[Child] | None:
        """Return what is in a folder, None where that is a great deal."""
        trial = self.branch()
        children = list(itertools.islice(trial._children(folder), _WIDE + 1))
        if len(children) > _WIDE:
            return None
        self.unread += trial.unread
        self.sockets += trial.sockets
        return children

    def entries(self, outline: Iterable[Child]) -> Iterator[Found]:
        """Go into the folders of an outline: yield entries in manifest order, by the thousand."""
        taken: list[Child] = []
        pending = [iter(outline)]
        while pending:
            for child in pending[-1]:
                if child[0]:
                    taken.append(child)
                if len(taken) >= _BATCH:
                    yield Found.of(taken)
                    taken = []
                if child[-1]:
                    pending.append(self._children(child[0]))
                    break
            else:
                pending.pop()
        if taken:
            yield Found.of(taken)

    def _children(self, folder: bytes) -> Iterator[Child]:
        """Yield what is in a folder; between two looks at it, it is not held open."""
        keys: list[bytes] | None = None
        start = 0
        while keys is None or start < len(keys):
            try:
                fd = self._open(folder)
                try:
                    keys = self._keys(fd, folder) if keys is None else keys
                    children = self._look_at(fd, folder, keys[start : start + _WIDE])
                finally:
                    os.close(fd)
            except OSError as error:
                self._report(folder, error.strerror or type(error).__name__, folder=True)
                return
            yield from children
            start += _WIDE

    def _open(self, folder: bytes) -> int:
        flags = FOLDER if folder else FOLDER & ~os.O_NOFOLLOW
        return open_beneath(self._root, folder, flags)

    def _keys(self, fd: int, folder: bytes) -> list[bytes]:
        """Return the names in a folder in manifest order, those of folders with a slash."""
        with os.scandir(fd) as listing:
            entries = list(listing)
        if folder and self._is_left_out(fd, {entry.name for entry in entries}):
            return []
        keys = [
            entry.name.encode(*_CODING) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")
            for entry in entries
        ]
        keys.sort()
        return keys

    def _look_at(self, fd: int, folder: bytes, keys: Sequence[bytes]) -> list[Child]:
        prefix = folder + b"/" if folder else b""
        place = self._root + b"/" + prefix
        if len(place) > LONG:
            place = b"/proc/self/fd/%d/" % fd
        children = []
        for key in keys:
            is_dir = key.endswith(b"/")
            name = key[:-1] if is_dir else key
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode) != is_dir:  # its place in the order is another now
                    raise OSError(errno.ESTALE, "It changed while it was looked at")
                child = self._child(fd, name, prefix + name, facts, place + name)
            except OSError as error:
                self._report(prefix + name, error.strerror or type(error).__name__, folder=is_dir)
                continue
            if child is not None:
                children.append(child)
        return children

    def _child(
        self, fd: int, name: bytes, path: bytes, facts: os.stat_result, place: bytes
    ) -> Child | None:
        """Return what is known of an entry, None where it is left out; `place` leads there."""
        kind = facts.st_mode & 0o170000
        if kind == stat.S_IFDIR:
            if not self._takes_all and not self._rules.takes_dir(path):
                return None
            return path, facts, None, _read_xattrs(place), self._descends(facts)
        if not self._takes_all and not self._rules.takes_file(path):
            return None
        if kind == stat.S_IFSOCK:
            self.sockets.append(path)
            return None
        target = os.readlink(name, dir_fd=fd) if kind == stat.S_IFLNK else None
        return path, facts, target, _read_xattrs(place), False

    def _descends(self, facts: os.stat_result) -> bool:
        if (facts.st_dev, facts.st_ino) in self._skipped:
            return False
        return not self._source.one_file_system or facts.st_dev == self.facts.st_dev

    def _is_left_out(self, fd: int, names: Collection[str]) -> bool:
        """Whether a marker says that the folder is kept, but nothing in it."""
        if any(os.fsdecode(marker) in names for marker in self._markers):
            return True
        return self._source.exclude_caches and "CACHEDIR.TAG" in names and _is_cache(fd)

    def _report(self, path: bytes, reason: str, *, folder: bool) -> None:
        self.unread.append(Unread(path, reason, folder))


def root_xattrs(root: bytes) -> Xattrs:
    """Read the extended attributes of a source's own folder."""
    return _read_xattrs(root) or []


def _read_xattrs(path: bytes) -> Xattrs | None:
    try:
        listed = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return None  # the file system keeps none, or the entry is gone: the walk reports that
    if not listed:
        return None
    found = []
    for name in sorted(listed):
        try:
            found.append((name, os.getxattr(path, name, follow_symlinks=False)))
        except OSError:
            continue  # listed to all, readable to few (security.*): as tar and rsync do
    return found


def _is_cache(fd: int) -> bool:
    try:
        tag = os.open("CACHEDIR.TAG", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    except OSError:
        return False
    try:
        return os.read(tag, len(_CACHE_TAG)) == _CACHE_TAG
    except OSError:
        return False
    finally:
        os.close(tag)


def data_extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Return the (offset, length) of the parts of a file that are not holes, in order."""
    extents = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left
        if start >= size:
            break
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        extents.append((start, stop - start))
        position = stop
    return extents
