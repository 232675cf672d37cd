"""The place to restore to: nothing is ever written outside of it, and no planted link followed."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tasks.media.beneath import Folders
from tasks.media.draft import Draft, replace, shared_name
from tasks.media.metadata import USERS, Facts, Settler, handed_down
from tasks.media.mounts import is_mounted_below
from tasks.media.removal import remove_tree
from tasks.media.safepaths import check_name, join
from tasks.media.traits import Scratch, Traits, scratch

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FIND = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DRAFT = re.compile(r"\.cartridge-[0-9a-f]{8}-(\d+-\d+|part-\d+|names)\.tmp")
# What a file system without links, fifos or devices answers, or a user without rights gets.
_NOT_MADE = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK, errno.EIO)
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to restore into: the device it is on, the names that it has already."""

    device: int
    is_new: bool
    names: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Destination:
    """A folder that entries are written below; `path` arguments are relative to it, as bytes.

    Files appear under their final name whole and with their metadata. What the place cannot keep
    (owners for a user who is not root, attributes it does not know) is counted in `not_kept`.
    """

    root: bytes
    takes_any_name: bool = True
    _settler: Settler = field(default_factory=Settler)
    _folders: Folders = field(init=False)
    _parent_device: int = 0
    _drafts: int = 0
    # Every restore has draft names of its own: what another one left gets into no file.
    _token: bytes = field(default_factory=lambda: os.urandom(4).hex().encode())
    _process: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._folders = Folders(self.root)

    @property
    def not_kept(self) -> Counter[str]:
        """What could not be kept, counted by kind, since it was taken last."""
        return self._settler.not_kept

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other restores out while the block runs: they would sweep our drafts away.

        Nothing below is held open when it has ended.

        Raises BlockingIOError where another one is at work.
        """
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                pass  # a place without locks
            yield
        finally:
            self.forget_parent()
            os.close(fd)

    def take_not_kept(self) -> list[str]:
        """Return the kinds of what could not be kept, and begin to count anew."""
        kinds = [kind for kind, count in self.not_kept.items() if count]
        self.not_kept.clear()
        return kinds

    def top(self) -> Place:
        """Return the destination itself."""
        with os.scandir(self.root) as listing:
            names = frozenset(entry.name for entry in listing)
        return Place(os.stat(self.root).st_dev, False, names)

    def make_folder(self, path: bytes) -> Place:
        """Make a folder that we may write into; what is in its way and is no folder goes."""
        parent, name = self.at(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                if facts.st_mode & 0o700 != 0o700:
                    os.chmod(name, facts.st_mode | 0o700, dir_fd=parent)
                return Place(facts.st_dev, False, self.sweep(path))
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)
        return Place(self._parent_device, True)

    def remove_folder(self, path: bytes) -> None:
        """Remove a folder if it is empty."""
        parent, name = self.at(path)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)

    def try_out(self, path: bytes) -> Traits:
        """Find out what the file system of a folder keeps, and heed it from now on."""
        with self.scratch(path) as folder:
            traits = folder.traits()
        self.takes_any_name &= traits.names
        self._settler.exact &= traits.metadata
        return traits

    @contextlib.contextmanager
    def scratch(self, path: bytes) -> Iterator[Scratch]:
        """Give an empty folder inside of another, to try names out."""
        fd = self._folders.open(path)
        try:
            with scratch(fd, b".cartridge-%s-names.tmp" % self._token) as folder:
                yield folder
        finally:
            os.close(fd)

    def room(self, path: bytes) -> tuple[int, int, int]:
        """Return what a folder's file system has free: bytes, bytes of a block, and entries.

        0 entries where it has no bound.
        """
        fd = self._folders.open(path)
        try:
            facts = os.statvfs(fd)
        finally:
            os.close(fd)
        return facts.f_bavail * facts.f_frsize, facts.f_frsize, facts.f_files and facts.f_favail

    def open_file(self, path: bytes) -> int | None:
        """Open a file that is there, to see whether it is the right one; None where it is none."""
        parent, name = self.at(path)
        try:
            fd = os.open(name, _FIND, dir_fd=parent)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def write_file(self, path: bytes, pieces: Iterable[bytes | memoryview]) -> Draft:
        """Write a file's content under a draft name; it is published, or discarded, next."""
        draft = self.draft(path)
        try:
            for piece in pieces:
                draft.write(piece)
        except BaseException:
            draft.discard()
            raise
        return draft

    def draft(self, path: bytes) -> Draft:
        """Begin a file beside its final place."""
        parent, name = self.at(path)
        draft_name = self._draft_name()
        fd = os.open(draft_name, _CREATE, 0o600, dir_fd=parent)
        return Draft(self._settler, parent, draft_name, name, fd)

    def _draft_name(self) -> bytes:
        self._drafts += 1
        return b".cartridge-%s-%d-%d.tmp" % (self._token, self._process, self._drafts)

    def open_shared(self, path: bytes, digest: bytes | None) -> int:
        """Open a file that several processes put together, to be written at any place.

        A later restore of the same content goes on with it.
        """
        parent, name = self.at(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(shared_name(name, digest), flags, 0o600, dir_fd=parent)

    def shared_draft(self, path: bytes, digest: bytes | None) -> Draft:
        """Return such a file as a draft, when it is complete; another user may have begun it."""
        fd = self.open_shared(path, digest)
        parent, name = self.at(path)
        return Draft(self._careful(), parent, shared_name(name, digest), name, fd)

    def drop_shared(self, path: bytes, digest: bytes | None) -> None:
        """Remove such a file where it cannot be completed."""
        parent, name = self.at(path)
        self.unlink_at(parent, shared_name(name, digest))

    def sweep(self, path: bytes) -> frozenset[bytes]:
        """Remove the drafts of whole files that a killed restore left; return the other names."""
        fd = self._folders.open(path)
        try:
            with os.scandir(fd) as listing:
                names = [entry.name for entry in listing]
            drafts = {name for name in names if _DRAFT.fullmatch(name)}
            for name in drafts:
                if name.endswith("-names.tmp"):
                    with contextlib.suppress(OSError):
                        remove_tree(fd, name)
                    continue
                with contextlib.suppress(IsADirectoryError):  # somebody else's
                    os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        return frozenset(os.fsencode(name) for name in names if name not in drafts)

    def make_symlink(self, path: bytes, target: bytes, facts: Facts) -> bool:
        """Make a symbolic link, whatever it points at; False where the place has none."""
        parent, name = self.at(path)
        draft = self._draft_name()
        try:
            os.symlink(target, draft, dir_fd=parent)
        except OSError as error:
            return self._not_made(error, "links")
        self._publish(parent, draft, name, facts, is_link=True)
        return True

    def make_special(self, path: bytes, kind: str, rdev: int, facts: Facts) -> bool:
        """Make a fifo or device; False where the place has none, or only root may."""
        parent, name = self.at(path)
        draft = self._draft_name()
        kinds = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
        try:
            os.mknod(draft, 0o600 | kinds[kind], rdev, dir_fd=parent)
        except OSError as error:
            self.unlink_at(parent, draft)  # some leave a file in place of it
            return self._not_made(error, "fifos" if kind == "fifo" else "devices")
        self._publish(parent, draft, name, facts, is_link=False)
        return True

    def _publish(
        self, parent: int, draft: bytes, name: bytes, facts: Facts, *, is_link: bool
    ) -> None:
        try:
            self._settler.settle_at(parent, draft, facts, is_link=is_link)
            replace(parent, draft, name)
        except BaseException:
            self.unlink_at(parent, draft)
            raise

    def _not_made(self, error: OSError, what: str) -> bool:
        """Count what the place has not, and leave what lies there; other errors are raised."""
        if error.errno not in _NOT_MADE:
            raise error
        self.not_kept[what] += 1
        return False

    def make_hardlink(self, path: bytes, first: bytes, facts: Facts | None = None) -> bool:
        """Give a file of this destination another name; False where there is no such file.

        Where the place has no hard links, the name gets a copy with the metadata of `facts`.
        """
        try:
            first_parent, first_name = self.at(first)
        except FileNotFoundError:
            return False
        first_parent = os.dup(first_parent)
        try:
            if not _is_file(first_parent, first_name):
                return False
            parent, name = self.at(path)
            draft = self._draft_name()
            try:
                os.link(
                    first_name,
                    draft,
                    src_dir_fd=first_parent,
                    dst_dir_fd=parent,
                    follow_symlinks=False,
                )
            except OSError as error:
                self._not_made(error, "hard links")
                return facts is not None and self._copy(first, path, facts)
            replace(parent, draft, name)
            # Where both were the same file already, nothing was renamed.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=parent)
        finally:
            os.close(first_parent)
        return True

    def _copy(self, first: bytes, path: bytes, facts: Facts) -> bool:
        found = self.open_file(first)
        if found is None:
            return False
        with os.fdopen(found, "rb") as file:
            self.write_file(path, iter(lambda: file.read(_PIECE), b"")).publish(facts)
        return True

    def settle_folder(self, path: bytes, facts: Facts) -> None:
        """Give a folder its metadata, once nothing more is written into it."""
        parent, name = self.at(path)
        fd = self._folders.below(parent, name)
        try:
            self.settle(fd, facts)
        finally:
            os.close(fd)

    def settle(self, fd: int, facts: Facts) -> None:
        """Give an open file or folder its metadata, whoever made it.

        It may be somebody else's, or have attributes that the snapshot has not.
        """
        self._careful().settle(fd, facts)

    def _careful(self) -> Settler:
        return dataclasses.replace(self._settler, former=USERS)

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
        check_name(name)
        if folder != self._folders.path:
            fd = self._folders.go_to(folder)
            facts = os.fstat(fd)
            self._parent_device = facts.st_dev
            self._settler.former = handed_down(fd, facts.st_mode)
        return self._folders.fd, name

    def forget_parent(self) -> None:
        """Let go of the folder that is kept open; a forked process must not share it."""
        self._folders.forget()
        self._process = os.getpid()

    def entries(self) -> Iterator[tuple[bytes, bool]]:
        """Yield (path, is folder) of what is there, folders before what they hold."""
        waiting = self._entries_of(b"")
        while waiting:
            path, is_folder = waiting.pop()
            yield path, is_folder
            if is_folder:
                waiting += self._entries_of(path)

    def _entries_of(self, folder: bytes) -> list[tuple[bytes, bool]]:
        """Return (path, is folder) of what a folder holds, the last first; [] where it is gone."""
        try:
            fd = self._folders.open(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(fd) as listing:
                found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in listing]
        finally:
            os.close(fd)
        return [(join(folder, name), is_dir) for name, is_dir in sorted(found, reverse=True)]

    def holds_mount(self, path: bytes) -> bool:
        """Whether something is mounted at an entry, or anywhere below it."""
        return is_mounted_below(os.path.join(self.root, path))

    def remove(self, path: bytes) -> None:
        """Remove an entry and all below it."""
        parent, name = self.at(path)
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(facts.st_mode):
            remove_tree(parent, name)
        else:
            os.unlink(name, dir_fd=parent)


def _is_file(parent: int, name: bytes) -> bool:
    """Whether a name is there, and no folder: anything else may have a second name."""
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
