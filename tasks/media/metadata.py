"""Giving what was restored its owner, mode, times and attributes, and telling what is not kept."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# What a file system, or a user without rights, answers to what it cannot keep.
NOT_KEPT = (
    *(errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL),
    *(errno.ENOSPC, errno.E2BIG, errno.EOVERFLOW),
)
_ACL = "system.posix_acl_"
# The kinds of attributes that what is made in a folder may get from it, and those that users give.
HANDED_DOWN = (_ACL,)
USERS = (_ACL, "user.")
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_RIGHTS = 0o777
# Nanoseconds: all keep what lies between 1970 and 2038; FAT keeps every second second.
_LATEST, _COARSE = 2**31 * 10**9, 2 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The metadata that an entry gets back."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: list[tuple[str, bytes]]


@dataclass(slots=True)
class Settler:
    """Gives entries their metadata; what could not be kept is counted by kind in `not_kept`.

    `exact` says that the file system keeps modes and times as they are given, so that nobody has to
    look. `former` are the kinds of attributes that an entry may have before it is settled; where it
    has none, its owner is who restores.
    """

    not_kept: Counter[str] = field(default_factory=Counter)
    exact: bool = True
    former: tuple[str, ...] = ()
    _may_own: bool = field(default_factory=lambda: os.geteuid() == 0)
    _own_ids: tuple[int, int] = field(default_factory=lambda: (os.geteuid(), os.getegid()))

    def settle(self, fd: int, facts: Facts) -> None:
        """Give an open file or folder its metadata: the owner first, the times last."""
        is_owned = self._own(lambda uid, gid: os.chown(fd, uid, gid), facts)
        self._drop_former(fd, facts)
        late = [pair for pair in facts.xattrs if pair[0].startswith(_ACL)]
        for name, value in facts.xattrs:
            if not name.startswith(_ACL):
                self._set_xattr(fd, name, value)
        mode = facts.mode
        if not is_owned and mode & _SPECIAL:
            mode = self._for_another(fd, mode)
        self._chmod(lambda mode: os.fchmod(fd, mode), mode)
        for name, value in late:
            self._set_xattr(fd, name, value)
        self._tolerate("times", lambda: os.utime(fd, ns=(facts.mtime_ns, facts.mtime_ns)))
        if not self.exact or not 0 <= facts.mtime_ns < _LATEST:
            self._compare(os.fstat(fd), facts, mode)

    def settle_at(self, parent: int, name: bytes, facts: Facts, *, is_link: bool) -> None:
        """Do the same for an entry that cannot be opened: a link, a fifo, a device."""
        self._own(
            lambda uid, gid: os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False), facts
        )
        path = b"/proc/self/fd/%d/%s" % (parent, name)
        if not is_link:
            self._drop_former(path, facts)
            self._chmod(lambda mode: os.chmod(name, mode, dir_fd=parent), facts.mode)
        for key, value in facts.xattrs:
            self._set_xattr(path, key, value)
        times = (facts.mtime_ns, facts.mtime_ns)
        self._tolerate(
            "times", lambda: os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        )

    def _own(self, chown: Callable[[int, int], None], facts: Facts) -> bool:
        """Give an entry its owner; False where it stays that of who restores."""
        if (facts.uid, facts.gid) == self._own_ids and not self.former:
            return True
        if not self._may_own:
            is_own = (facts.uid, facts.gid) == self._own_ids
            self.not_kept["owners"] += not is_own
            return is_own
        return self._tolerate("owners", lambda: chown(facts.uid, facts.gid))

    def _for_another(self, fd: int, mode: int) -> int:
        """Take bits away that would give the rights of who restores to whoever runs the file."""
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return mode
        self.not_kept["modes"] += 1
        return mode & ~_SPECIAL

    def _chmod(self, chmod: Callable[[int], None], mode: int) -> None:
        if not self._tolerate("modes", lambda: chmod(mode)) and mode & ~_RIGHTS:
            with contextlib.suppress(OSError):  # FAT refuses all where one bit is too much
                chmod(mode & _RIGHTS)

    def _compare(self, found: os.stat_result, facts: Facts, mode: int) -> None:
        """Count what was taken without an error, and was not kept."""
        if not self.not_kept["modes"] and stat.S_IMODE(found.st_mode) != mode:
            self.not_kept["modes"] += 1
        off = abs(found.st_mtime_ns - facts.mtime_ns)
        if off and not self.not_kept["times"]:
            self.not_kept["times" if off > _COARSE else "fractions of seconds"] += 1

    def _drop_former(self, file: int | bytes, facts: Facts) -> None:
        """Take away attributes that are not those of the snapshot."""
        if not self.former:
            return
        kept = {name for name, _ in facts.xattrs}
        with contextlib.suppress(OSError):  # a place without such attributes
            for name in os.listxattr(file):
                if name.startswith(self.former) and name not in kept:
                    os.removexattr(file, name)

    def _set_xattr(self, file: int | bytes, name: str, value: bytes) -> None:
        follow = isinstance(file, int)
        self._tolerate("attributes", lambda: os.setxattr(file, name, value, follow_symlinks=follow))

    def _tolerate(self, what: str, give: Callable[[], None]) -> bool:
        """Give something to an entry; False, and counted, where the place cannot keep it."""
        try:
            give()
        except OSError as error:
            if error.errno not in NOT_KEPT:
                raise
            self.not_kept[what] += 1
            return False
        return True


def handed_down(folder: int, mode: int) -> tuple[str, ...]:
    """Return the kinds of attributes that what is made in an open folder may get from there.

    Some are named as well where it hands down its group.
    """
    if mode & stat.S_ISGID:
        return HANDED_DOWN
    with contextlib.suppress(OSError):
        if f"{_ACL}default" in os.listxattr(folder):
            return HANDED_DOWN
    return ()


def has_attributes(fd: int, facts: Facts) -> bool:
    """Whether an open file has the attributes of a snapshot that users give, and no other."""
    found = {}
    with contextlib.suppress(OSError):
        found = {name: os.getxattr(fd, name) for name in os.listxattr(fd) if name.startswith(USERS)}
    return found == {name: value for name, value in facts.xattrs if name.startswith(USERS)}
