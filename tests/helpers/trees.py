"""Trees to back up: a farm of everything odd that a Unix file system can hold, and a plain one.

All work is done relative to an open directory, so that paths longer than the system's limit can be
made. What needs root, or a feature that the file system lacks, is left out quietly.
"""

import contextlib
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

SECOND = 1_000_000_000
KIB = 1024
MIB = 1024 * KIB

ODD_NAMES: tuple[bytes, ...] = (
    b"plain",
    b" leading space",
    b"trailing space ",
    b" ",
    b"tab\tbetween",
    b"new\nline",
    b"\nnewline first",
    b"newline last\n",
    b"carriage\rreturn",
    b"-rf",
    b"--checkpoint-action=exec=false",
    b"-",
    b"single'quote",
    b'double"quote',
    b"`back`ticks",
    b"$HOME",
    b"$(false)",
    b"back\\slash",
    b"ends with backslash\\",
    b"\\",
    b"octal \\012 escape",
    b"*?[a-z]",
    b"**",
    b"[",
    b"{a,b}",
    b"#hash",
    b"!bang",
    b"a!b",
    b"~",
    b"~root",
    b"host:file",
    b"C:\\path",
    b"a|b;c&d<e>f",
    b"percent%20%s%n",
    b"=equals=",
    b"key=value",
    b"...",
    b"..two",
    b".hidden",
    b"...tar.lz4",
    b"dot.",
    b"@at",
    b"control\x01\x02\x7f",
    b"escape\x1b[31mred",
    b"bell\x07backspace\x08",
    b"latin1 caf\xe9",
    b"\xff\xfe\xfd",
    b"\xc3",
    b"\xed\xa0\x80 half a surrogate",
    b"same \xff shown",
    b"same \xfe shown",
    b"same \xef\xbf\xbd shown",
    b"\xef\xbb\xbfbyte order mark",
    "emoji \N{SNOWMAN}\N{PILE OF POO}".encode(),
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467".encode(),
    "right to left \u05d0\u05d1 \u202etxt.exe".encode(),
    "line\u2028separator".encode(),
    "composed \u00e9".encode(),
    "composed e\u0301".encode(),
    b"Case Twin",
    b"case twin",
    b"CASE TWIN",
)

FILE_MODES = (0o000, 0o111, 0o400, 0o444, 0o600, 0o644, 0o755, 0o777)
SPECIAL_MODES = (0o1644, 0o2755, 0o4755, 0o6711, 0o7777)
DIR_MODES = (0o000, 0o311, 0o500, 0o555, 0o700, 0o777, 0o1777, 0o2775, 0o3777)

