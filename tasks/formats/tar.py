"""Tar member headers as every tar reads them: POSIX ustar, with pax records where ustar ends."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

BLOCK = 512
END = bytes(2 * BLOCK)

_NS = 1_000_000_000
_MAX_ID = 0o7777777  # seven octal digits
_MAX_LONG = 0o77777777777  # eleven octal digits: 8 GiB - 1 as a size, the year 2242 as a time
_NAME, _PREFIX, _LINK, _USER = 100, 155, 100, 32  # field widths, bytes
_FLAGS = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "char": b"3",
    "block": b"4",
    "dir": b"5",
    "fifo": b"6",
}
_NO_DEVICE = b"0000000\x000000000\x00"
_PADDING = tuple(bytes(-size % BLOCK) for size in range(BLOCK))

# The fields mode to gid; the fields magic to gname; the part of the checksum that these make; the
# pax records of what did not fit them.
_Owner = tuple[bytes, bytes, int, bytes]


class Member(NamedTuple):
    """One member of an archive; its name is relative and ends in no slash, whatever its kind.

    A tuple, since one is made for every folder.
    """

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    user: str = ""
    group: str = ""
    link_target: bytes = b""
    rdev: int = 0
    xattrs: Sequence[tuple[str, bytes]] = ()
    comment: str = ""


def padding(size: int) -> bytes:
    """Give the zero bytes that fill `size` bytes of data up to whole blocks."""
    return _PADDING[size % BLOCK]


def header(member: Member) -> bytes:
    """Build all header blocks of a member.

    Only kind 'file' has data after its header: `size` of any other kind is taken as 0, and
    `link_target` and `rdev` count only for the kinds that have them.

    Raises ValueError for an unknown kind, an empty name, or a number that no tar field can hold.
    """
    kind = member.kind
    flag = _FLAGS.get(kind)
    if flag is None:
        raise ValueError(f"a tar member cannot be of kind {kind!r}")
    extra = _xattr_records(member.xattrs) if member.xattrs else b""
    if member.comment:
        extra += _record(b"comment", _encoded(member.comment))
    return _blocks(
        flag,
        member.name + b"/" if kind == "dir" and member.name else member.name,
        member.link_target if kind in ("symlink", "hardlink") else b"",
        member.size if kind == "file" else 0,
        member.mode,
        member.uid,
        member.gid,
        member.user,
        member.group,
        member.mtime_ns,
        extra=extra,
        device=_device(member.rdev) if kind in ("char", "block") else _NO_DEVICE,
    )


def file_header(
    name: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    user: str,
    group: str,
    mtime_ns: int,
    xattrs: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """Build all header blocks of a regular file of `size` bytes: `header` for the hot loop.

    Raises ValueError for an empty name or a number that no tar field can hold.
    """
    extra = _xattr_records(xattrs) if xattrs else b""
    return _blocks(b"0", name, b"", size, mode, uid, gid, user, group, mtime_ns, extra)


def sparse_header(
    name: bytes,
    extents: Sequence[tuple[int, int]],
    realsize: int,
    mode: int,
    uid: int,
    gid: int,
    user: str,
    group: str,
    mtime_ns: int,
    xattrs: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """Build the header blocks and the map of a sparse file (GNU sparse format 1.0).

    `extents` are (offset, length) of the data in bytes, ascending; the holes lie between them and
    up to `realsize`. After the returned bytes come the data of all extents end to end, then
    `padding` of their total length.

    Raises ValueError for extents that overlap or leave the file, and for one of a broken block
    length before the last data: GNU tar begins every extent on a new block, other readers do not,
    and only whole blocks are the same to both.
    """
    stored = _checked_data_length(extents, realsize)
    regions = list(extents)
    if not regions or sum(regions[-1]) < realsize:
        regions.append((realsize, 0))  # how GNU tar tells of a hole at the end
    table = b"%d\n" % len(regions) + b"".join([b"%d\n%d\n" % region for region in regions])
    table += padding(len(table))
    named = _record(b"GNU.sparse.name", name)
    extra = _record(b"GNU.sparse.major", b"1") + _record(b"GNU.sparse.minor", b"0")
    extra += _record(b"GNU.sparse.realsize", b"%d" % realsize) + _xattr_records(xattrs)
    folder, slash, base = name.rpartition(b"/")
    # Where a reader that knows no sparse files puts map and data, beside the true name.
    placeholder = (folder + slash if slash else b"./") + b"GNUSparseFile.0/" + base if name else b""
    size = len(table) + stored
    return (
        _blocks(b"0", placeholder, b"", size, mode, uid, gid, user, group, mtime_ns, extra, named)
        + table
    )


def _checked_data_length(extents: Sequence[tuple[int, int]], realsize: int) -> int:
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0 or offset + length > realsize:
            raise ValueError(f"extent {offset}+{length} overlaps another or leaves the file")
        if length and total % BLOCK:
            raise ValueError(f"the extent before {offset} is no whole number of {BLOCK} bytes")
        end = offset + length
        total += length
    return total


def _blocks(
    flag: bytes,
    name: bytes,
    link: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    user: str,
    group: str,
    mtime_ns: int,
    extra: bytes = b"",
    named: bytes = b"",
    device: bytes = _NO_DEVICE,
) -> bytes:
    """Build the extended header, if one is needed, and the ustar block after it.

    `named` are ready records that hold a name, `extra` any others. What goes into a record leaves
    a shortened or clamped value in its ustar field, for readers that know no pax.
    """
    ids, owners, owner_sum, records = _owner(mode, uid, gid, user, group)
    prefix = b""
    if len(name) > _NAME:
        prefix, name, long = _placed(name)
        records += long
    elif not name:
        raise ValueError("a tar member needs a name")
    if len(link) > _LINK:
        records += _record(b"linkpath", link)
        link = link[:_LINK]
    records += named  # after path: the later name is the one Python's tarfile believes
    if records and not _is_utf8(records):
        records = _BINARY + records
    seconds, fraction = divmod(mtime_ns, _NS)
    if fraction or not 0 <= seconds <= _MAX_LONG:
        if 0 <= seconds <= _MAX_LONG:  # nearly every file: spare it two calls
            text = (b"mtime=%d.%09d" % (seconds, fraction)).rstrip(b"0")
            records += b"%d %b\n" % (len(text) + 4, text)
        else:
            records += _record(b"mtime", _decimal(mtime_ns))
        seconds = min(max(seconds, 0), _MAX_LONG)
    if not 0 <= size <= _MAX_LONG:
        records += _too_large(b"size", size)
        size = _MAX_LONG
    records += extra
    block = _ustar(flag, name, prefix, link, size, seconds, ids, owners, owner_sum, device)
    if not records:
        return block
    length = len(records)
    return b"%b%b%b%b" % (_extended(length), records, _PADDING[length % BLOCK], block)


def _ustar(
    flag: bytes,
    name: bytes,
    prefix: bytes,
    link: bytes,
    size: int,
    seconds: int,
    ids: bytes,
    owners: bytes,
    owner_sum: int,
    device: bytes,
) -> bytes:
    """Lay out one ustar block; every value has been made to fit its field."""
    times = b"%011o\0%011o\0" % (size, seconds)
    # The low half of an Adler-32 is one more than the sum of the bytes, modulo 65521: far quicker
    # than sum(), and exact, since no field (155 bytes at most) sums to so much.
    checksum = (
        owner_sum
        + (adler32(name) & 0xFFFF)
        + (adler32(times) & 0xFFFF)
        + (adler32(link) & 0xFFFF)
        + (adler32(device) & 0xFFFF)
        + (adler32(prefix) & 0xFFFF)
        + flag[0]
        - 5
    )
    return b"".join(
        (
            name.ljust(_NAME, b"\0"),
            ids,
            times,
            b"%06o\0 " % checksum,
            flag,
            link.ljust(_LINK, b"\0"),
            owners,
            device,
            prefix.ljust(_PREFIX + 12, b"\0"),
        )
    )


@lru_cache(maxsize=4096)
def _owner(mode: int, uid: int, gid: int, user: str, group: str) -> _Owner:
    """Make the fields that thousands of files share, once."""
    records = b""
    if not 0 <= uid <= _MAX_ID:
        records += _too_large(b"uid", uid)
    if not 0 <= gid <= _MAX_ID:
        records += _too_large(b"gid", gid)
    owners = b"ustar\x0000"
    for key, text in ((b"uname", user), (b"gname", group)):
        value = _encoded(text)
        if len(value) > _USER or not value.isascii():
            records += _record(key, value)
            value = text.encode("ascii", "replace")[:_USER]
        owners += value.ljust(_USER, b"\0")
    ids = b"%07o\0%07o\0%07o\0" % (mode & 0o7777, min(uid, _MAX_ID), min(gid, _MAX_ID))
    # The checksum counts its own eight bytes as spaces.
    return ids, owners, sum(ids) + sum(owners) + 8 * ord(" "), records


def _placed(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a name of over 100 bytes into prefix and name field, or put it into a record."""
    # The leftmost slash that leaves at most 100 bytes after it, but never the last byte.
    slash = name.find(b"/", max(1, len(name) - _NAME - 1), len(name) - 1)
    if 0 < slash <= _PREFIX:
        return name[:slash], name[slash + 1 :], b""
    # A regular file whose field ends in a slash is a directory to some readers.
    return b"", name[:_NAME].rstrip(b"/"), _record(b"path", name)


