"""Manifests: plain Parquet of exactly the documented columns, in order, damage named."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.formats import manifest
from tasks.formats.manifest import ROWS, SCHEMA, TableWriter
from tasks.model.errors import FormatDamaged, FormatUnsupported
from tasks.model.words import FORMAT_VERSION, DiffSummary
from tests.helpers.catalogs import add_numbered, make_profile
from tests.helpers.rows import batch, key, read, row, write
from tests.strategies import names

# Column by column, as duckdb sees the file: what the design promises to any reader.
COLUMNS = {
    "source": "VARCHAR",
    "path": "VARCHAR",
    "raw_path": "BLOB",
    "type": "VARCHAR",
    "size": "BIGINT",
    "mtime": "TIMESTAMP_NS",
    "ctime": "TIMESTAMP_NS",
    "mode": "UINTEGER",
    "uid": "UINTEGER",
    "gid": "UINTEGER",
    "user": "VARCHAR",
    "group": "VARCHAR",
    "inode": "UBIGINT",
    "dev": "UBIGINT",
    "nlink": "UINTEGER",
    "link_target": "BLOB",
    "rdev": "UBIGINT",
    "xattrs": "MAP(VARCHAR, BLOB)",
    "sha256": "BLOB",
    "parts": "STRUCT(archive VARCHAR, member VARCHAR, frame BIGINT, skip BIGINT, "
    "length BIGINT, sha256 BLOB)[]",
}
PART = {
    "archive": "archives/20260101T000000Z/00010000.tar.lz4",
    "member": None,
    "frame": 12_345_678_901,
    "skip": 4_194_303,
    "length": 10,
    "sha256": b"\0" * 31 + b"\1",
}
FULL = row(
    b"caf\xe9/\xff",
    size=2**62,
    mtime=-(2**63) + 1,
    ctime=2**63 - 1,
    mode=0o7777,
    uid=2**32 - 1,
    gid=2**32 - 1,
    user="me",
    group="us",
    inode=2**64 - 1,
    dev=2**64 - 1,
    nlink=2**32 - 1,
    link_target=b"\xff/..",
    rdev=2**63 + 1,
    xattrs=[("user.a", b"\0\xff"), ("user.b", b"")],
    sha256=b"\xff" * 32,
    parts=[PART, {**PART, "member": "s/other"}, dict.fromkeys(PART) | {"length": 4096}],
)


def test_any_reader_sees_exactly_the_documented_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write(path, [FULL, row("plain")])
    described = duckdb.sql(f"describe select * from '{path}'").fetchall()
    types = {name: kind.replace('"', "") for name, kind, *_ in described}
    zoned = {name: kind.replace(" WITH TIME ZONE", "") for name, kind in types.items()}
    assert list(types) == list(COLUMNS)
    for name, kind in COLUMNS.items():
        if kind == "TIMESTAMP_NS":
            assert zoned[name].startswith("TIMESTAMP")
        else:
            assert types[name] == kind


def test_the_arrow_schema_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write(path, [row("a")])
    found = pq.read_schema(path)
    assert found.remove_metadata().equals(SCHEMA)
    assert SCHEMA.field("mtime").type == pa.timestamp("ns", tz="UTC")
    assert SCHEMA.field("sha256").type == pa.binary(32)


def test_extreme_values_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write(path, [FULL])
    assert read(path) == [FULL]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5000), max_size=30))
def test_rows_come_back_in_order_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("m") / "carry.parquet"
    schema = pa.schema([("carry", pa.int64())])
    total = 0
    with TableWriter(str(path), schema) as writer:
        for count in counts:
            writer.write(pa.record_batch([pa.array(range(total, total + count))], schema=schema))
            total += count
        writer.close()
        assert writer.count == total
    found = [n for b in manifest.batches(str(path)) for n in b.column(0).to_pylist()]
    assert found == list(range(total))


def test_row_groups_have_about_64_ki_rows_though_pieces_are_small(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    schema = pa.schema([("carry", pa.int64())])
    piece = pa.record_batch([pa.array(range(1000))], schema=schema)
    with TableWriter(str(path), schema) as writer:
        for _ in range(200):
            writer.write(piece)
        writer.close()
    facts = pq.ParquetFile(path).metadata
    sizes = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
    assert sum(sizes) == 200_000
    assert max(sizes) <= ROWS == 65_536
    assert len(sizes) <= 7


def test_a_file_without_rows_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write(path, [])
    assert list(manifest.batches(str(path))) == []
    assert manifest.read_table(str(path)).num_rows == 0
    assert list(manifest.rows_between(str(path), 0, 10, 4)) == []


@given(st.integers(0, 150_000), st.integers(0, 150_000), st.integers(100, 70_000))
@settings(max_examples=20)
def test_a_stretch_of_rows_is_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, start: int, stop: int, count: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "stretch.parquet"
    if not path.exists():
        schema = pa.schema([("carry", pa.int64())])
        with TableWriter(str(path), schema) as writer:
            writer.write(pa.record_batch([pa.array(range(140_000))], schema=schema))
            writer.close()
    pieces = list(manifest.rows_between(str(path), start, stop, count))
    assert all(0 < piece.num_rows <= count for piece in pieces)
    found = [n for piece in pieces for n in piece[0].to_pylist()]
    assert found == list(range(start, min(stop, 140_000)))


def test_the_footer_keeps_what_is_known_at_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "m.parquet")
    summary = DiffSummary(entries=1, added=2, modified=3, moved=4, metadata=5, deleted=6)
    write(path, [row("a")], summary)
    assert manifest.read_info(path, DiffSummary) == summary
    write(path, [row("a")])
    with pytest.raises(FormatDamaged, match=path):
        manifest.read_info(path, DiffSummary)


def with_version(path: Path, version: bytes | None) -> str:
    facts = {} if version is None else {b"cartridge.format_version": version}
    pq.write_table(pa.Table.from_batches([batch([row("a")])]).replace_schema_metadata(facts), path)
    return str(path)


def test_a_newer_version_is_refused_and_named(tmp_path: Path) -> None:
    path = with_version(tmp_path / "m.parquet", b"%d" % (FORMAT_VERSION + 1))
    for refused in (manifest.open_table, manifest.read_table, lambda p: list(manifest.batches(p))):
        with pytest.raises(FormatUnsupported, match=path):
            refused(path)


@pytest.mark.parametrize("version", [None, b"", b"one", b"\xff"])
def test_a_file_without_our_version_is_none_of_ours(tmp_path: Path, version: bytes | None) -> None:
    path = with_version(tmp_path / "m.parquet", version)
    with pytest.raises(FormatDamaged, match=path):
        manifest.open_table(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"\0" * 4096, b"hello" * 500])
def test_what_is_no_parquet_is_damage_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(content)
    with pytest.raises(FormatDamaged, match=str(path)):
        manifest.read_table(str(path))


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.open_table(str(tmp_path / "m.parquet"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A manifest of some thousand rows with contents."""
    path = tmp_path_factory.mktemp("sound") / "m.parquet"
    chance = random.Random(1)
    rows = [
        row(f"{n:05}", size=chance.randrange(2**40), sha256=chance.randbytes(32), parts=[PART])
        for n in range(3000)
    ]
    write(path, rows)
    return path.read_bytes()


