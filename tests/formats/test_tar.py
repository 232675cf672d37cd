"""Tar headers, held against GNU tar, bsdtar and Python's tarfile."""

import io
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.formats import tar

NS = 1_000_000_000
WHEN = 1_700_000_000 * NS
LOCALES = ("C", "C.UTF-8")
GNU = ("tar", "--extract", "--preserve-permissions", "--numeric-owner", "--file=-")
BSD = ("bsdtar", "-x", "-p", "-f", "-")
READERS = (pytest.param(GNU, id="gnu"), pytest.param(BSD, id="bsd"))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


def member(name: bytes, kind: str = "file", **fields: Any) -> tar.Member:
    """A member owned by whoever runs the tests, so that every reader may restore it."""
    defaults = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid(), "mtime_ns": WHEN}
    return tar.Member(name=name, kind=kind, **(defaults | fields))


def archive(*entries: tuple[bytes, bytes]) -> bytes:
    """Headers with the data that follows each."""
    parts = [head + data + tar.padding(len(data)) for head, data in entries]
    return b"".join(parts) + tar.END


# What GNU tar remarks on, and restores rightly all the same.
REMARKS = (b"Ignoring unknown extended header keyword 'hdrcharset'", b"implausibly old time stamp")


def extract(reader: Iterable[str], data: bytes, into: Path, *, locale: str = "C.UTF-8") -> None:
    done = subprocess.run(
        [*reader],
        input=data,
        cwd=into,
        env=os.environ | {"LC_ALL": locale},
        capture_output=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    complaints = [line for line in lines if not any(known in line for known in REMARKS)]
    assert (done.returncode, complaints) == (0, [])


def listed(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(
        fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape"
    ) as opened:
        return opened.getmembers()


def info(head: bytes) -> tarfile.TarInfo:
    """What tarfile makes of one header; no data need follow."""
    with tarfile.open(
        fileobj=io.BytesIO(head + tar.END), encoding="utf-8", errors="surrogateescape"
    ) as opened:
        found = opened.next()
        assert found is not None
        return found


def under(folder: Path, name: bytes) -> int:
    """Open a file that may lie deeper than one path can say."""
    at = os.open(folder, os.O_RDONLY)
    *steps, last = name.split(b"/")
    for step in steps:
        deeper = os.open(step, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    try:
        return os.open(last, os.O_RDONLY, dir_fd=at)
    finally:
        os.close(at)


def assert_holds(folder: Path, name: bytes, data: bytes) -> None:
    with os.fdopen(under(folder, name), "rb") as opened:
        assert opened.read() == data


def name_of(length: int) -> bytes:
    """A name of so many bytes, its parts as long as a file system takes them."""
    parts = []
    while length > 255:
        parts.append(b"d" * min(200, length - 2))
        length -= len(parts[-1]) + 1
    return b"/".join([*parts, b"f" * length])


# The shape of what is written.


def test_an_ordinary_file_needs_one_block_and_no_extended_header() -> None:
    head = tar.file_header(b"a/b", 5, 0o644, 1000, 1000, "me", "us", WHEN)
    assert len(head) == 512
    assert head[156:157] == b"0"


def test_the_fast_path_and_the_general_path_write_the_same_bytes() -> None:
    xattrs = [("user.a", b"1")]
    for name in (b"short", name_of(180), name_of(3000), b"\xff" * 101):
        for when in (WHEN, WHEN + 1, -1):
            whole = member(name, size=7, user="me", group="us", mtime_ns=when, xattrs=xattrs)
            uid, gid = whole.uid, whole.gid
            fast = tar.file_header(name, 7, 0o644, uid, gid, "me", "us", when, xattrs)
            assert fast == tar.header(whole)


def test_a_ustar_block_is_byte_for_byte_the_one_gnu_tar_writes(tmp_path: Path) -> None:
    for name in ("plain", "d" * 90 + "/" + "f" * 95, "p" * 155 + "/" + "f" * 100):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"hello")
        path.chmod(0o640)
        os.utime(path, ns=(WHEN, WHEN))
        command = ["tar", "-c", "--format=ustar", "--owner=me:7", "--group=us:8", "-f", "-", name]
        theirs = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
        ours = tar.file_header(name.encode(), 5, 0o640, 7, 8, "me", "us", WHEN)
        assert ours == theirs[:512]


def test_padding_fills_up_to_whole_blocks() -> None:
    assert [len(tar.padding(n)) for n in (0, 1, 511, 512, 513, 1 << 40)] == [0, 511, 1, 0, 511, 0]
    assert set(tar.padding(1)) == {0}
    assert bytes(1024) == tar.END


@pytest.mark.parametrize("length", [*range(1, 40), *range(80, 130), 980, 990, 9970, 9990, 65536])
def test_a_record_counts_its_own_length(length: int) -> None:
    found = info(tar.file_header(b"f", 0, 0o644, 0, 0, "", "", WHEN, [("user.x", b"v" * length)]))
    assert found.pax_headers == {"SCHILY.xattr.user.x": "v" * length}


def test_the_checksum_is_right_where_every_byte_is_high() -> None:
    name = b"\xff" * 150 + b"/" + b"\xff" * 100
    found = info(tar.header(member(name, "symlink", link_target=b"\xff" * 100)))
    assert (os.fsencode(found.name), os.fsencode(found.linkname)) == (name, b"\xff" * 100)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tar.header(member(b"s", "socket")), "kind 'socket'"),
        (lambda: tar.header(member(b"", "dir")), "needs a name"),
        (lambda: tar.header(member(b"f", size=-1)), "size of -1"),
        (lambda: tar.header(member(b"f", uid=-1)), "uid of -1"),
        (lambda: tar.header(member(b"f", gid=-2)), "gid of -2"),
        (lambda: tar.header(member(b"f", "char", rdev=os.makedev(1 << 22, 0))), "device 4194304:0"),
        (lambda: sparse(b"f", [(512, 512), (0, 512)], 4096), r"extent 0\+512"),
        (lambda: sparse(b"f", [(0, 4097)], 4096), r"extent 0\+4097"),
        (lambda: sparse(b"f", [(0, 100), (512, 512)], 4096), "before 512"),
        (lambda: sparse(b"", [], 4096), "needs a name"),
    ],
)
def test_what_tar_cannot_say_is_refused(build: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# Kinds, modes, owners, times: what a restore gives back.


@pytest.mark.parametrize("reader", READERS)
def test_every_kind_comes_back_as_that_kind(reader: tuple[str, ...], tmp_path: Path) -> None:
    far = b"x" * 101
    data = archive(
        (tar.header(member(b"folder", "dir", mode=0o750)), b""),
        (tar.header(member(b"folder/file", size=5)), b"hello"),
        (tar.header(member(b"near", "symlink", link_target=b"folder/file", mode=0o777)), b""),
        (tar.header(member(b"far", "symlink", link_target=far, mode=0o777)), b""),
        (tar.header(member(b"odd", "symlink", link_target=far + b"\xff", mode=0o777)), b""),
        (tar.header(member(b"twin", "hardlink", link_target=b"folder/file", size=5)), b""),
        (tar.header(member(b"pipe", "fifo")), b""),
        (tar.header(member(b"last", size=1)), b"!"),
    )
    extract(reader, data, tmp_path)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert (tmp_path / "folder/file").read_bytes() == b"hello"
    assert (tmp_path / "near").readlink() == Path("folder/file")
    assert os.readlink(bytes(tmp_path / "far")) == far
    assert os.readlink(bytes(tmp_path / "odd")) == far + b"\xff"
    assert (tmp_path / "twin").samefile(tmp_path / "folder/file")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "last").read_bytes() == b"!"


