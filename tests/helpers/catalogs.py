"""Catalogs made without a backup: a few rows by hand, or a million by number."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.catalog.store import ARCHIVES, CARTRIDGES, Store, write_rows
from tasks.formats.manifest import PART, PARTS, ROWS, SCHEMA, SHA256, WORD, XATTRS, TableWriter
from tasks.model.units import iso, snapshot_time
from tasks.model.words import ArchiveRow, CartridgeRow, SnapshotInfo
from tests.helpers.rows import WHEN, Row, write

Numbers = Sequence[int] | np.ndarray

FOLDER = 1000  # entries with consecutive numbers that share a folder, which is one of them
ARCHIVE = 10_000  # files that lie in one archive
PROFILE = '[[source]]\nname = "s"\npath = "/nowhere"\n'


def make_profile(workspace: Path, name: str = "home", text: str = PROFILE) -> Store:
    """Write a profile into a workspace and return its catalog, which is empty."""
    folder = workspace / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text, "utf-8")
    store = Store(str(workspace / "state" / name / "catalog"))
    store.create()
    return store


def add_snapshot(store: Store, snapshot: str, rows: Iterable[Row]) -> None:
    """Write the manifest of a snapshot from rows made by hand."""
    write(store.manifest_path(snapshot), rows, _info(snapshot))


def add_numbered(store: Store, snapshot: str, numbers: Numbers, changed: Numbers = ()) -> None:
    """Write the manifest of a snapshot with an entry for every number, which rise.

    Every 1000th is a folder of those that follow. Those `changed` have another content.
    """
    wanted, other = np.asarray(numbers, np.int64), np.asarray(changed, np.int64)
    with TableWriter(store.manifest_path(snapshot), SCHEMA) as writer:
        for start in range(0, len(wanted), ROWS):
            piece = wanted[start : start + ROWS]
            writer.write(_numbered(piece, np.isin(piece, other)))
        writer.close(_info(snapshot))


def regroup(manifest: str, rows: int) -> None:
    """Write a manifest again in small row groups, as if it had millions of entries."""
    facts = {k: v for k, v in pq.read_metadata(manifest).metadata.items() if b"cartridge" in k}
    table = pq.read_table(manifest, use_threads=False).replace_schema_metadata(facts)
    pq.write_table(table, manifest, row_group_size=rows)


def add_archives(store: Store, numbers: int, cartridges: int, lost: int = 0) -> None:
    """Say that the archives of so many numbered entries lie on so many cartridges in turn.

    The cartridge with the serial `lost` is written off.
    """
    count = numbers // ARCHIVE + 1
    archives = [
        ArchiveRow(
            archive=archive_name(index),
            snapshot="20260101T000000Z",
            bytes=1,
            sha256="",
            content_bytes=1,
            members=1,
            contents=1,
            cartridge=index % cartridges + 1,
            state="lost" if index % cartridges + 1 == lost else "stored",
        )
        for index in range(count)
    ]
    write_rows(store.archives_path, ARCHIVES, archives)
    known = [
        CartridgeRow(
            serial=serial,
            set="home",
            label=f"home {serial}",
            uuid=str(serial),
            capacity=None,
            state="stored",
            used=1,
            location="",
            created="",
        )
        for serial in range(1, cartridges + 1)
    ]
    write_rows(store.cartridges_path, CARTRIDGES, known)


def archive_name(index: int) -> str:
    """Name an archive as a run does."""
    return f"archives/20260101T000000Z/{index:08}.tar.lz4"


def part(archive: str | None, length: int = 1) -> dict[str, object]:
    """One part of a file's content, in an archive or in none."""
    facts = {"archive": archive, "member": None, "frame": 0, "skip": 0, "length": length}
    return {**facts, "sha256": bytes(32)}


def _info(snapshot: str) -> SnapshotInfo:
    return SnapshotInfo(
        snapshot=snapshot,
        profile="home",
        time=iso(snapshot_time(snapshot)),
        previous=None,
        complete=True,
        entries=0,
        files=0,
        bytes=0,
        roots=[],
        archives=[],
        troubles=[],
    )


def _numbered(numbers: np.ndarray, changed: np.ndarray) -> pa.RecordBatch:
    count = len(numbers)
    is_dir = numbers % FOLDER == 0
    folders = [f"folder {number // FOLDER:05}" for number in numbers.tolist()]
    paths = [
        folder if number % FOLDER == 0 else f"{folder}/picture {number:08}.{_SUFFIX[number % 7]}"
        for folder, number in zip(folders, numbers.tolist(), strict=True)
    ]
    chance = np.random.default_rng(int(numbers[0]))
    digests = chance.integers(0, 256, count * 32, np.uint8).reshape(count, 32)
    digests[:, :8] = (numbers * 2 + changed).astype(">u8")[:, None].view(np.uint8)
    sha256 = pa.Array.from_buffers(SHA256, count, [None, pa.py_buffer(digests.tobytes())])
    times = WHEN + numbers * 7_919_000_123 % (10**17) + changed
    sizes = np.where(is_dir, 0, numbers * 7919 % 5_000_000 + changed)
    nothing = pa.nulls(count, pa.binary())
    columns = {
        "source": _word("s", count),
        "path": pa.array(paths, pa.string()),
        "raw_path": nothing,
        "type": pa.array(np.where(is_dir, "dir", "file").tolist()).dictionary_encode().cast(WORD),
        "size": pa.array(sizes, pa.int64()),
        "mtime": pa.array(times).view(SCHEMA.field("mtime").type),
        "ctime": pa.array(times + 1).view(SCHEMA.field("ctime").type),
        "user": _word("me", count),
        "group": _word("us", count),
        "inode": pa.array(numbers + 10_000, pa.uint64()),
        "dev": pa.array(np.full(count, 66), pa.uint64()),
        "link_target": nothing,
        "rdev": pa.nulls(count, pa.uint64()),
        "xattrs": pa.nulls(count, XATTRS),
        "sha256": _unless(is_dir, sha256),
        "parts": _parts(numbers, sizes, is_dir, sha256),
    }
    plain = {"mode": 0o644, "uid": 1000, "gid": 1000, "nlink": 1}
    columns |= {n: pa.array(np.full(count, v), pa.uint32()) for n, v in plain.items()}
    return pa.record_batch([columns[f.name] for f in SCHEMA], schema=SCHEMA)


_SUFFIX = ("jpg", "txt", "png", "pdf", "raw", "mov", "odt")


def _word(word: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([word]))


def _unless(missing: np.ndarray, values: pa.Array) -> pa.Array:
    """Return the values with nulls where they are missing."""
    index = np.arange(len(values))
    return values.take(pa.array(index, mask=missing))


def _parts(
    numbers: np.ndarray, sizes: np.ndarray, is_dir: np.ndarray, sha256: pa.Array
) -> pa.Array:
    keep = pa.array(~is_dir)
    files = numbers[~is_dir]
    names = pa.array([archive_name(number // ARCHIVE) for number in files.tolist()])
    facts = [
        names,
        pa.nulls(len(files), pa.string()),
        pa.array(files % ARCHIVE // 20 * 4_000_000, pa.int64()),
        pa.array(files % 20 * 200_000, pa.int64()),
        pa.array(sizes[~is_dir], pa.int64()),
        sha256.filter(keep),
    ]
    ends = np.concatenate([[0], np.cumsum(~is_dir)]).astype(np.int32)
    values = pa.StructArray.from_arrays(facts, fields=list(PART))
    return pa.ListArray.from_arrays(pa.array(ends), values, type=PARTS, mask=pa.array(is_dir))
