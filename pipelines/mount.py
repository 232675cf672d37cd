"""`cartridge mount`: all snapshots as read-only folders, through FUSE."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import pyarrow as pa
import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, complain
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog import runlog
from tasks.catalog.filesystem import Filesystem, OpenFile
from tasks.catalog.retrieval import Retrieval
from tasks.catalog.runs import Place
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.media.memory import give_memory_back
from tasks.model.errors import CartridgeWanted, MountFailed, UsageError
from tasks.model.profile import Profile

Result = TypeVar("Result")

_LOG = "mount"
# How libfuse 3 tells that a signal ended it; libfuse 2 returns 0.
_SIGNALLED = 8
# The program that mounts for users, and unmounts even where this process is killed.
_HELPERS = {2: "fusermount", 3: "fusermount3"}
_BLOCK = 4096


@app.command(epilog="Example: cartridge mount home /mnt/home")
def mount(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An empty folder.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show all snapshots as read-only folders until Ctrl-C, SIGTERM or `fusermount -u DIR`.

    DIR/<snapshot>/<source>/... is read from the cartridges that are present; DIR/latest is the
    newest snapshot.
    """
    voice = Voice(json)

    def action() -> None:
        root = find_workspace(workspace)
        profile, place = load_profile(root, name), Place(root, name)
        path = os.path.abspath(folder)
        fuse = _library()
        _require_empty(path)
        with contextlib.suppress(OSError):  # nothing else is written to the workspace
            runlog.begin(place)
            durable.remove(runlog.path(place, _LOG))
        give_memory_back()
        pa.set_memory_pool(pa.system_memory_pool())

        def ready() -> None:
            line = f"{name} is mounted at {path}; Ctrl-C ends it."
            voice.result({"profile": name, "mounted": path}, [line])
            sys.stdout.flush()

        retrieval = Retrieval(place.store, lambda serial: _present(profile, place, serial))
        files = Filesystem(place.store, retrieval)
        _serve(fuse, Operations(files, Troubles(place), ready), path, name)

    finish(voice, action)


def _library() -> Any:
    """Return mfusepy; UsageError where it, libfuse or the kernel's part is missing."""
    try:
        import mfusepy
    except ImportError:
        reason = "A mount needs mfusepy: pip install 'cartridge-backup[mount]'."
        raise UsageError(reason=reason) from None
    except OSError as error:  # it looks for libfuse when it is loaded
        reason = f"A mount needs libfuse, of the package fuse3 or libfuse3-3 ({error})."
        raise UsageError(reason=reason) from None
    if not os.path.exists("/dev/fuse"):
        raise UsageError(reason="A mount needs /dev/fuse: load the kernel's module fuse.")
    return mfusepy


def _require_empty(path: str) -> None:
    try:
        found = os.listdir(path)
    except OSError as error:
        reason = f"{path} is no folder to mount at: {error.strerror}."
        raise UsageError(reason=reason) from error
    if found:
        raise UsageError(reason=f"{path} is not empty: name an empty folder to mount at.")


def _present(profile: Profile, place: Place, serial: int) -> Cartridge | None:
    """Look for a cartridge as a restore does."""
    from pipelines.loading import Loader

    return Loader(profile, place, ask=False).find(serial)


def _serve(fuse: Any, operations: Operations, path: str, name: str) -> None:
    """Mount, answer until the end, and unmount; MountFailed where the system refuses."""
    options: dict[str, Any] = {
        "foreground": True,
        "ro": True,
        "use_ino": True,  # hard links have one number
        "kernel_cache": True,  # what a snapshot has never changes
        "auto_unmount": shutil.which(_HELPERS[fuse.fuse_version_major]) is not None,
        "fsname": f"cartridge-{name}",
        "subtype": "cartridge",
    }
    try:
        with _signals_for_libfuse():
            fuse.FUSE(operations, path, **options)
    except RuntimeError as error:
        if error.args != (_SIGNALLED,):
            raise MountFailed(path=path, reason="FUSE refused it, for the reason above") from error


