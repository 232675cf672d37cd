"""Trees and changes drawn at random, as data that shows what a failing test was about.

A tree maps paths to nodes. A change names what it touches by number, not by path, so any sequence
of changes makes sense on any tree and can be made shorter. `materialise` and `apply_change` make
them real.
"""

import dataclasses
import errno
import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

from tests.helpers.trees import ODD_NAMES, SECOND

Past = dict[bytes, tuple[bytes, int]]

SIZES = (0, 1, 511, 512, 513, 1000, 4096, 70_000, 300_000)
FILE_MODES = (0o644, 0o600, 0o755, 0o444, 0o4755, 0o2755, 0o1644)
DIR_MODES = (0o755, 0o700, 0o1777, 0o2775)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dir:
    """A directory; its content is told by the paths below it."""

    mode: int = 0o755
    mtime_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of `size` bytes that follow from `seed`; few seeds, so many are alike."""

    size: int = 0
    seed: int = 0
    mode: int = 0o644
    mtime_ns: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    target: bytes
    mtime_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fifo:
    mode: int = 0o644
    mtime_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HardLink:
    """Another name of the file, symlink or fifo at `to`."""

    to: bytes


Node = Dir | File | Symlink | Fifo | HardLink
Tree = dict[bytes, Node]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One deed on a tree; `which` and `where` count through what it could be done to."""

    deed: str
    which: int = 0
    where: int = 0
    name: bytes = b"new"
    seed: int = 0
    mtime_ns: int = 0
    keep_mtime: bool = False


def names() -> st.SearchStrategy[bytes]:
    """Names of any bytes but NUL and slash; plain ones are likely, so that names meet again."""
    wild = st.binary(min_size=1, max_size=12).map(_nameable)
    long = st.integers(90, 255).map(lambda length: b"n" * length)
    plain = st.sampled_from((b"a", b"b", b"c", b"a.b", b"A", b"a-"))
    return st.one_of(plain, plain, wild, st.sampled_from(ODD_NAMES), long)


def times() -> st.SearchStrategy[int]:
    """Times from 1902 to 2261 in nanoseconds."""
    return st.integers(-2_145_916_800 * SECOND, 9_180_000_000 * SECOND) | st.sampled_from((0, -1))


def targets() -> st.SearchStrategy[bytes]:
    """What symlinks point at, mostly at nothing."""
    return st.one_of(names(), names().map(lambda name: b"../" + name), st.just(b"/etc"))


@st.composite
def files(draw: st.DrawFn) -> File:
    xattr = st.tuples(st.sampled_from(("user.a", "user.b=c")), st.binary(max_size=20))
    return File(
        size=draw(st.sampled_from(SIZES) | st.integers(0, 2000)),
        seed=draw(st.integers(0, 5)),
        mode=draw(st.sampled_from(_allowed(FILE_MODES))),
        mtime_ns=draw(times()),
        xattrs=tuple(draw(st.lists(xattr, max_size=2, unique_by=lambda pair: pair[0]))),
    )


def nodes() -> st.SearchStrategy[Node]:
    """Any entry but a hard link, which needs another to exist."""
    folders = st.builds(Dir, mode=st.sampled_from(_allowed(DIR_MODES)), mtime_ns=times())
    links = st.builds(Symlink, target=targets(), mtime_ns=times())
    fifos = st.builds(Fifo, mode=st.sampled_from((0o644, 0o600)), mtime_ns=times())
    return st.one_of(files(), files(), files(), folders, folders, links, fifos)


@st.composite
def trees(draw: st.DrawFn, max_entries: int = 12) -> Tree:
    """A tree of at least one file, with directories at most four deep."""
    tree: Tree = {draw(names()): draw(files())}
    for _ in range(draw(st.integers(0, max_entries - 1))):
        folders = [b"", *_paths(tree, Dir)]
        parent = draw(st.sampled_from([path for path in folders if path.count(b"/") < 3]))
        path = os.path.join(parent, draw(names()))
        node = draw(nodes())
        linkable = _paths(tree, File, Symlink, Fifo)
        if draw(st.integers(0, 7)) == 0:
            node = HardLink(to=draw(st.sampled_from(linkable)))
        tree.setdefault(path, node)
    return tree


def changes() -> st.SearchStrategy[Change]:
    return st.builds(
        Change,
        deed=st.sampled_from(sorted(_DEEDS)),
        which=st.integers(0, 30),
        where=st.integers(0, 8),
        name=names(),
        seed=st.integers(0, 9),
        mtime_ns=times(),
        keep_mtime=st.booleans(),
    )


