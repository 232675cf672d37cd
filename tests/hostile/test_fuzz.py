"""Whatever bytes the readers are given, they read them or say in a sentence why not."""

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.formats import tar
from tasks.formats.archive import FRAME, ArchiveWriter, ContentReader
from tasks.formats.manifest import batches, read_info, read_table
from tasks.formats.records import read_journal, read_label, read_sums, sums_text, to_json
from tasks.model.errors import CartridgeError
from tasks.model.words import JournalLine, Label, SnapshotInfo
from tests.helpers.catalogs import add_numbered, make_profile

LABEL = to_json(
    Label(
        format_version=1,
        set="home",
        serial=3,
        uuid="8f14e45f",
        profile="home",
        capacity=10**9,
        created="2026-01-01T00:00:00Z",
        codec="lz4",
        encryption="none",
    ),
    indent=2,
)
NAMES = [f"archives/20260101T000000Z/{number:010}.tar.lz4" for number in range(5)]
JOURNAL = b"".join(
    to_json(JournalLine(archive=name, bytes=9, sha256="0" * 64, snapshot="20260101T000000Z"))
    for name in NAMES
)
SUMS = sums_text(dict.fromkeys([*NAMES, "odd\nname"], "a" * 64))

READERS: dict[str, tuple[Callable[[bytes, str], object], bytes]] = {
    "label": (read_label, LABEL),
    "journal": (read_journal, JOURNAL),
    "sums": (read_sums, SUMS),
}
# Where to change bytes, as a share of the length, and what to put there.
Change = tuple[float, str, bytes]
changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["replace", "insert", "cut", "remove"]),
        st.binary(max_size=12) | st.sampled_from([b"-", b"1e999", b"null", b"{", b"\0", b"9" * 40]),
    ),
    max_size=4,
)


def changed(data: bytes, done: list[Change]) -> bytes:
    for share, deed, piece in done:
        at = int(share * len(data))
        if deed == "cut":
            data = data[:at]
        elif deed == "insert":
            data = data[:at] + piece + data[at:]
        else:
            data = data[:at] + (piece if deed == "replace" else b"") + data[at + len(piece) :]
    return data


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_a_changed_list_is_read_or_refused(kind: str, done: list[Change]) -> None:
    read, sound = READERS[kind]
    with contextlib.suppress(CartridgeError):
        read(changed(sound, done), "a file")


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=300)
@given(st.binary(max_size=300))
@example(b"[" * 100_000)
@example(b'{"format_version": ' + b"9" * 10_000 + b"}")
@example(b'{"format_version": true}')
@example(b'{"format_version": null}\n')
@example(b"\xff\xfe\n")
def test_any_bytes_are_a_list_or_refused(kind: str, text: bytes) -> None:
    read, _ = READERS[kind]
    with contextlib.suppress(CartridgeError):
        read(text, "a file")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = make_profile(tmp_path_factory.mktemp("fuzz"))
    add_numbered(store, "20260101T000000Z", range(400))
    return Path(store.manifest_path("20260101T000000Z")).read_bytes()


def read_all(path: str) -> None:
    for read in (
        lambda: list(batches(path)),
        lambda: read_table(path),
        lambda: read_info(path, SnapshotInfo),
    ):
        with contextlib.suppress(CartridgeError):
            read()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(changes)
def test_a_changed_manifest_is_read_or_refused(
    manifest: bytes, tmp_path_factory: pytest.TempPathFactory, done: list[Change]
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.parquet"
    path.write_bytes(changed(manifest, done))
    read_all(str(path))


@pytest.mark.parametrize(
    "seeds", [range(300), pytest.param(range(300, 6000), marks=pytest.mark.slow)]
)
def test_a_footer_with_changed_bytes_is_read_or_refused(
    manifest: bytes, tmp_path: Path, seeds: range
) -> None:
    """The footer has no checksum of its own: here everything may be said that is not so."""
    footer = int.from_bytes(manifest[-8:-4], "little") + 8
    for seed in seeds:
        chance = random.Random(seed)
        data = bytearray(manifest)
        for _ in range(chance.randrange(1, 4)):
            data[len(data) - footer + chance.randrange(footer)] = chance.randrange(256)
        (tmp_path / "m.parquet").write_bytes(data)
        read_all(str(tmp_path / "m.parquet"))


def archive() -> tuple[bytes, list[tuple[int, int, int]]]:
    """Return an archive of several frames, and the place and length of each content."""
    out, chance, places = io.BytesIO(), random.Random(1), []
    writer = ArchiveWriter(out)
    for number in range(40):
        size = chance.choice([10, 5000, 400_000])
        header = tar.file_header(b"f%d" % number, size, 0o644, 0, 0, "", "", 0)
        frame, skip = writer.add(header, chance.randbytes(size // 8) * 8, size // 8 * 8)
        places.append((frame, skip, size // 8 * 8))
    writer.finish()
    assert len(writer.frames) > 2
    return out.getvalue(), [(writer.frames[f], skip, size) for f, skip, size in places]


ARCHIVE, PLACES = archive()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(changes, st.integers(0, len(PLACES) - 1))
def test_a_changed_archive_is_read_or_refused(done: list[Change], which: int) -> None:
    reader = ContentReader(io.BytesIO(changed(ARCHIVE, done)), "an archive")
    with contextlib.suppress(CartridgeError):
        for piece in reader.read(*PLACES[which]):
            assert len(piece) <= FRAME


@settings(max_examples=150)
@given(
    st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([f for f, _, _ in PLACES]),
    st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 5000),
    st.integers(-(1 << 63), (1 << 40)),
)
def test_any_place_in_an_archive_is_read_or_refused(frame: int, skip: int, length: int) -> None:
    """Places come from a manifest, which may say anything."""
    reader = ContentReader(io.BytesIO(ARCHIVE), "an archive")
    total = 0
    with contextlib.suppress(CartridgeError):
        for piece in reader.read(frame, skip, length):
            total += len(piece)
    assert total <= max(length, 0)