TIMES: tuple[tuple[bytes, int], ...] = (
    (b"epoch", 0),
    (b"one nanosecond", 1),
    (b"one nanosecond before", -1),
    (b"half a second before", -SECOND // 2),
    (b"one second before", -SECOND),
    (b"in 1965", -157_766_400 * SECOND + 123_456_789),
    (b"in 1902", -2_145_916_800 * SECOND + 999_999_999),
    (b"all nine digits", 1_234_567_890 * SECOND + 987_654_321),
    (b"last digit only", 1_500_000_000 * SECOND + 1),
    (b"whole second", 1_600_000_000 * SECOND),
    (b"after 2038", 2_200_000_000 * SECOND + 500),
    (b"after 2106", 7_258_118_400 * SECOND + 7),
)

WORDS = ("the", "tape", "box", "ship", "lamp", "paper", "river", "stone", "under", "over", "slow")


def funny_farm(root: Path, *, sockets: bool = False) -> None:
    """Build a tree in `root` of all the odd things that a backup must bring back.

    `sockets` adds Unix sockets, which a backup skips. Contents and times do not depend on chance.
    """
    root.mkdir(parents=True, exist_ok=True)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name, grow in _PLOTS.items():
            with _inside(top, name) as plot:
                grow(plot)
        if sockets:
            with _inside(top, b"sockets") as plot:
                _bind_socket(plot, b"a socket")
    finally:
        os.close(top)


def small_tree(root: Path, files: int = 50, seed: int = 1) -> None:
    """Write `files` files of text and of random bytes in a few folders; `seed` decides all."""
    chance = random.Random(seed)
    folders = [root, root / "letters", root / "pictures", root / "pictures" / "summer", root / "x"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        size = chance.randrange(1, 40_000)
        text = number % 2 == 0
        data = text_of(size, chance) if text else chance.randbytes(size)
        name = f"{number:04}.{'txt' if text else 'bin'}"
        (folders[number % len(folders)] / name).write_bytes(data)


def text_of(size: int, chance: random.Random) -> bytes:
    """Return `size` bytes of lines of words, which compress well."""
    lines: list[str] = []
    length = 0
    while length < size:
        lines.append(" ".join(chance.choices(WORDS, k=9)) + "\n")
        length += len(lines[-1])
    return "".join(lines).encode()[:size]


@contextlib.contextmanager
def _inside(at: int, name: bytes) -> Iterator[int]:
    """Make the directory `name` in `at` where it is missing, and open it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=at)
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    try:
        yield opened
    finally:
        os.close(opened)


def _write(at: int, name: bytes, data: bytes = b"") -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _link(at: int, name: bytes, other: int, new: bytes) -> None:
    os.link(name, new, src_dir_fd=at, dst_dir_fd=other, follow_symlinks=False)


def _by_fd(at: int, name: bytes) -> bytes:
    """Return a short path to `name` for calls that take no directory."""
    return b"/proc/self/fd/%d/%s" % (at, name)


def _is_root() -> bool:
    return os.geteuid() == 0


def _grow_names(at: int) -> None:
    for number, name in enumerate(ODD_NAMES):
        _write(at, name, b"called %d\n" % number)
    with _inside(at, b"directories") as folders:
        for name in ODD_NAMES:
            with _inside(folders, name) as folder:
                _write(folder, name)
    with _inside(at, b"links") as links:
        for name in ODD_NAMES:
            os.symlink(name, name + b" link", dir_fd=links)
            os.link(name, name + b" twin", src_dir_fd=at, dst_dir_fd=links)


def _grow_order(at: int) -> None:
    """Names whose order depends on whether a directory counts as `a` or as `a/`."""
    for name in (b"a!", b"a-b", b"a.b", b"a0", b"ab", b"a\x01", b"a\xff"):
        _write(at, name, name)
    with _inside(at, b"a") as folder:
        for name in (b"-", b"0", b"x"):
            _write(folder, name)
    with _inside(at, b"a.d"):
        pass


def _grow_lengths(at: int) -> None:
    """Paths about every limit that tar headers have: 100, 155 and 256 bytes, and 255 in a name."""
    for length in range(60, 102):
        _write(at, b"n" * length)
    for length in (254, 255):
        _write(at, b"l" * length, b"long")
    with _inside(at, b"d" * 255) as folder:
        _write(folder, b"f" * 44, b"a path of 300 bytes")
    with _inside(at, b"p" * 140) as prefix:
        for length in range(94, 104):
            _write(prefix, b"s" * length)
    with _inside(at, "\N{SNOWMAN}".encode() * 85) as folder:
        _write(folder, b"wide")


def _grow_deep(at: int, depth: int = 19) -> None:
    """Go down 19 directories of 200 bytes each, to a file with a path of 4,064 bytes.

    Any absolute path to it is longer than Linux takes, so only relative ones lead there.
    """
    if depth:
        with _inside(at, b"%02d-" % depth + b"d" * 197) as below:
            _grow_deep(below, depth - 1)
        return
    bottom = b"bottom" + b"b" * 234
    _write(at, bottom, b"deep down\n")
    os.link(bottom, b"twin", src_dir_fd=at, dst_dir_fd=at)
    os.symlink(bottom, b"link", dir_fd=at)
    with _inside(at, b"empty"):
        pass


def _grow_sizes(at: int) -> None:
    chance = random.Random(2)
    for size in (0, 1, 511, 512, 513, 4095, 4096, 4097, 10_239, 10_240, 65_536):
        _write(at, b"of %d" % size, chance.randbytes(size))
    _write(at, b"zeros", bytes(100_000))
    _write(at, b"text", text_of(MIB, chance))
    _write(at, b"random", chance.randbytes(3 * MIB))
    with _inside(at, b"empty"):
        pass
    with _inside(at, b"nested empty") as one, _inside(one, b"in") as two, _inside(two, b"one"):
        pass


def _grow_twins(at: int) -> None:
    big, small = random.Random(3).randbytes(200_000), b"the same\n"
    with _inside(at, b"other") as other:
        for folder in (at, other):
            _write(folder, b"big", big)
            _write(folder, b"big copy", big)
            _write(folder, b"small", small)
            _write(folder, b"empty")
        _write(other, b"same size", random.Random(4).randbytes(200_000))


def _grow_hard_links(at: int) -> None:
    _write(at, b"first", b"one file, many names\n")
    _write(at, b"empty")
    os.mkfifo(b"fifo", dir_fd=at)
    os.symlink(b"first", b"symlink", dir_fd=at)
    with _inside(at, b"a before") as early, _inside(at, b"z after") as late:
        for name in (b"first", b"empty", b"fifo", b"symlink"):
            for folder in (at, early, late):
                _link(at, name, folder, b"twin of " + name)
        _write(late, b"only below", b"met late\n")
        os.link(b"only below", b"again", src_dir_fd=late, dst_dir_fd=late)


def _grow_symlinks(at: int) -> None:
    _write(at, b"file", b"pointed at\n")
    with _inside(at, b"folder") as folder:
        _write(folder, b"inside")
        os.symlink(b"../file", b"up", dir_fd=folder)
    targets = {
        b"to file": b"file",
        b"to folder": b"folder",
        b"to folder slash": b"folder/",
        b"dangling": b"no such thing",
        b"absolute": b"/etc/passwd",
        b"to root": b"/",
        b"to itself": b"to itself",
        b"to parent": b"..",
        b"to here": b".",
        b"twisted": b"./folder//../file",
        b"not utf-8": b"\xff\xfe\xe9",
        b"newline": b"a\nb",
        b"spaces": b" a b ",
        b"dash": b"-rf",
        b"99 bytes": b"t" * 99,
        b"100 bytes": b"t" * 100,
        b"101 bytes": b"t" * 101,
        b"4000 bytes": b"deep/" * 800,
    }
    for name, target in targets.items():
        os.symlink(target, name, dir_fd=at)


def _grow_specials(at: int) -> None:
    os.mkfifo(b"fifo", 0o640, dir_fd=at)
    os.mkfifo(b"fifo \xff", dir_fd=at)
    if not _is_root():
        return
    nodes = (
        (b"null", stat.S_IFCHR, 1, 3),
        (b"block", stat.S_IFBLK, 8, 77),
        (b"large", stat.S_IFCHR, 4000, 1_000_000),
    )
    for name, kind, major, minor in nodes:
        with contextlib.suppress(PermissionError):
            os.mknod(name, kind | 0o620, os.makedev(major, minor), dir_fd=at)


def _bind_socket(at: int, name: bytes) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as end:
        end.bind(_by_fd(at, name))


def _grow_sparse(at: int) -> None:
    chance = random.Random(5)
    block = chance.randbytes(64 * KIB)
    many = [(step * 256 * KIB, chance.randbytes(4 * KIB)) for step in range(40)]
    _write_sparse(at, b"leading hole", 2 * MIB, [(2 * MIB - len(block), block)])
    _write_sparse(at, b"trailing hole", 3 * MIB, [(0, block)])
    _write_sparse(at, b"all hole", 20 * MIB, [])
    _write_sparse(at, b"one hole", 2 * MIB, [(0, block), (2 * MIB - len(block), block)])
    _write_sparse(at, b"many holes", 40 * 256 * KIB, many)
    _write_sparse(at, b"uneven", 5_000_003, [(1, b"early"), (3_333_333, b"late")])
    _write_sparse(at, b"ends uneven \xff", 700_001, [(300_000, b"data")])
    os.link(b"one hole", b"one hole, twin", src_dir_fd=at, dst_dir_fd=at)


def _write_sparse(at: int, name: bytes, size: int, pieces: list[tuple[int, bytes]]) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
    try:
        os.ftruncate(handle, size)
        for offset, data in pieces:
            os.pwrite(handle, data, offset)
    finally:
        os.close(handle)


def _grow_xattrs(at: int) -> None:
    _write(at, b"file", b"has attributes\n")
    _write(at, b"empty")
    _write(at, b"read only", b"has one too\n")
    with _inside(at, b"folder") as folder:
        _write(folder, b"without")
    values = {
        "user.text": b"plain",
        "user.empty": b"",
        "user.binary": bytes(range(256)),
        "user.lines": b"one\ntwo\n",
        "user.with=equals": b"a=b",
        "user.with space": b" ",
        "user.\N{SNOWMAN}": "\N{SNOWMAN}".encode(),
        "user.long": b"v" * 1500,
    }
    for name in (b"file", b"empty", b"folder"):
        for key, value in values.items():
            _set_xattr(at, name, key, value)
    _set_xattr(at, b"read only", "user.text", b"kept")
    os.chmod(b"read only", 0o444, dir_fd=at)
    if _is_root():
        _write(at, b"capable", b"may open raw sockets\n")
        net_raw = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
        _set_xattr(at, b"capable", "security.capability", net_raw)


def _set_xattr(at: int, name: bytes, key: str, value: bytes) -> None:
    with contextlib.suppress(OSError):
        os.setxattr(_by_fd(at, name), key, value, follow_symlinks=False)


def _grow_acls(at: int) -> None:
    _write(at, b"file", b"for a few\n")
    with _inside(at, b"folder") as folder:
        _write(folder, b"inside")
        _set_acl(at, b"folder", "-m", "u:1234:rwx,g:5678:r-x,d:u:1234:rwx,d:o:---")
        _write(folder, b"inherits")
        with _inside(folder, b"inherits too") as below:
            _write(below, b"and below")
    with _inside(at, b"default only") as folder:
        _set_acl(at, b"default only", "-m", "d:g:5678:rwx")
    _set_acl(at, b"file", "-m", "u:1234:rw-,u:99:r--,g:5678:---,m:r--")


def _set_acl(at: int, name: bytes, *options: str) -> None:
    if shutil.which("setfacl"):
        command: list[str | bytes] = ["setfacl", *options, "--", _by_fd(at, name)]
        subprocess.run(command, pass_fds=(at,), check=False, capture_output=True)


def _grow_modes(at: int) -> None:
    for mode in FILE_MODES + SPECIAL_MODES:
        if _is_root() or mode & 0o400:
            name = b"file %04o" % mode
            _write(at, name, name)
            os.chmod(name, mode, dir_fd=at)
    for mode in DIR_MODES:
        if _is_root() or mode & 0o500 == 0o500:
            name = b"folder %04o" % mode
            with _inside(at, name) as folder:
                _write(folder, b"inside", name)
                with _inside(folder, b"below"):
                    pass
            os.chmod(name, mode, dir_fd=at)


def _grow_times(at: int) -> None:
    for label, moment in TIMES:
        file, link, fifo, folder = (label + kind for kind in (b"", b" link", b" fifo", b" folder"))
        _write(at, file, label)
        os.symlink(file, link, dir_fd=at)
        os.mkfifo(fifo, dir_fd=at)
        with _inside(at, folder) as below:
            _write(below, b"newer than its folder")
        for name in (file, link, fifo, folder):
            os.utime(name, ns=(moment, moment), dir_fd=at, follow_symlinks=False)
    with _inside(at, b"old, with a twin") as inner:
        _write(inner, b"one", b"shared\n")
        os.link(b"one", b"two", src_dir_fd=inner, dst_dir_fd=inner)
        os.utime(b"one", ns=(5, 5), dir_fd=inner)
    os.utime(b"old, with a twin", ns=(-7, -7), dir_fd=at)


def _grow_owners(at: int) -> None:
    owners = ((0, 0), (1, 2), (1234, 5678), (65534, 65534), (3_000_000_000, 2_500_000_000))
    for uid, gid in owners if _is_root() else ():
        name = b"%d-%d" % (uid, gid)
        _write(at, name, b"setuid, too\n")
        os.symlink(name, name + b" link", dir_fd=at)
        with _inside(at, name + b" folder") as folder:
            _write(folder, b"inside")
        for made in (name, name + b" link", name + b" folder"):
            os.chown(made, uid, gid, dir_fd=at, follow_symlinks=False)
        os.chmod(name, 0o6755, dir_fd=at)
        os.chmod(name + b" folder", 0o2775, dir_fd=at)


_PLOTS: dict[bytes, Callable[[int], None]] = {
    b"names": _grow_names,
    b"order": _grow_order,
    b"lengths": _grow_lengths,
    b"deep": _grow_deep,
    b"sizes": _grow_sizes,
    b"twins": _grow_twins,
    b"hard links": _grow_hard_links,
    b"symlinks": _grow_symlinks,
    b"specials": _grow_specials,
    b"sparse": _grow_sparse,
    b"xattrs": _grow_xattrs,
    b"acls": _grow_acls,
    b"modes": _grow_modes,
    b"owners": _grow_owners,
    b"times": _grow_times,
}