@as_root
@pytest.mark.parametrize("reader", READERS)
def test_device_nodes_come_back_with_their_numbers(reader: tuple[str, ...], tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "probe", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("mknod is not permitted here")
    char, block = os.makedev(1, 3), os.makedev(259, 1_048_575)
    data = archive(
        (tar.header(member(b"char", "char", rdev=char)), b""),
        (tar.header(member(b"block", "block", rdev=block)), b""),
    )
    extract(reader, data, tmp_path)
    assert (tmp_path / "char").is_char_device()
    assert (tmp_path / "char").stat().st_rdev == char
    assert (tmp_path / "block").is_block_device()
    assert (tmp_path / "block").stat().st_rdev == block


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o7777, 0o100600, 0])
def test_setuid_setgid_and_sticky_come_back(
    mode: int, reader: tuple[str, ...], tmp_path: Path
) -> None:
    data = archive(
        (tar.header(member(b"f", mode=mode)), b""),
        (tar.header(member(b"d", "dir", mode=mode)), b""),
    )
    extract(reader, data, tmp_path)
    for name in ("f", "d"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode & 0o7777


@as_root
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("number", [0, 0o7777777, 0o10000000, 4_294_967_294])
def test_owners_of_any_number_come_back(
    number: int, reader: tuple[str, ...], tmp_path: Path
) -> None:
    extract(reader, archive((tar.header(member(b"f", uid=number, gid=number)), b"")), tmp_path)
    found = (tmp_path / "f").stat()
    assert (found.st_uid, found.st_gid) == (number, number)


@pytest.mark.parametrize("text", ["", "root", "u" * 32, "u" * 33, "jürgen", "名" * 40, "\udcff"])
def test_owner_names_of_any_text_come_back(text: str) -> None:
    found = info(tar.header(member(b"f", user=text, group=text)))
    assert (found.uname, found.gname) == (text, text)


TIMES = [0, 1, WHEN, WHEN + 123_456_789, WHEN + 120_000_000, WHEN + 1, -NS, -2_000_000_000 * NS]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("when", TIMES)
def test_times_come_back_to_the_nanosecond(
    when: int, reader: tuple[str, ...], tmp_path: Path
) -> None:
    extract(reader, archive((tar.header(member(b"f", mtime_ns=when)), b"")), tmp_path)
    assert (tmp_path / "f").stat().st_mtime_ns == when


@pytest.mark.parametrize("when", [-1, -500_000_000, -1_500_000_000, -2_000_000_000 * NS + 1])
def test_fractions_before_1970_come_back_to_the_nanosecond(when: int, tmp_path: Path) -> None:
    extract(GNU, archive((tar.header(member(b"f", mtime_ns=when)), b"")), tmp_path)
    assert (tmp_path / "f").stat().st_mtime_ns == when


@pytest.mark.parametrize(
    ("when", "text"),
    [
        (-1_500_000_000, "-1.5"),
        (-1, "-0.000000001"),
        (-10 * NS, "-10"),
        (NS + 10, "1.00000001"),
        (8_589_934_591 * NS, None),
        (8_589_934_592 * NS, "8589934592"),
        (8_589_934_592 * NS + 1, "8589934592.000000001"),
    ],
)
def test_times_are_written_as_exact_decimals(when: int, text: str | None) -> None:
    assert info(tar.header(member(b"f", mtime_ns=when))).pax_headers.get("mtime") == text


@pytest.mark.parametrize("size", [0, 1, 8_589_934_591, 8_589_934_592, 1 << 62])
def test_sizes_beyond_8_gib_are_read_back(size: int) -> None:
    head = tar.header(member(b"f", size=size))
    assert info(head).size == size
    assert len(head) == (512 if size < 1 << 33 else 1536)


def test_a_comment_is_carried_and_does_not_disturb_extraction(tmp_path: Path) -> None:
    text = "kept because: größer\nthan before"
    head = tar.header(member(b"f", comment=text, size=2))
    assert info(head).pax_headers == {"comment": text}
    for reader in (GNU, BSD):
        extract(reader, archive((head, b"ok")), tmp_path)
        assert (tmp_path / "f").read_bytes() == b"ok"


# Names.

ODD = [
    b"trailing spaces   ",
    b" ",
    b"new\nline",
    b"\n",
    b"tab\tand\rreturn\x7f\x01",
    b"\xff\xfe raw",
    b"caf\xe9",
    "café 名".encode(),
    b"12 path=x",
    b"quote'\"\\",
    b"-dash",
    b"@at",
]
LONG = [b"d" + part + b"/" + b"y" * 140 + part for part in ODD]
LONG += [b"z" * 101 + part for part in ODD]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("when", [WHEN, WHEN + 5], ids=["plain", "extended"])
@pytest.mark.parametrize("reader", READERS)
def test_names_of_any_bytes_come_back(
    reader: tuple[str, ...], when: int, locale: str, tmp_path: Path
) -> None:
    names = ODD + LONG
    if (reader, locale) == (BSD, "C"):  # it refuses to turn a UTF-8 record into that locale
        names = [name for name in names if name not in LONG or b"\xc3\xa9 " not in name]
    entries = [(tar.header(member(name, size=len(name), mtime_ns=when)), name) for name in names]
    extract(reader, archive(*entries), tmp_path, locale=locale)
    for name in names:
        assert_holds(tmp_path, name, name)
    tops = {name.split(b"/")[0] for name in names}
    assert set(os.listdir(bytes(tmp_path))) == tops


LENGTHS = [1, 2, 99, 100, 101, 102, 154, 155, 156, 157, 254, 255, 256, 257, 258, 300, 1000, 2048]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("length", [*LENGTHS, 4000, 4094, 4095])
def test_names_of_any_length_come_back(
    length: int, reader: tuple[str, ...], tmp_path: Path
) -> None:
    name = name_of(length)
    assert len(name) == length
    extract(reader, archive((tar.header(member(name, size=4)), b"data")), tmp_path)
    assert_holds(tmp_path, name, b"data")


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_names_of_every_length_to_4096_are_read_back(kind: str) -> None:
    for fill in (b"f" * 5000, b"dir/" * 1250, (b"e" * 60 + b"/") * 100, b"\xff" * 5000):
        for length in [*range(1, 600), *range(4000, 4097)]:
            name = fill[:length]
            name = name[:-1] + b"x" if name.endswith(b"/") else name
            assert os.fsencode(info(tar.header(member(name, kind))).name) == name


def test_a_name_that_splits_at_a_slash_needs_no_extended_header() -> None:
    fits = [(155, 100), (1, 100), (155, 1), (60, 60)]
    for before, after in fits:
        name = b"a" * before + b"/" + b"b" * after
        assert len(tar.header(member(name))) == 512
    for before, after in [(156, 100), (155, 101), (0, 101)]:
        name = b"a" * before + b"/" + b"b" * after
        assert len(tar.header(member(name))) == 1536
    assert len(tar.header(member(b"a" * 155 + b"/" + b"b" * 99, "dir"))) == 512
    assert len(tar.header(member(b"a" * 155 + b"/" + b"b" * 100, "dir"))) == 1536


@pytest.mark.parametrize("reader", READERS)
def test_a_file_whose_name_is_cut_at_a_slash_stays_a_file(
    reader: tuple[str, ...], tmp_path: Path
) -> None:
    name = b"a" * 99 + b"/" + b"b" * 60 + b"/" + b"c" * 120
    extract(reader, archive((tar.header(member(name, size=1)), b"!")), tmp_path)
    assert_holds(tmp_path, name, b"!")


# Extended attributes.

XATTRS = [
    ("user.plain", b"value"),
    ("user.empty", b""),
    ("user.raw", b"\0\xff=\n12 x=y\n\0"),
    ("user.größe", b"1"),
]


@pytest.mark.parametrize("odd", [("user.a=b", b"1"), ("user.50%", b"2"), ("user.%3D", b"3")])
def test_attributes_come_back_from_gnu_tar(odd: tuple[str, bytes], tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.x", b"")
    except OSError:
        pytest.skip("no user attributes on this file system")
    want = [*XATTRS, odd]
    data = archive(
        (tar.header(member(b"f", xattrs=want, size=1)), b"!"),
        (tar.header(member(b"d", "dir", mode=0o755, xattrs=want)), b""),
    )
    extract((*GNU, "--xattrs", "--xattrs-include=*"), data, tmp_path)
    for name in ("f", "d"):
        path = tmp_path / name
        assert {key: os.getxattr(path, key) for key in os.listxattr(path)} == dict(want)


def test_attribute_names_are_escaped_as_gnu_tar_escapes_them(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    try:
        os.setxattr(path, "user.50%=half", b"1=%")
    except OSError:
        pytest.skip("no user attributes on this file system")
    command = ["tar", "-c", "--format=posix", "--xattrs", "-f", "-", "f"]
    theirs = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    record = b"38 SCHILY.xattr.user.50%25%3Dhalf=1=%\n"
    assert record in theirs
    assert record in tar.header(member(b"f", xattrs=[("user.50%=half", b"1=%")]))


def test_an_attribute_of_64_kib_is_read_back_by_bsdtar(tmp_path: Path) -> None:
    head = tar.header(member(b"f", xattrs=[("user.big", b"v" * 65536)], size=1))
    listing = subprocess.run(
        ["bsdtar", "-t", "-f", "-"], input=archive((head, b"!")), capture_output=True, check=True
    )
    assert (listing.stdout, listing.stderr) == (b"f\n", b"")


def test_a_posix_acl_comes_back_as_an_attribute(tmp_path: Path) -> None:
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no POSIX ACLs on this file system")
    head = tar.header(member(b"f", xattrs=[("system.posix_acl_access", acl)], mode=0o640))
    extract((*GNU, "--xattrs", "--xattrs-include=*"), archive((head, b"")), tmp_path)
    assert os.getxattr(tmp_path / "f", "system.posix_acl_access") == acl


# Sparse files.


def sparse(
    name: bytes,
    extents: list[tuple[int, int]],
    realsize: int,
    mtime_ns: int = WHEN,
    xattrs: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    uid, gid = os.geteuid(), os.getegid()
    return tar.sparse_header(name, extents, realsize, 0o644, uid, gid, "", "", mtime_ns, xattrs)


MIB = 1 << 20
SPARSE = {
    "leading hole": ([(MIB, 4096)], MIB + 4096),
    "trailing hole": ([(0, 4096)], MIB),
    "trailing hole, told": ([(0, 4096), (MIB, 0)], MIB),
    "all hole": ([], MIB),
    "hole between": ([(0, 4096), (MIB, 8192)], MIB + 8192),
    "odd tail": ([(0, 4096), (MIB, 1000)], MIB + 1000),
    "odd tail, then hole": ([(4096, 1000)], MIB),
    "odd size": ([], MIB + 1),
    "no hole": ([(0, 100)], 100),
    "many": ([(n * 65536, 4096) for n in range(500)], 500 * 65536),
    "empty": ([], 0),
    "beyond 8 GiB": ([(0, 4096), (9 << 30, 4096)], 10 << 30),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [b"s", b"dir/s", b"dir/\xff", name_of(100), name_of(1500)])
@pytest.mark.parametrize("case", SPARSE)
def test_a_sparse_file_comes_back_equal_and_sparse(
    case: str, name: bytes, reader: tuple[str, ...], tmp_path: Path
) -> None:
    extents, size = SPARSE[case]
    pieces = [(at, os.urandom(length)) for at, length in extents]
    stored = b"".join(piece for _, piece in pieces)
    after = (tar.header(member(b"after", size=1)), b"!")
    data = archive((sparse(name, extents, size, mtime_ns=WHEN + 7), stored), after)
    extract(reader, data, tmp_path)
    with os.fdopen(under(tmp_path, name), "rb") as opened:
        found = os.fstat(opened.fileno())
        assert (found.st_size, found.st_mtime_ns) == (size, WHEN + 7)
        assert found.st_blocks * 512 <= len(stored) + 4096 * (len(extents) + 8)
        for at, piece in pieces:
            opened.seek(at)
            assert opened.read(len(piece)) == piece
        if size < 1 << 30:
            image = bytearray(size)
            for at, piece in pieces:
                image[at : at + len(piece)] = piece
            opened.seek(0)
            assert opened.read() == image
    assert (tmp_path / "after").read_bytes() == b"!"


@pytest.mark.parametrize("case", SPARSE)
def test_a_sparse_file_is_read_back_by_tarfile(case: str) -> None:
    extents, size = SPARSE[case]
    stored = b"".join(os.urandom(length) for _, length in extents)
    name = name_of(200)
    after = (tar.header(member(b"after")), b"")
    data = archive((sparse(name, extents, size, xattrs=[("user.x", b"1")]), stored), after)
    first, last = listed(data)
    assert (first.name, first.size, last.name) == (name.decode(), size, "after")
    assert first.pax_headers["SCHILY.xattr.user.x"] == "1"
    told = extents if extents and sum(extents[-1]) == size else [*extents, (size, 0)]
    found: object = first.sparse  # the stubs have its type wrong
    assert found == told


def test_a_sparse_file_stored_in_over_8_gib_is_announced_at_its_stored_size() -> None:
    head = sparse(b"big", [(MIB, 9 << 30)], 10 << 30)
    found = info(head)
    assert int(found.pax_headers["size"]) == (9 << 30) + 512
    assert found.size == 10 << 30


# Any member at all, against tarfile.

parts = st.binary(min_size=1, max_size=300).filter(lambda b: not {0, 47} & set(b))
names = st.lists(parts, min_size=1, max_size=8).map(b"/".join)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
members = st.builds(
    tar.Member,
    name=names,
    kind=st.sampled_from(["file", "dir", "symlink", "hardlink", "fifo", "char", "block"]),
    size=st.integers(0, 1 << 63),
    mode=st.integers(0, 0o177777),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    user=texts,
    group=texts,
    mtime_ns=st.integers(-(10**19), 10**20),
    link_target=names,
    rdev=st.builds(os.makedev, st.integers(0, 4095), st.integers(0, (1 << 20) - 1)),
    xattrs=st.lists(st.tuples(texts.filter(bool).map("user.".__add__), st.binary()), max_size=3),
    comment=texts,
)


@settings(max_examples=400, deadline=None)
@given(members)
def test_any_member_is_read_back_field_by_field(one: tar.Member) -> None:
    head = tar.header(one)
    assert len(head) % 512 == 0
    found = info(head)
    assert os.fsencode(found.name) == one.name
    assert found.mode == one.mode & 0o7777
    assert (found.uid, found.gid) == (one.uid, one.gid)
    assert os.fsencode(found.uname) == one.user.encode()
    assert os.fsencode(found.gname) == one.group.encode()
    assert found.size == (one.size if one.kind == "file" else 0)
    is_link = one.kind in ("symlink", "hardlink")
    assert os.fsencode(found.linkname) == (one.link_target if is_link else b"")
    if one.kind in ("char", "block"):
        assert os.makedev(found.devmajor, found.devminor) == one.rdev
    text = found.pax_headers.get("mtime", str(int(found.mtime)))
    whole, _, fraction = text.partition(".")
    told = int(whole.lstrip("-") + fraction.ljust(9, "0")[:9])
    assert (-told if text.startswith("-") else told) == one.mtime_ns
    assert not fraction.endswith("0")
    assert found.pax_headers.get("comment", "") == one.comment
    for key, value in dict(one.xattrs).items():
        escaped = "SCHILY.xattr." + key.replace("%", "%25").replace("=", "%3D")
        assert found.pax_headers[escaped].encode("utf-8", "surrogateescape") == value
