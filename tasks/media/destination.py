"""The place to restore to: nothing is ever written outside of it, and no planted link followed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_KEPT = (errno.EPERM, errno.ENOTSUP, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG)
_ACL = "system.posix_acl_"
_DRAFT = re.compile(r"\.cartridge-[0-9a-f]{8}-(\d+-\d+|part-\d+)\.tmp")


class UnsafePathError(ValueError):
    """A path from a catalog that would lead out of the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The metadata that an entry gets back."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: list[tuple[str, bytes]]


@dataclass(slots=True)
class Destination:
    """A folder that entries are written below; `path` arguments are relative to it, as bytes.

    Files appear under their final name whole and with their metadata. What the place cannot keep
    (owners for a user who is not root, attributes it does not know) is counted in `not_kept`.
    """

    root: bytes
    not_kept: Counter[str] = field(default_factory=Counter)
    _parent: bytes | None = None
    _parent_fd: int = -1
    _inherits: bool = False
    _drafts: int = 0
    # Every restore has draft names of its own: what another one left gets into no file.
    _token: bytes = field(default_factory=lambda: os.urandom(4).hex().encode())
    _process: int = field(default_factory=os.getpid)
    _may_own: bool = field(default_factory=lambda: os.geteuid() == 0)
    _own_ids: tuple[int, int] = field(default_factory=lambda: (os.geteuid(), os.getegid()))

    def make_folder(self, path: bytes) -> None:
        """Make a folder that we may write into; what is in its way and is no folder goes."""
        parent, name = self.at(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                if facts.st_mode & 0o700 != 0o700:
                    os.chmod(name, facts.st_mode | 0o700, dir_fd=parent)
                self.sweep(path)
                return
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)

    def write_file(self, path: bytes, pieces: Iterator[memoryview] | list[bytes]) -> Draft:
        """Write a file's content under a draft name; it is published, or discarded, next."""
        draft = self.draft(path)
        try:
            for piece in pieces:
                _write_all(draft.fd, piece)
        except BaseException:
            draft.discard()
            raise
        return draft

    def draft(self, path: bytes) -> Draft:
        """Begin a file beside its final place."""
        parent, name = self.at(path)
        self._drafts += 1
        number = b"%d-%d" % (self._process, self._drafts)
        draft_name = b".cartridge-%s-%s.tmp" % (self._token, number)
        fd = os.open(draft_name, _CREATE, 0o600, dir_fd=parent)
        return Draft(self, parent, draft_name, name, fd)

    def open_shared(self, path: bytes, number: int) -> int:
        """Open a file that several processes put together, to be written at any place."""
        parent, _ = self.at(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._shared_name(number), flags, 0o600, dir_fd=parent)

    def shared_draft(self, path: bytes, number: int) -> Draft:
        """Return such a file as a draft, when it is complete."""
        fd = self.open_shared(path, number)
        parent, name = self.at(path)
        return Draft(self, parent, self._shared_name(number), name, fd)

    def drop_shared(self, path: bytes, number: int) -> None:
        """Remove such a file where it cannot be completed."""
        parent, _ = self.at(path)
        self.unlink_at(parent, self._shared_name(number))

    def _shared_name(self, number: int) -> bytes:
        return b".cartridge-%s-part-%d.tmp" % (self._token, number)

    def sweep(self, path: bytes) -> None:
        """Remove the drafts that a killed restore has left in a folder."""
        fd = self._open_folder(path)
        try:
            with os.scandir(fd) as listing:
                found = [entry.name for entry in listing if _DRAFT.fullmatch(entry.name)]
            for name in found:
                with contextlib.suppress(IsADirectoryError):  # somebody else's
                    os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)

    def make_symlink(self, path: bytes, target: bytes, facts: Facts) -> None:
        """Make a symbolic link, whatever it points at."""
        parent, name = self._clear(path)
        os.symlink(target, name, dir_fd=parent)
        self._settle(parent, name, facts, follow=False)

    def make_special(self, path: bytes, kind: str, rdev: int, facts: Facts) -> bool:
        """Make a fifo or device; False where only root may."""
        parent, name = self._clear(path)
        kinds = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
        try:
            os.mknod(name, 0o600 | kinds[kind], rdev, dir_fd=parent)
        except PermissionError:
            self.not_kept["devices"] += 1
            return False
        self._settle(parent, name, facts, follow=True)
        return True

    def make_hardlink(self, path: bytes, first: bytes) -> bool:
        """Give a file of this destination another name; False where there is no such file."""
        try:
            first_parent, first_name = self.at(first)
        except FileNotFoundError:
            return False
        first_parent = os.dup(first_parent)
        try:
            if not _is_file(first_parent, first_name):
                return False
            parent, name = self._clear(path)
            os.link(
                first_name,
                name,
                src_dir_fd=first_parent,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )
        finally:
            os.close(first_parent)
        return True

    def settle_folder(self, path: bytes, facts: Facts) -> None:
        """Give a folder its metadata, once nothing more is written into it."""
        fd = self._open_folder(path)
        self._inherits = True  # it may have been made below a folder that hands things down
        try:
            self.settle(fd, facts)
        finally:
            os.close(fd)
            self.forget_parent()

    def settle(self, fd: int, facts: Facts) -> None:
        """Give an open file or folder its metadata: the owner first, the times last."""
        self._own(lambda uid, gid: os.chown(fd, uid, gid), facts)
        self._drop_inherited(fd, facts)
        late = [pair for pair in facts.xattrs if pair[0].startswith(_ACL)]
        for name, value in facts.xattrs:
            if not name.startswith(_ACL):
                self._set_xattr(fd, name, value)
        os.fchmod(fd, facts.mode)
        for name, value in late:
            self._set_xattr(fd, name, value)
        os.utime(fd, ns=(facts.mtime_ns, facts.mtime_ns))

    def _settle(self, parent: int, name: bytes, facts: Facts, *, follow: bool) -> None:
        """Do the same for an entry that cannot be opened: a link, a fifo, a device."""
        self._own(
            lambda uid, gid: os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False), facts
        )
        path = b"/proc/self/fd/%d/%s" % (parent, name)
        if follow:
            self._drop_inherited(path, facts)
            os.chmod(name, facts.mode, dir_fd=parent)
        for key, value in facts.xattrs:
            try:
                os.setxattr(path, key, value, follow_symlinks=False)
            except OSError as error:
                self._tolerate(error, "attributes")
        times = (facts.mtime_ns, facts.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _own(self, chown: object, facts: Facts) -> None:
        if not self._may_own:
            return
        if (facts.uid, facts.gid) == self._own_ids and not self._inherits:
            return
        try:
            chown(facts.uid, facts.gid)  # type: ignore[operator]
        except OSError as error:
            self._tolerate(error, "owners")

    def _drop_inherited(self, file: int | bytes, facts: Facts) -> None:
        """Take away the access lists that the folder above has handed down."""
        if not self._inherits:
            return
        kept = {name for name, _ in facts.xattrs}
        with contextlib.suppress(OSError):  # a place without such attributes hands none down
            for name in os.listxattr(file):
                if name.startswith(_ACL) and name not in kept:
                    os.removexattr(file, name)

    def _set_xattr(self, fd: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            self._tolerate(error, "attributes")

    def _tolerate(self, error: OSError, what: str) -> None:
        if error.errno not in _NOT_KEPT:
            raise error
        self.not_kept[what] += 1

    def _clear(self, path: bytes) -> tuple[int, bytes]:
        """Make way for an entry: what has its name goes, but for a folder that is not empty."""
        parent, name = self.at(path)
        self.unlink_at(parent, name)
        return parent, name

    @staticmethod
    def unlink_at(parent: int, name: bytes) -> None:
        """Remove a name, were it an empty folder's."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent)

    def at(self, path: bytes) -> tuple[int, bytes]:
        """Return the open parent folder and the name of an entry; the last parent is kept open."""
        folder, _, name = path.rpartition(b"/")
        _check(name)
        if folder != self._parent:
            fd = self._open_folder(folder)
            if self._parent_fd >= 0:
                os.close(self._parent_fd)
            self._parent, self._parent_fd = folder, fd
            self._inherits = _hands_down(fd)
        return self._parent_fd, name

    def _open_folder(self, path: bytes) -> int:
        """Open a folder step by step, following no link on the way."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in path.split(b"/") if path else ():
            try:
                _check(name)
                below = os.open(name, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def forget_parent(self) -> None:
        """Let go of the folder that is kept open; a forked process must not share it."""
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = None, -1
        self._process = os.getpid()

    def entries(self, path: bytes = b"") -> Iterator[tuple[bytes, bool]]:
        """Yield (path, is folder) of what is there, folders before what they hold."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fd = self._open_folder(path)
            try:
                with os.scandir(fd) as listing:
                    found = sorted(
                        (os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in listing
                    )
            finally:
                os.close(fd)
            for name, is_folder in found:
                below = path + b"/" + name if path else name
                yield below, is_folder
                if is_folder:
                    yield from self.entries(below)

    def remove(self, path: bytes) -> None:
        """Remove an entry and all below it."""
        parent, name = self.at(path)
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)


@dataclass(slots=True)
class Draft:
    """A file that is being restored under a name of its own.

    `parent` is the folder that the destination keeps open: a draft has to be published or discarded
    before the next path is asked for.
    """

    place: Destination
    parent: int
    draft_name: bytes
    name: bytes
    fd: int

    def publish(self, facts: Facts) -> None:
        """Give the file its metadata and its final name."""
        try:
            self.place.settle(self.fd, facts)
            try:
                os.rename(
                    self.draft_name, self.name, src_dir_fd=self.parent, dst_dir_fd=self.parent
                )
            except IsADirectoryError:
                os.rmdir(self.name, dir_fd=self.parent)
                os.rename(
                    self.draft_name, self.name, src_dir_fd=self.parent, dst_dir_fd=self.parent
                )
        except BaseException:
            self.discard()
            raise
        os.close(self.fd)

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError):
            os.unlink(self.draft_name, dir_fd=self.parent)
        os.close(self.fd)


def _check(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise UnsafePathError(name)


def _is_file(parent: int, name: bytes) -> bool:
    """Whether a name is there, and no folder: anything else may have a second name."""
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _hands_down(folder: int) -> bool:
    """Whether what is made in a folder gets its group or access lists from there."""
    if os.fstat(folder).st_mode & stat.S_ISGID:
        return True
    with contextlib.suppress(OSError):
        return f"{_ACL}default" in os.listxattr(folder)
    return False


def _write_all(fd: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