def _device(rdev: int) -> bytes:
    major, minor = os.major(rdev), os.minor(rdev)
    if max(major, minor) > _MAX_ID:
        raise ValueError(f"device {major}:{minor} has a number too large for tar")
    return b"%07o\0%07o\0" % (major, minor)


@lru_cache(maxsize=1024)
def _extended(length: int) -> bytes:
    """Make the block that announces `length` bytes of pax records."""
    ids, owners, owner_sum, _ = _owner(0o644, 0, 0, "", "")
    return _ustar(b"x", b"././@PaxHeader", b"", b"", length, 0, ids, owners, owner_sum, _NO_DEVICE)


def _record(key: bytes, value: bytes) -> bytes:
    """Make one pax record; the length at its front counts its own digits."""
    rest = len(key) + len(value) + 3  # a space, an equals sign, a newline
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


_BINARY = _record(b"hdrcharset", b"BINARY")


def _too_large(key: bytes, value: int) -> bytes:
    if value < 0:
        raise ValueError(f"tar cannot hold a {key.decode()} of {value}")
    return _record(key, b"%d" % value)


def _decimal(mtime_ns: int) -> bytes:
    """Write nanoseconds as exact decimal seconds."""
    seconds, fraction = divmod(abs(mtime_ns), _NS)
    sign = b"-" if mtime_ns < 0 else b""
    if not fraction:
        return b"%b%d" % (sign, seconds)
    return (b"%b%d.%09d" % (sign, seconds, fraction)).rstrip(b"0")


def _xattr_records(xattrs: Sequence[tuple[str, bytes]]) -> bytes:
    """Make the records of extended attributes, their names escaped as GNU tar escapes them."""
    return b"".join(
        [
            _record(
                b"SCHILY.xattr." + _encoded(name).replace(b"%", b"%25").replace(b"=", b"%3D"), value
            )
            for name, value in xattrs
        ]
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # back to the very bytes the system gave


def _is_utf8(records: bytes) -> bool:
    try:
        records.decode()
    except UnicodeDecodeError:
        return False
    return True