@contextlib.contextmanager
def _signals_for_libfuse() -> Iterator[None]:
    """Leave the signals that end a program to libfuse, which takes only those nobody handles."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Troubles:
    """What could not be read: a line each on standard error and in the log `mount`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._last = ""

    def tell(self, shown: str, error: Exception) -> None:
        """Name the file, and what it lacks; once, however often somebody tries to read it."""
        if isinstance(error, CartridgeWanted):
            line = f"{shown} needs {error.facts['label']}, which is not here"
        else:
            line = f"{shown} cannot be read: {error}"
        line = line.replace("\n", "\N{REPLACEMENT CHARACTER}")
        if line == self._last:
            return
        self._last = line
        runlog.log(self._place, _LOG, "unreadable", path=shown, message=line)
        with contextlib.suppress(OSError):  # the terminal may be gone
            complain(line)


def _answering(operation: Callable[..., Result]) -> Callable[..., Result]:
    """Turn what goes wrong into an error number for the reader, and a line for whoever mounted."""

    @functools.wraps(operation)
    def answered(self: Operations, path: str | None, *args: Any) -> Result:
        try:
            return operation(self, path, *args)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODATA, errno.EINVAL, errno.ESTALE):
                raise
            raise self.trouble(path, error, args) from error
        except Exception as error:  # what nobody foresaw must not end the mount
            raise self.trouble(path, error, args) from error

    return answered


class Operations:
    """What libfuse asks; the kernel itself refuses everything that would write (EROFS)."""

    use_ns = True  # mfusepy: times are nanoseconds

    def __init__(self, files: Filesystem, troubles: Troubles, ready: Callable[[], None]) -> None:
        self._files = files
        self._troubles = troubles
        self._ready = ready
        self._numbers = itertools.count(1)
        self._open: dict[int, OpenFile] = {}

    def trouble(self, path: str | None, error: Exception, args: tuple[Any, ...]) -> OSError:
        """Tell of an error, and return what the reader gets."""
        file = self._open.get(args[-1]) if args and isinstance(args[-1], int) else None
        shown = file.shown if file else _raw(path or "").decode("utf-8", "replace")
        self._troubles.tell(shown, error)
        return OSError(errno.EIO, os.strerror(errno.EIO))

    def init(self, path: str) -> None:
        """Say that the mount is ready."""
        with contextlib.suppress(OSError):
            self._ready()

    @_answering
    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        """Describe an entry as `lstat` does."""
        found = self._files.status(_raw(path))
        return {
            "st_mode": found.mode,
            "st_ino": found.inode,
            "st_nlink": found.nlink,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_rdev": found.rdev,
            "st_size": found.size,
            "st_blocks": found.blocks,
            "st_blksize": _BLOCK,
            "st_atime": found.mtime_ns,
            "st_mtime": found.mtime_ns,
            "st_ctime": found.ctime_ns,
        }

    @_answering
    def readdir(self, path: str, handle: int) -> list[tuple[str, dict[str, int], int]]:
        """List a folder."""
        names = self._files.names(_raw(path))
        return [(_text(name), {"st_mode": kind, "st_ino": inode}, 0) for name, kind, inode in names]

    @_answering
    def readlink(self, path: str) -> str:
        """Return what a symlink points at."""
        return _text(self._files.target(_raw(path)))

    @_answering
    def listxattr(self, path: str) -> list[str]:
        """Name the extended attributes of an entry."""
        return list(self._files.attributes(_raw(path)))

    @_answering
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """Return an extended attribute."""
        found = self._files.attributes(_raw(path)).get(name)
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found

    @_answering
    def open(self, path: str, flags: int) -> int:
        """Open a file; whether its cartridge is here shows when it is read."""
        handle = next(self._numbers)
        self._open[handle] = self._files.open(_raw(path))
        return handle

    @_answering
    def read(self, path: str | None, size: int, offset: int, handle: int) -> bytes:
        """Return bytes that have been checked."""
        return self._files.read(self._open[handle], offset, size)

    def release(self, path: str | None, handle: int) -> int:
        """Forget an open file."""
        self._open.pop(handle, None)
        return 0

    @_answering
    def statfs(self, path: str) -> dict[str, int]:
        """Tell of a file system that is full."""
        return {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_namemax": 255}


def _raw(path: str) -> bytes:
    return path.strip("/").encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
