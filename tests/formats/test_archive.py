"""Archives: read by `lz4 -dc | tar`, read from any frame, and never trusted when damaged."""

import hashlib
import io
import random
import struct
import subprocess
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.formats import tar
from tasks.formats.archive import FRAME, ArchiveWriter, ContentReader, frames_from
from tasks.model.errors import FormatDamaged

NAME = "archives/20260101T000000Z/00010000.tar.lz4"
SIZES = (1, 511, 512, 513, 4096, FRAME - 512, FRAME - 511, FRAME, FRAME + 1, 2 * FRAME + 70_000)

Place = tuple[int, int]


def content(seed: int, size: int) -> bytes:
    """Bytes that compress by about half, different for each seed."""
    chance = random.Random(seed)
    block = chance.randbytes(2048) + bytes(2048)
    return (chance.randbytes(16) + block * (size // len(block) + 1))[:size]


def header(name: bytes, size: int) -> bytes:
    return tar.header(
        tar.Member(name=name, kind="file", size=size, mode=0o644, uid=0, gid=0, mtime_ns=10**18)
    )


def packed(contents: Sequence[bytes]) -> tuple[bytes, list[Place], str]:
    """An archive of contents called 0, 1, ...; (frame offset, skip) of each, and its digest."""
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    places = [
        writer.add(header(b"%d" % number, len(data)), data, len(data))
        for number, data in enumerate(contents)
    ]
    digest = writer.finish()
    assert writer.bytes == len(file.getvalue())
    assert writer.members == len(contents)
    return file.getvalue(), [(writer.frames[frame], skip) for frame, skip in places], digest


def read(archive: bytes, place: Place, length: int) -> bytes:
    reader = ContentReader(io.BytesIO(archive), NAME)
    return b"".join(map(bytes, reader.read(*place, length)))


def read_all(archive: bytes) -> bytes:
    return b"".join(data for _, data in frames_from(io.BytesIO(archive), 0, NAME))


def lz4_dc(archive: bytes) -> bytes:
    return subprocess.run(["lz4", "-dc"], input=archive, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def large() -> tuple[bytes, list[Place], list[bytes]]:
    """An archive of several frames, with contents at every boundary."""
    contents = [content(number, size) for number, size in enumerate(SIZES)]
    archive, places, _ = packed(contents)
    return archive, places, contents


@pytest.fixture(scope="module")
def small() -> tuple[bytes, list[Place], list[bytes]]:
    contents = [content(number, size) for number, size in enumerate((10, 700, 3000))]
    archive, places, _ = packed(contents)
    return archive, places, contents


def test_lz4_and_tar_read_an_archive(
    large: tuple[bytes, list[Place], list[bytes]], tmp_path: Path
) -> None:
    archive, _, contents = large
    subprocess.run(["tar", "-x", "-C", tmp_path], input=lz4_dc(archive), check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(n) for n in range(len(contents))]
    for number, data in enumerate(contents):
        assert (tmp_path / str(number)).read_bytes() == data


def test_every_frame_but_the_last_holds_the_same_length_of_tar(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = large
    frames = list(frames_from(io.BytesIO(archive), 0, NAME))
    assert len(frames) > 5
    assert {len(data) for _, data in frames[:-1]} == {FRAME}
    assert b"".join(data for _, data in frames) == lz4_dc(archive)
    for offset, data in frames:
        assert lz4_dc(archive[offset:]).startswith(data)


def test_the_digest_is_that_of_the_bytes_written() -> None:
    archive, _, digest = packed([content(1, 5000)])
    assert digest == hashlib.sha256(archive).hexdigest()


def test_an_archive_without_members_is_a_valid_empty_tar() -> None:
    archive, _, _ = packed([])
    done = subprocess.run(["tar", "-t"], input=lz4_dc(archive), capture_output=True, check=True)
    assert done.stdout == b""


def test_each_content_is_read_alone_from_its_place(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, places, contents = large
    for place, data in zip(places, contents, strict=True):
        assert read(archive, place, len(data)) == data


def test_one_reader_gives_contents_in_any_order(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, places, contents = large
    reader = ContentReader(io.BytesIO(archive), NAME)
    order = [*range(len(contents)), *random.Random(1).choices(range(len(contents)), k=20)]
    for number in order:
        got = b"".join(map(bytes, reader.read(*places[number], len(contents[number]))))
        assert got == contents[number]


def test_a_place_may_be_told_from_an_earlier_frame(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = large
    whole = lz4_dc(archive)
    for start in (FRAME, FRAME + 100, 3 * FRAME - 10):
        assert read(archive, (0, start), 50) == whole[start : start + 50]


def test_a_content_may_be_left_half_read(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, places, contents = large
    reader = ContentReader(io.BytesIO(archive), NAME)
    next(reader.read(*places[-1], len(contents[-1])))
    assert b"".join(map(bytes, reader.read(*places[-2], len(contents[-2])))) == contents[-2]
    assert b"".join(map(bytes, reader.read(*places[-1], len(contents[-1])))) == contents[-1]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(SIZES[:8]) | st.integers(1, 100_000), max_size=6))
def test_every_content_comes_back_wherever_frames_end(sizes: list[int]) -> None:
    contents = [content(number, size) for number, size in enumerate(sizes)]
    archive, places, _ = packed(contents)
    for place, data in zip(places, contents, strict=True):
        assert read(archive, place, len(data)) == data


def test_a_flipped_bit_is_found_wherever_it_is(
    small: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = small
    whole = read_all(archive)
    for position in range(len(archive)):
        for bit in (0, 7):
            damaged = bytearray(archive)
            damaged[position] ^= 1 << bit
            try:
                found = read_all(bytes(damaged))
            except FormatDamaged as error:
                assert NAME in str(error)
            else:
                # Some bits make a match point at other bytes that happen to be the same.
                assert found == whole, f"bit {bit} of byte {position} changed what is read"


def test_a_flipped_bit_in_any_frame_of_many_is_found(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = large
    offsets = [offset for offset, _ in frames_from(io.BytesIO(archive), 0, NAME)]
    for offset in offsets:
        damaged = bytearray(archive)
        damaged[offset + 5000 if offset + 5000 < len(archive) else -10] ^= 4
        with pytest.raises(FormatDamaged, match=f"the frame at {offset}"):
            read_all(bytes(damaged))


def test_frames_before_and_behind_a_damaged_one_are_still_read(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, places, contents = large
    offsets = [offset for offset, _ in frames_from(io.BytesIO(archive), 0, NAME)]
    damaged = bytearray(archive)
    damaged[offsets[1] + 5000] ^= 1
    assert read(bytes(damaged), places[0], len(contents[0])) == contents[0]
    assert read(bytes(damaged), places[-1], len(contents[-1])) == contents[-1]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.99999])
def test_a_truncated_archive_is_found(
    large: tuple[bytes, list[Place], list[bytes]], share: float
) -> None:
    archive, places, contents = large
    cut = archive[: int(len(archive) * share)]
    with pytest.raises(FormatDamaged):
        read_all(cut)
    with pytest.raises(FormatDamaged):
        read(cut, places[-1], len(contents[-1]))


def test_an_archive_cut_between_frames_is_found_by_who_wants_what_is_gone(
    large: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, places, contents = large
    last_frame = [offset for offset, _ in frames_from(io.BytesIO(archive), 0, NAME)][-1]
    with pytest.raises(FormatDamaged, match="it ends before"):
        read(archive[:last_frame], places[-1], len(contents[-1]))


@pytest.mark.parametrize("length", range(1, 24))
def test_a_stump_of_a_frame_is_damage_and_no_crash(
    small: tuple[bytes, list[Place], list[bytes]], length: int
) -> None:
    archive, _, _ = small
    with pytest.raises(FormatDamaged):
        read_all(archive + archive[:length])


def frame_claiming(size: int) -> bytes:
    """A frame of 100 bytes whose header is sound, and claims a content of `size` bytes."""
    frame = bytearray(lz4.frame.compress(b"x" * 100, content_checksum=True))
    frame[6:14] = struct.pack("<Q", size)
    for checksum in range(256):  # the header's own checksum is one byte: one of all fits
        frame[14] = checksum
        try:
            if lz4.frame.get_frame_info(bytes(frame))["content_size"] == size:
                return bytes(frame)
        except RuntimeError:
            continue
    raise AssertionError("no checksum fits")


@pytest.mark.parametrize("size", [1, 99, 101, 1 << 20, 65 << 20, 1 << 40, 2**63, 2**64 - 1])
def test_a_frame_that_lies_of_its_size_is_damage_and_takes_no_memory(size: int) -> None:
    frame = frame_claiming(size)
    tracemalloc.start()
    try:
        with pytest.raises(FormatDamaged):
            read_all(frame)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_does_not_tell_its_size_is_none_of_ours() -> None:
    with pytest.raises(FormatDamaged, match="not one of ours"):
        read_all(lz4.frame.compress(bytes(100 << 20), store_size=False))


@pytest.mark.parametrize("noise", [b"\0" * 100, b"PK\3\4" * 30, bytes(range(256)), b"\x04"])
def test_what_is_no_archive_is_damage(noise: bytes) -> None:
    with pytest.raises(FormatDamaged):
        read_all(noise)


def test_skippable_frames_are_none_of_ours() -> None:
    skippable = struct.pack("<II", 0x184D2A50, 8) + b"whatever"
    with pytest.raises(FormatDamaged, match="not one of ours"):
        read_all(skippable)


def test_a_place_beyond_the_archive_is_damage(
    small: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = small
    for place in ((0, FRAME), (0, 10**12), (len(archive), 0), (10**12, 0)):
        with pytest.raises(FormatDamaged):
            read(archive, place, 10)


def test_a_place_inside_a_frame_is_damage(
    small: tuple[bytes, list[Place], list[bytes]],
) -> None:
    archive, _, _ = small
    with pytest.raises(FormatDamaged):
        read(archive, (1, 0), 10)