def change_sequences(
    max_rounds: int = 3, max_changes: int = 4
) -> st.SearchStrategy[list[list[Change]]]:
    """Rounds of changes; a test backs up after each round."""
    one_round = st.lists(changes(), min_size=1, max_size=max_changes)
    return st.lists(one_round, min_size=1, max_size=max_rounds)


def materialise(tree: Mapping[bytes, Node], root: Path) -> None:
    """Make the tree real in `root`, which may be missing."""
    top = os.fsencode(root)
    os.makedirs(top, exist_ok=True)
    for path in sorted(tree, key=lambda path: path.count(b"/")):
        _make(os.path.join(top, path), tree[path])
    for path, node in tree.items():
        if isinstance(node, HardLink):
            link = os.path.join(top, node.to), os.path.join(top, path)
            os.link(*link, follow_symlinks=False)
    for path in sorted(tree, key=lambda path: -path.count(b"/")):
        node = tree[path]
        if isinstance(node, Dir):
            os.chmod(os.path.join(top, path), node.mode)
            _set_mtime(os.path.join(top, path), node.mtime_ns)


def apply_change(root: Path, change: Change, past: Past | None = None) -> str:
    """Do one change to the tree in `root`, and return what was really done.

    `past` remembers contents before they are edited, so that `revert` can bring them back.
    """
    top = os.fsencode(root)
    try:
        told = _DEEDS[change.deed](top, change, {} if past is None else past)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EMLINK):
            raise
        told = f"cannot: {os.strerror(error.errno)}"
    return f"{change.deed}: {told or 'nothing to do it to'}"


def _nameable(raw: bytes) -> bytes:
    name = raw.replace(b"\0", b"\x01").replace(b"/", b"\\")
    return b"dots" if name in (b".", b"..") else name


def _allowed(modes: Sequence[int]) -> list[int]:
    return [*modes, 0o000] if os.geteuid() == 0 else list(modes)


def _paths(tree: Mapping[bytes, Node], *kinds: type[Node]) -> list[bytes]:
    return sorted(path for path, node in tree.items() if isinstance(node, kinds))


