"""What lies on cartridges and in a manifest is as promised.

The oracles are the system's `tar`, `lz4`, `sha256sum` and `du`, and other readers of Parquet.
"""

import hashlib
import re
import stat
import subprocess
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.compare import Facts, snapshot_of, without
from tests.helpers.farm import Farm, Row
from tests.helpers.media import check_cartridge
from tests.helpers.program import Medium, Program

SMALL = 8_000_000
LABEL_KEYS = {
    *("format_version", "set", "serial", "uuid", "profile", "capacity", "created"),
    *("codec", "encryption"),
}
PART_TYPES = {
    "archive": pa.string(),
    "member": pa.string(),
    "frame": pa.int64(),
    "skip": pa.int64(),
    "length": pa.int64(),
    "sha256": pa.binary(32),
}
COLUMN_TYPES = {
    "source": "words",
    "path": pa.string(),
    "raw_path": pa.binary(),
    "type": "words",
    "size": pa.int64(),
    "mtime": pa.timestamp("ns", "UTC"),
    "ctime": pa.timestamp("ns", "UTC"),
    "mode": pa.uint32(),
    "uid": pa.uint32(),
    "gid": pa.uint32(),
    "user": "words",
    "group": "words",
    "inode": pa.uint64(),
    "dev": pa.uint64(),
    "nlink": pa.uint32(),
    "link_target": pa.binary(),
    "rdev": pa.uint64(),
    "xattrs": "attributes",
    "sha256": pa.binary(32),
    "parts": "parts",
}


def pipe(*commands: list[str | bytes | Path]) -> bytes:
    """Run a pipeline and return its output; every command in it must succeed."""
    processes: list[subprocess.Popen[bytes]] = []
    for command in commands:
        before = processes[-1].stdout if processes else subprocess.DEVNULL
        processes.append(subprocess.Popen(command, stdin=before, stdout=subprocess.PIPE))
        if processes[:-1]:
            feed = processes[-2].stdout
            assert feed is not None
            feed.close()
    out, _ = processes[-1].communicate()
    codes = [process.wait() for process in processes]
    assert codes == [0] * len(codes), f"{commands} ended with {codes}"
    return out


def raw(row: Row) -> bytes:
    """Return the exact path of a manifest row, relative to its source."""
    name: bytes = row["path"].encode() if row["raw_path"] is None else row["raw_path"]
    return name.strip(b"/") if name != b"." else b""


def archive_named(media: list[Medium], name: str) -> Path:
    """Find an archive by what a manifest calls it: its path, or the part of it that tells."""
    for archive in (archive for medium in media for archive in medium.archives):
        inner = str(archive).partition("/archives/")[2]
        if inner == name.removeprefix("archives/") or inner.startswith(f"{name}."):
            return archive
    raise AssertionError(f"no cartridge holds the archive {name!r}")


def test_the_manifest_has_the_promised_columns_and_types(farm: Farm) -> None:
    schema = pq.read_schema(farm.manifest)
    assert set(schema.names) == set(COLUMN_TYPES)
    for field in schema:
        check_type(field.name, field.type, COLUMN_TYPES[field.name])


def check_type(name: str, found: pa.DataType, expected: pa.DataType | str) -> None:
    if expected == "words":
        assert pa.types.is_dictionary(found), f"{name} is {found}"
        assert found.value_type == pa.string(), f"{name} is {found}"
    elif expected == "attributes":
        assert pa.types.is_map(found), f"{name} is {found}"
        assert (found.key_type, found.item_type) == (pa.string(), pa.binary())
    elif expected == "parts":
        assert pa.types.is_list(found), f"{name} is {found}"
        assert {field.name: field.type for field in found.value_type} == PART_TYPES
    else:
        assert found == expected, f"{name} is {found}"


def test_duckdb_pandas_and_polars_read_the_manifest_as_it_is(farm: Farm) -> None:
    columns = set(COLUMN_TYPES)
    files = [facts for facts in farm.facts.values() if facts.kind == "file"]
    names = {path for path, facts in farm.facts.items() if facts.group == path}
    count = sum(farm.facts[path].kind == "file" for path in names)
    size = sum(farm.facts[path].size for path in names if farm.facts[path].kind == "file")
    assert len(files) > count > 100

    ask = "SELECT count(*), sum(size) FROM read_parquet(?) WHERE type = 'file'"
    assert duckdb.execute(ask, [str(farm.manifest)]).fetchone() == (count, size)
    whole = duckdb.execute("SELECT * FROM read_parquet(?)", [str(farm.manifest)]).df()
    assert set(whole.columns) == columns

    panda = pd.read_parquet(farm.manifest)
    assert set(panda.columns) == columns
    assert (panda["type"] == "file").sum() == count
    assert int(panda.loc[panda["type"] == "file", "size"].sum()) == size

    polar = pl.read_parquet(farm.manifest)
    assert set(polar.columns) == columns
    kept = polar.filter(pl.col("type").cast(pl.String) == "file")
    assert (kept.height, kept["size"].sum()) == (count, size)


def test_the_manifest_lists_every_entry_in_the_order_of_a_walk(farm: Farm) -> None:
    rows = farm.rows
    expected = without(farm.facts, "socket").keys() - {b""}
    assert {raw(row) for row in rows} - {b""} == expected
    keys = [raw(row) + b"/" * (row["type"] == "dir") for row in rows if raw(row)]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys))


def test_rows_tell_the_facts_of_files(farm: Farm) -> None:
    for row in farm.rows:
        facts = farm.facts[raw(row)]
        assert row["mode"] & 0o7777 == facts.mode, row["path"]
        assert (row["uid"], row["gid"]) == (facts.uid, facts.gid), row["path"]
        if row["type"] == "file":
            assert row["size"] == facts.size, row["path"]
            assert row["sha256"].hex() == facts.sha256, row["path"]
        if row["type"] == "symlink":
            assert row["link_target"] == facts.target, row["path"]