def read_every_way(path: str) -> None:
    manifest.read_table(path)
    list(manifest.batches(path))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_damage_and_named(tmp_path: Path, sound: bytes, share: float) -> None:
    path = tmp_path / "m.parquet"
    path.write_bytes(sound[: int(len(sound) * share)])
    with pytest.raises(FormatDamaged, match=str(path)):
        read_every_way(str(path))


def test_a_flipped_bit_in_the_data_is_damage_and_named(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "m.parquet"
    footer = int.from_bytes(sound[-8:-4], "little") + 8
    chance = random.Random(2)
    for _ in range(40):
        damaged = bytearray(sound)
        damaged[chance.randrange(4, len(sound) - footer)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(FormatDamaged, match=str(path)):
            read_every_way(str(path))


def test_a_flipped_bit_in_a_stretch_of_rows_is_damage_and_named(
    tmp_path: Path, sound: bytes
) -> None:
    path = tmp_path / "m.parquet"
    damaged = bytearray(sound)
    damaged[len(sound) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FormatDamaged, match=str(path)):
        list(manifest.rows_between(str(path), 0, 3000, 100))


ROW = st.builds(
    lambda parts, kind, source: row(b"/".join(parts), kind, source=source),
    st.lists(names(), min_size=1, max_size=3),
    st.sampled_from(("file", "dir", "symlink")),
    st.sampled_from(("a", "a-b", "a.b", "b")),
)


@given(st.lists(ROW, max_size=8))
def test_a_key_is_source_and_exact_path_with_a_slash_behind_directories(rows: list[Any]) -> None:
    assert manifest.keys(batch(rows)).to_pylist() == [key(r) for r in rows]


@given(st.lists(ROW, max_size=8))
def test_paths_are_shown_with_a_replacement_for_what_is_not_utf8(rows: list[Any]) -> None:
    expected = [f"{r['source']}/{r['path']}" for r in rows]
    assert manifest.shown(batch(rows)) == expected


STREAM = """
import os, sys
from tasks.formats.manifest import batches
def resident():
    with open("/proc/self/statm") as facts:
        return int(facts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
sizes = [resident() for _ in batches(sys.argv[1])]
print(len(sizes), max(sizes[4:]) - max(sizes[:4]))
"""


def test_a_long_manifest_takes_no_more_memory_than_its_beginning(tmp_path: Path) -> None:
    """One reader for the whole of a file keeps two megabytes of every row group."""
    store = make_profile(tmp_path)
    add_numbered(store, "20260101T000000Z", np.arange(30 * ROWS))
    script = [sys.executable, "-c", STREAM, store.manifest_path("20260101T000000Z")]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    count, growth = map(int, done.stdout.split())
    assert count == 30
    assert growth < 30e6