def _make(path: bytes, node: Node) -> None:
    match node:
        case Dir():
            os.mkdir(path)
        case File():
            _write(path, node.data)
            _set_xattrs(path, node.xattrs)
            os.chmod(path, node.mode)
            _set_mtime(path, node.mtime_ns)
        case Symlink():
            os.symlink(node.target, path)
            _set_mtime(path, node.mtime_ns)
        case Fifo():
            os.mkfifo(path)
            os.chmod(path, node.mode)
            _set_mtime(path, node.mtime_ns)


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _set_mtime(path: bytes, mtime_ns: int) -> None:
    os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _set_xattrs(path: bytes, xattrs: Sequence[tuple[str, bytes]]) -> None:
    for key, value in xattrs:
        try:
            os.setxattr(path, key, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise


def _all(top: bytes) -> list[bytes]:
    """Return the full paths of all that is below `top`."""
    return sorted(
        os.path.join(folder, name)
        for folder, folders, others in os.walk(top)
        for name in (*folders, *others)
    )


def _kind(path: bytes) -> int:
    return stat.S_IFMT(os.lstat(path).st_mode)


def _pick(paths: Sequence[bytes], number: int) -> bytes | None:
    return paths[number % len(paths)] if paths else None


def _pick_any(top: bytes, change: Change) -> bytes | None:
    return _pick(_all(top), change.which)


def _pick_file(top: bytes, change: Change, least: int = 0) -> bytes | None:
    fits = [p for p in _all(top) if _kind(p) == stat.S_IFREG and os.lstat(p).st_size >= least]
    return _pick(fits, change.which)


def _pick_dir(top: bytes, change: Change) -> bytes | None:
    return _pick([path for path in _all(top) if _kind(path) == stat.S_IFDIR], change.which)


def _new_path(top: bytes, change: Change) -> bytes | None:
    """Return a path that is not taken, in the directory that `where` counts to."""
    folders = [top, *(path for path in _all(top) if _kind(path) == stat.S_IFDIR)]
    path = os.path.join(folders[change.where % len(folders)], change.name)
    return None if os.path.lexists(path) else path


def _alter(path: bytes, data: bytes, change: Change, past: Past) -> None:
    """Write new content into the file that is there, and remember what it held."""
    before = os.lstat(path)
    past.setdefault(path, (_read(path), before.st_mtime_ns))
    _write(path, data)
    if change.keep_mtime:
        _set_mtime(path, before.st_mtime_ns)


def _edit(top: bytes, change: Change, past: Past) -> str:
    path = _pick_file(top, change, least=1)
    if path is None:
        return ""
    data = bytearray(_read(path))
    data[change.seed * 7919 % len(data)] ^= 1 + change.seed
    _alter(path, bytes(data), change, past)
    return f"{path!r}, same size" + (" and same mtime" if change.keep_mtime else "")


def _append(top: bytes, change: Change, past: Past) -> str:
    path = _pick_file(top, change)
    if path is None:
        return ""
    _alter(path, _read(path) + b"more\n" * (1 + change.seed), change, past)
    return repr(path)


def _truncate(top: bytes, change: Change, past: Past) -> str:
    path = _pick_file(top, change, least=1)
    if path is None:
        return ""
    data = _read(path)
    _alter(path, data[: len(data) * change.seed // 10], change, past)
    return repr(path)


def _move(path: bytes | None, new: bytes | None) -> str:
    if path is None or new is None or new.startswith(path + b"/"):
        return ""
    os.rename(path, new)
    return f"{path!r} to {new!r}"


def _rename(top: bytes, change: Change, past: Past) -> str:
    return _move(_pick_any(top, change), _new_path(top, change))


def _move_directory(top: bytes, change: Change, past: Past) -> str:
    return _move(_pick_dir(top, change), _new_path(top, change))


def _delete(top: bytes, change: Change, past: Past) -> str:
    path = _pick_any(top, change)
    if path is None:
        return ""
    _remove(path)
    return repr(path)


def _remove(path: bytes) -> None:
    if _kind(path) == stat.S_IFDIR:
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _chmod(top: bytes, change: Change, past: Past) -> str:
    path = _pick([path for path in _all(top) if _kind(path) != stat.S_IFLNK], change.which)
    if path is None:
        return ""
    modes = _allowed(DIR_MODES if _kind(path) == stat.S_IFDIR else FILE_MODES)
    os.chmod(path, modes[change.seed % len(modes)])
    return f"{path!r} {modes[change.seed % len(modes)]:04o}"


def _touch(top: bytes, change: Change, past: Past) -> str:
    path = _pick_any(top, change)
    if path is None:
        return ""
    _set_mtime(path, change.mtime_ns)
    return f"{path!r} {change.mtime_ns}"


def _hard_link(top: bytes, change: Change, past: Past) -> str:
    path = _pick([path for path in _all(top) if _kind(path) != stat.S_IFDIR], change.which)
    new = _new_path(top, change)
    if path is None or new is None:
        return ""
    os.link(path, new, follow_symlinks=False)
    return f"{path!r} as {new!r}"


def _file_to_dir(top: bytes, change: Change, past: Past) -> str:
    path = _pick_file(top, change)
    if path is None:
        return ""
    os.unlink(path)
    os.mkdir(path)
    _write(os.path.join(path, b"inside"), b"was a file\n")
    return repr(path)


def _dir_to_file(top: bytes, change: Change, past: Past) -> str:
    path = _pick_dir(top, change)
    if path is None:
        return ""
    shutil.rmtree(path)
    _write(path, b"was a directory\n")
    return repr(path)


def _copy(top: bytes, change: Change, past: Past) -> str:
    path, new = _pick_file(top, change), _new_path(top, change)
    if path is None or new is None:
        return ""
    (shutil.copy2 if change.keep_mtime else shutil.copyfile)(path, new)
    return f"{path!r} to {new!r}"


def _revert(top: bytes, change: Change, past: Past) -> str:
    known = [p for p in sorted(past) if os.path.lexists(p) and _kind(p) == stat.S_IFREG]
    path = _pick(known, change.which)
    if path is None:
        return ""
    data, mtime_ns = past[path]
    _write(path, data)
    _set_mtime(path, mtime_ns)
    return f"{path!r} as it was"


def _create(top: bytes, change: Change, past: Past) -> str:
    path = _new_path(top, change)
    if path is None:
        return ""
    _write(path, File(size=SIZES[change.which % len(SIZES)], seed=change.seed).data)
    return repr(path)


def _point_elsewhere(top: bytes, change: Change, past: Past) -> str:
    path = _pick([path for path in _all(top) if _kind(path) == stat.S_IFLNK], change.which)
    if path is None:
        return ""
    mtime_ns = os.lstat(path).st_mtime_ns
    target = os.readlink(path)
    os.unlink(path)
    os.symlink(target[:-1] + b"!", path)
    _set_mtime(path, mtime_ns)
    return repr(path)


_DEEDS: dict[str, Callable[[bytes, Change, Past], str]] = {
    "edit": _edit,
    "append": _append,
    "truncate": _truncate,
    "rename": _rename,
    "move directory": _move_directory,
    "delete": _delete,
    "chmod": _chmod,
    "touch": _touch,
    "hard link": _hard_link,
    "file to directory": _file_to_dir,
    "directory to file": _dir_to_file,
    "copy": _copy,
    "revert": _revert,
    "create": _create,
    "point elsewhere": _point_elsewhere,
}
