"""What a tree of files is, fact by fact, and where two trees differ.

Nothing of the program is used here. Everything is read relative to open directories, so paths may
be longer than the system's limit.
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
NOT_OURS = frozenset({"security.selinux"})  # set by the system, not by the owner of a file
SHOWN = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All about one entry that a restore must bring back; two are equal when the entries are."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0  # of files and of symlinks; 0 for what has no content
    sha256: str = ""
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    group: bytes = b""  # the first path, in byte order, of those that name the same file
    sparse: bool = False  # less is allocated than its size


Tree = Mapping[bytes, Facts]
FACTS = tuple(field.name for field in dataclasses.fields(Facts))


def snapshot_of(root: Path) -> dict[bytes, Facts]:
    """Read all facts of the tree under `root`; the root itself is the entry b''."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = {b"": (_identity(os.fstat(top)), _facts_of(top, b".", os.fstat(top)))}
        found |= {path: (who, facts) for path, who, facts in _walk(top, b"")}
    finally:
        os.close(top)
    firsts: dict[tuple[int, int], bytes] = {}
    for path in sorted(found):
        firsts.setdefault(found[path][0], path)
    return {
        path: dataclasses.replace(facts, group=firsts[who])
        for path, (who, facts) in sorted(found.items())
    }


def without(tree: Tree, *kinds: str) -> dict[bytes, Facts]:
    """Return the tree without the entries of some kinds, such as sockets."""
    return {path: facts for path, facts in tree.items() if facts.kind not in kinds}


def assert_same_tree(
    expected: Tree | Path, actual: Tree | Path, ignore: Collection[str] = ()
) -> None:
    """Fail with a list of all that is missing, extra or different.

    `ignore` names facts (`mtime_ns`, `sparse`, `xattrs`, ... or `owner` for uid and gid).
    Owners count only for root; a file that was not sparse may have become so.
    """
    __tracebackhide__ = True
    found = differences(_tree(expected), _tree(actual), ignore)
    if found:
        more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        lines = "\n  ".join([*found[:SHOWN], *more])
        raise AssertionError(f"the trees differ in {len(found)} ways:\n  {lines}")


def differences(expected: Tree, actual: Tree, ignore: Collection[str] = ()) -> list[str]:
    """Return one line for each path that is missing, extra or different."""
    facts = _facts_to_compare(ignore)
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        if path not in actual:
            lines.append(f"missing: {_shown(path)} ({expected[path].kind})")
        elif path not in expected:
            lines.append(f"extra: {_shown(path)} ({actual[path].kind})")
        else:
            lines += _unlike(path, expected[path], actual[path], facts)
    return lines


def _tree(given: Tree | Path) -> Tree:
    return snapshot_of(given) if isinstance(given, Path) else given


def _facts_to_compare(ignore: Collection[str]) -> list[str]:
    unknown = set(ignore) - set(FACTS) - {"owner"}
    if unknown:
        raise ValueError(f"no such fact to ignore: {sorted(unknown)}")
    left_out = set(ignore)
    if "owner" in left_out or os.geteuid() != 0:
        left_out |= {"uid", "gid"}
    return [fact for fact in FACTS if fact not in left_out]


def _unlike(path: bytes, expected: Facts, actual: Facts, facts: list[str]) -> Iterator[str]:
    for fact in facts:
        wanted, got = getattr(expected, fact), getattr(actual, fact)
        if wanted == got or (fact == "sparse" and not wanted):
            continue
        yield f"{fact} of {_shown(path)} ({expected.kind}): {_told(fact, wanted, got)}"


def _told(fact: str, wanted: object, got: object) -> str:
    if fact == "mode":
        return f"expected {wanted:04o}, is {got:04o}"
    if fact == "xattrs" and isinstance(wanted, tuple) and isinstance(got, tuple):
        lost, new = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
        return f"lost {_cut(repr(lost))}, new {_cut(repr(new))}"
    return f"expected {_cut(repr(wanted))}, is {_cut(repr(got))}"


def _shown(path: bytes) -> str:
    return _cut(repr(path)[1:]) if path else "the root"


def _cut(text: str, width: int = 160) -> str:
    return text if len(text) <= width else f"{text[: width // 2]}...{text[-width // 2 :]}"


def _walk(at: int, prefix: bytes) -> Iterator[tuple[bytes, tuple[int, int], Facts]]:
    with os.scandir(at) as entries:
        names = sorted(os.fsencode(entry.name) for entry in entries)
    for name in names:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        yield prefix + name, _identity(status), _facts_of(at, name, status)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            try:
                yield from _walk(below, prefix + name + b"/")
            finally:
                os.close(below)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _facts_of(at: int, name: bytes, status: os.stat_result) -> Facts:
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    is_file = kind == "file"
    return Facts(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind in ("file", "symlink") else 0,
        sha256=_sha256(at, name) if is_file else "",
        target=os.readlink(name, dir_fd=at) if kind == "symlink" else b"",
        rdev=status.st_rdev if kind in ("char", "block") else 0,
        xattrs=_xattrs(at, name),
        sparse=is_file and status.st_blocks * 512 < status.st_size,
    )


def _sha256(at: int, name: bytes) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(at: int, name: bytes) -> tuple[tuple[str, bytes], ...]:
    path = b"/proc/self/fd/%d/%s" % (at, name)
    try:
        keys = sorted(set(os.listxattr(path, follow_symlinks=False)) - NOT_OURS)
    except OSError:
        return ()  # the file system keeps none
    return tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys)


def bytes_on(*cartridges: Path) -> list[dict[bytes, Facts]]:
    """Return all facts of all that lies on some cartridges, to tell whether they were touched."""
    return [snapshot_of(cartridge) for cartridge in cartridges]