def test_paths_that_are_not_utf8_are_shown_and_kept_exactly(farm: Farm) -> None:
    for row in farm.rows:
        if row["raw_path"] is None:
            assert row["path"].encode().strip(b"/") in farm.facts
        else:
            shown = row["raw_path"].decode("utf-8", "replace")
            assert row["path"].strip("/") == shown.strip("/")
            with pytest.raises(UnicodeDecodeError):
                row["raw_path"].decode()


def test_tar_and_lz4_list_every_archive(farm: Farm) -> None:
    archives = [archive for medium in farm.written for archive in medium.archives]
    assert archives
    for archive in archives:
        listed = pipe(["lz4", "-dc", archive], ["tar", "-t"])
        assert listed, f"{archive} is empty"


def test_tar_and_lz4_alone_bring_back_all_whole_entries(
    farm: Farm, tmp_path: Path, needs_root: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for archive in sorted(a for medium in farm.written for a in medium.archives):
        pipe(["lz4", "-dc", archive], ["tar", "-x", "-p", "--numeric-owner", "-C", out])
    assert [path.name for path in out.iterdir()] == [farm.source.name]
    found = snapshot_of(out / farm.source.name)
    for row in farm.rows:
        if raw(row) and is_whole(row):
            check_extracted(row, found)


def is_whole(row: Row) -> bool:
    """Tell whether the entry lies under its own name: not in parts, not with a copy of it."""
    if row["type"] == "hardlink":
        return False  # tar needs the first name for it, which may lie elsewhere
    return all(part["archive"] is None or part["member"] is None for part in row["parts"] or ())


def check_extracted(row: Row, found: dict[bytes, Facts]) -> None:
    path = raw(row)
    assert path in found, f"{path!r} ({row['type']}) came from no archive"
    facts = found[path]
    assert facts.kind == row["type"], path
    if row["type"] == "file":
        assert facts.sha256 == row["sha256"].hex(), path
    if row["type"] == "symlink":
        assert facts.target == row["link_target"], path


@pytest.mark.night
def test_each_file_is_read_from_its_frame_alone(farm: Farm) -> None:
    media, read = farm.written, 0
    for row in farm.rows:
        if row["type"] != "file":
            continue
        whole = hashlib.sha256()
        for part in row["parts"] or ():
            content = content_of(part, media)
            assert len(content) == part["length"], row["path"]
            whole.update(content)
            read += part["archive"] is not None
        assert sum(part["length"] for part in row["parts"] or ()) == row["size"], row["path"]
        assert whole.digest() == row["sha256"], row["path"]
    assert read > 100


def content_of(part: Row, media: list[Medium]) -> bytes:
    """Read a part as a shell would, from its frame on; a part in no archive is a hole."""
    if part["archive"] is None:
        return bytes(part["length"])
    script = 'tail -c +"$2" "$1" | lz4 -dc 2>/dev/null | tail -c +"$3" | head -c "$4"'
    numbers = (part["frame"] + 1, part["skip"] + 1, part["length"])
    archive = archive_named(media, part["archive"])
    content = pipe(["sh", "-c", script, "sh", archive, *map(str, numbers)])
    assert hashlib.sha256(content).digest() == part["sha256"], part
    return content


def test_sha256sum_agrees_with_every_file_on_a_cartridge(farm: Farm) -> None:
    for medium in farm.written:
        check_cartridge(medium.path)


def test_the_journal_agrees_with_the_archives(farm: Farm) -> None:
    for medium in farm.written:
        for line in medium.journal:
            archive = medium.path / line["archive"]
            assert archive.stat().st_size == line["bytes"]
            assert hashlib.sha256(archive.read_bytes()).hexdigest() == line["sha256"]
            assert line["snapshot"] == farm.outcome["snapshot"]
        placed = sorted(medium.path / line["archive"] for line in medium.journal)
        assert placed == medium.archives


def test_labels_say_what_they_must(farm: Farm) -> None:
    labels = [medium.label for medium in farm.written]
    for label in labels:
        assert label.keys() >= LABEL_KEYS
        assert (label["profile"], label["capacity"]) == ("home", SMALL)
    assert [label["serial"] for label in labels] == list(range(1, len(labels) + 1))
    assert len({label["uuid"] for label in labels}) == len(labels)
    assert len({label["set"] for label in labels}) == 1


def test_names_on_a_cartridge_suit_any_file_system(farm: Farm) -> None:
    for medium in farm.written:
        folded = set()
        for path in medium.path.rglob("*"):
            inner = str(path.relative_to(medium.path))
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,119}", inner), inner
            assert all(len(name) <= 64 for name in inner.split("/")), inner
            status = path.lstat()
            assert stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode), inner
            assert stat.S_ISDIR(status.st_mode) or status.st_nlink == 1, inner
            assert inner.lower() not in folded, f"{inner} differs from another in case alone"
            folded.add(inner.lower())


def test_no_cartridge_is_filled_beyond_its_capacity(farm: Farm) -> None:
    for medium in farm.written:
        files = Program.cartridge_files(medium.path)
        assert sum((medium.path / name).stat().st_size for name in files) <= SMALL
        used = int(pipe(["du", "-s", "--block-size=1", medium.path]).split()[0])
        assert used <= SMALL, f"{medium.path.name} takes {used} bytes"


def test_each_cartridge_has_what_is_needed_to_restore_it(farm: Farm) -> None:
    for medium in farm.written:
        files = set(Program.cartridge_files(medium.path))
        assert files >= {
            "CARTRIDGE.json",
            "README.txt",
            "SHA256SUMS",
            "journal.jsonl",
        }
