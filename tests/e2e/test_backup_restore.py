"""What is backed up comes back, lies on cartridges as promised, and troubles end as promised.

The oracles are the system's `tar`, `lz4`, `sha256sum` and `du`, and other readers of Parquet.
"""

import datetime
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.compare import Facts, assert_same_tree, snapshot_of, without
from tests.helpers.farm import Farm, Row
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import MIB, small_tree

MakeCartridges = Callable[[int], list[Path]]

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


def bytes_on(*cartridges: Path) -> list[dict[bytes, Facts]]:
    """Return all facts of all that lies on some cartridges, to tell whether they were touched."""
    return [snapshot_of(cartridge) for cartridge in cartridges]


def wait_for_next_second() -> None:
    """Let a second go by, so that a time lies surely between two snapshots."""
    time.sleep(1.1)


# ---- what comes back


def test_everything_odd_comes_back_exactly(farm: Farm, tmp_path: Path) -> None:
    outcome = farm.program.restore("home", tmp_path / "out")
    assert outcome["snapshot"] == farm.outcome["snapshot"]
    assert outcome["damaged"] == []
    assert_same_tree(without(farm.facts, "socket"), tmp_path / "out" / farm.source.name)


def test_the_farm_needed_several_cartridges_and_was_complete(farm: Farm) -> None:
    assert farm.outcome["status"] == "complete"
    assert farm.outcome["unreadable"] == []
    assert len(farm.written) >= 3
    serials = [medium.label["serial"] for medium in farm.written]
    assert sorted(farm.outcome["cartridges"]) == serials


def test_several_sources_come_back_side_by_side(
    program: Program, tmp_path: Path, cartridges: MakeCartridges
) -> None:
    sources = [tmp_path / "one" / "docs", tmp_path / "pictures", tmp_path / "two" / "docs"]
    for seed, folder in enumerate(sources):
        small_tree(folder, files=10, seed=seed)
    program.init("home", sources, cartridges(1))
    program.backup("home")
    program.restore("home", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 3
    assert {"docs", "pictures"} < set(names)
    suffixed = next(name for name in names if name not in ("docs", "pictures"))
    for folder, name in zip(sources, ("docs", "pictures", suffixed), strict=True):
        assert_same_tree(folder, tmp_path / "out" / name)


@pytest.mark.parametrize(
    ("size", "capacity", "number"),
    [(20 * MIB, "8MB", 5), pytest.param(100 * MIB, "40MB", 4, marks=pytest.mark.slow)],
)
def test_a_file_larger_than_a_cartridge_spans_several(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    tmp_path: Path,
    size: int,
    capacity: str,
    number: int,
) -> None:
    (source / "disk.img").write_bytes(random.Random(1).randbytes(size))
    program.init("home", [source], cartridges(number), capacity=capacity)
    outcome = program.backup("home")
    assert outcome["status"] == "complete"
    assert len(outcome["cartridges"]) >= 3
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- what lies on a cartridge


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
        check_sums(medium)


def check_sums(medium: Medium) -> None:
    command = ["sha256sum", "--strict", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=medium.path, check=True)
    lines = (medium.path / "SHA256SUMS").read_text("ascii").splitlines()
    listed = [line[66:].removeprefix("./") for line in lines]
    assert len(listed) == len(set(listed))
    assert {*listed, "SHA256SUMS"} == set(Program.cartridge_files(medium.path))


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


# ---- what a second run does


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> tuple[Program, Path, Path]:
    """Back up a source of 50 small files and of 3 MB of random files onto one cartridge."""
    small_tree(source)
    fill(source / "big", files=6, size=500_000)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.backup("home")
    return program, source, cartridge


Home = tuple[Program, Path, Path]


def test_an_unchanged_source_adds_no_snapshot_and_touches_no_cartridge(home: Home) -> None:
    program, _, cartridge = home
    before, snapshots = bytes_on(cartridge), program.snapshots("home")
    outcome = program.backup("home")
    assert (outcome["status"], outcome["snapshot"]) == ("unchanged", None)
    assert bytes_on(cartridge) == before
    assert program.snapshots("home") == snapshots


def test_an_unchanged_source_needs_no_cartridge(home: Home) -> None:
    program, _, cartridge = home
    cartridge.rename(cartridge.parents[1] / "on the shelf")
    assert program.backup("home")["status"] == "unchanged"


def test_only_what_changed_is_stored(home: Home, tmp_path: Path) -> None:
    program, source, cartridge = home
    (source / "letters" / "new.txt").write_text("a letter\n")
    with (source / "x" / "0004.txt").open("a") as file:
        file.write("one more line\n")
    (source / "0000.txt").unlink()
    outcome = program.backup("home")
    counts = {key: outcome[key] for key in ("added", "modified", "moved", "deleted")}
    assert counts == {"added": 1, "modified": 1, "moved": 0, "deleted": 1}
    assert 0 < outcome["bytes_stored"] < 100_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    check_sums(Medium(path=cartridge))


def test_moved_files_are_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    (source / "big" / "001.bin").rename(source / "x" / "renamed.bin")
    outcome = program.backup("home")
    assert (outcome["moved"], outcome["added"], outcome["deleted"]) == (1, 0, 0)
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_file_that_was_renamed_and_written_to_is_not_taken_for_the_old_one(
    home: Home, tmp_path: Path
) -> None:
    """Its size and its mtime are as before, and its ctime would be new in any case."""
    program, source, _ = home
    renamed, in_moved = source / "x" / "renamed.bin", source / "moved" / "002.bin"
    (source / "big" / "001.bin").rename(renamed)
    (source / "big").rename(source / "moved")
    for path in (renamed, in_moved):
        facts = path.stat()
        with path.open("r+b") as file:
            file.write(b"another beginning")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    outcome = program.backup("home")
    assert outcome["moved"] >= 6
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_moved_folder_is_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    (source / "big").rename(source / "letters" / "large")
    outcome = program.backup("home")
    assert outcome["moved"] >= 6
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_copied_files_are_not_stored_again(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    shutil.copyfile(source / "big" / "002.bin", source / "copy.bin")
    outcome = program.backup("home")
    assert outcome["added"] == 1
    assert outcome["bytes_stored"] < 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_changed_metadata_makes_a_snapshot_without_content(home: Home, tmp_path: Path) -> None:
    program, source, cartridge = home
    (source / "big" / "003.bin").chmod(0o600)
    outcome = program.backup("home")
    assert (outcome["status"], outcome["archives"]) == ("complete", 0)
    assert (outcome["metadata"], outcome["modified"]) == (1, 0)
    assert Medium(path=cartridge).manifest(outcome["snapshot"]).exists()
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_an_edit_that_hides_behind_size_and_mtime_is_found(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    file = source / "big" / "004.bin"
    before = file.stat().st_mtime_ns
    with file.open("r+b") as opened:
        opened.write(b"not as it was")
    os.utime(file, ns=(before, before))
    assert program.backup("home")["modified"] == 1
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_byte_inserted_into_a_large_file_stores_little(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    data = random.Random(7).randbytes(100 * MIB)
    (source / "disk.img").write_bytes(data)
    program.init("home", [source], cartridges(1))
    first = program.backup("home")
    assert first["bytes_stored"] > 100 * MIB
    (source / "disk.img").write_bytes(b"!" + data)
    second = program.backup("home")
    assert 0 < second["bytes_stored"] < 20 * MIB
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- running out of cartridges


def test_a_batch_run_waits_for_cartridges_and_goes_on(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=60, size=400_000)
    first, second = cartridges(2)
    program.init("home", [source], [first, second], capacity="8MB")
    program.edit_profile("home", {"cartridges": {"search": [str(first.parent / "*")]}})
    waiting = program.backup("home", "--batch", code=4)
    assert waiting["status"] == "waiting"
    kept = bytes_on(first / "archives")
    again = program.backup("home", "--batch", code=4)
    assert again["snapshot"] == waiting["snapshot"]

    for cartridge in cartridges(2):
        name = Medium(path=first).label["set"]
        program.run("label", cartridge, "--set", name, "--capacity", "8MB")
    done = program.backup("home", "--batch")
    assert (done["status"], done["snapshot"]) == ("complete", waiting["snapshot"])
    assert bytes_on(first / "archives") == kept, "what is full is not written again"
    assert program.snapshots("home") == [done["snapshot"]]
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- trouble with the source


def test_an_unreadable_file_is_reported_and_tried_again(as_nobody: Program, commons: Path) -> None:
    source, cartridge = commons / "source", commons / "c1"
    small_tree(source, files=10)
    (source / "secret.txt").write_text("not for you\n")
    cartridge.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", source, cartridge], check=True)
    (source / "secret.txt").chmod(0)
    as_nobody.init("home", [source], [cartridge])

    partial = as_nobody.backup("home", code=3)
    assert partial["status"] == "partial"
    [path] = partial["unreadable"]
    assert path.endswith("secret.txt")
    listed = as_nobody.listed("home")
    assert len(listed) >= 10
    assert not any(path.endswith("secret.txt") for path in listed)

    (source / "secret.txt").chmod(0o600)
    assert as_nobody.backup("home")["status"] == "complete"
    assert any(path.endswith("secret.txt") for path in as_nobody.listed("home"))
    as_nobody.restore("home", commons / "out")
    assert_same_tree(source, commons / "out" / "source")


def lose_it(source: Path) -> None:
    source.rename(source.with_name("unplugged"))


def empty_it(source: Path) -> None:
    shutil.rmtree(source)
    source.mkdir()


def lose_most(source: Path) -> None:
    for file in sorted(source.rglob("*.*"))[10:]:
        file.unlink()


@pytest.mark.parametrize("happens", [lose_it, empty_it, lose_most])
def test_a_source_that_vanished_stops_the_run_before_anything_is_written(
    home: Home, happens: Callable[[Path], None]
) -> None:
    program, source, cartridge = home
    catalog = program.catalog("home")
    before = bytes_on(cartridge, catalog)
    happens(source)
    error = program.backup("home", code=1)
    assert error["exit_code"] == 1
    assert error["error"]
    assert "source" in error["message"]
    assert bytes_on(cartridge, catalog) == before


@pytest.mark.parametrize("happens", [empty_it, lose_most])
def test_a_shrunken_source_is_backed_up_when_allowed(
    home: Home, tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    program, source, _ = home
    happens(source)
    assert program.backup("home", "--allow-shrink")["status"] == "complete"
    if any(source.iterdir()):  # what is left is the new measure; an empty source never is
        assert program.backup("home")["status"] == "unchanged"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


# ---- restoring this and that


def test_an_older_snapshot_comes_back_by_id_and_by_time(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    first = snapshot_of(source)
    wait_for_next_second()
    between = datetime.datetime.now(datetime.UTC)
    later = between + datetime.timedelta(days=365)
    wait_for_next_second()
    shutil.rmtree(source / "letters")
    (source / "new.txt").write_text("new\n")
    program.backup("home")
    oldest, newest = program.snapshots("home")
    assert oldest < newest

    program.restore("home", tmp_path / "id", "--snapshot", oldest)
    program.restore("home", tmp_path / "at", "--at", between.isoformat())
    program.restore("home", tmp_path / "now", "--at", later.isoformat())
    program.restore("home", tmp_path / "newest")
    assert_same_tree(first, tmp_path / "id" / "source")
    assert_same_tree(first, tmp_path / "at" / "source")
    assert_same_tree(source, tmp_path / "now" / "source")
    assert_same_tree(source, tmp_path / "newest" / "source")
    assert not (tmp_path / "newest" / "source" / "letters").exists()


def test_a_time_before_all_snapshots_is_an_error(home: Home, tmp_path: Path) -> None:
    program, _, _ = home
    args = ("--at", "2001-02-03T04:05:06Z")
    error = program.restore("home", tmp_path / "out", *args, code=None)
    assert error["exit_code"] in (1, 2)
    assert not (tmp_path / "out" / "source").exists()


def test_patterns_choose_what_is_restored(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    program.restore("home", tmp_path / "out", "source/letters/*.txt", "source/big/00[12].bin")
    whole = snapshot_of(source)
    wanted = (rb"letters/[^/]*\.txt", rb"big/00[12]\.bin", rb"letters", rb"big", rb"")
    expected = {
        path: facts
        for path, facts in whole.items()
        if any(re.fullmatch(pattern, path) for pattern in wanted)
    }
    assert_same_tree(expected, tmp_path / "out" / "source", ignore=["mtime_ns", "group"])
    for path, facts in snapshot_of(tmp_path / "out" / "source").items():
        assert facts.kind != "file" or facts.mtime_ns == whole[path].mtime_ns


def test_foreign_files_stay_unless_they_are_to_go(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    out = tmp_path / "out" / "source"
    program.restore("home", tmp_path / "out")
    (out / "foreign.txt").write_text("mine\n")
    (out / "letters" / "foreign folder").mkdir()
    (out / "letters" / "foreign folder" / "x").write_text("mine too\n")
    (out / "big" / "000.bin").write_text("altered\n")
    program.restore("home", tmp_path / "out")
    assert (out / "foreign.txt").read_text() == "mine\n"
    assert (out / "letters" / "foreign folder" / "x").read_text() == "mine too\n"
    program.restore("home", tmp_path / "out", "--delete", "--yes")
    assert_same_tree(source, out)


def test_a_plan_names_the_cartridges_and_restores_nothing(farm: Farm, tmp_path: Path) -> None:
    plan = farm.program.restore("home", tmp_path / "out", "--plan")
    serials = [cartridge["serial"] for cartridge in plan["cartridges"]]
    assert sorted(serials) == [medium.label["serial"] for medium in farm.written]
    assert all(cartridge["present"] for cartridge in plan["cartridges"])
    assert not (tmp_path / "out").exists()


# ---- damage


def flip_a_bit(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 0x10]))


def test_verify_finds_nothing_on_sound_cartridges(farm: Farm) -> None:
    found = farm.program.json("verify", "home", timeout=300)
    assert {cartridge["serial"] for cartridge in found["cartridges"]} >= {
        medium.label["serial"] for medium in farm.written
    }
    assert not any(cartridge["damaged"] for cartridge in found["cartridges"])


def test_verify_names_the_file_with_a_flipped_bit(home: Home) -> None:
    program, _, cartridge = home
    archive = max(Medium(path=cartridge).archives, key=lambda path: path.stat().st_size)
    flip_a_bit(archive)
    for what in ("home", str(cartridge)):
        found = program.json("verify", what, code=5)
        [report] = found["cartridges"]
        [damaged] = report["damaged"]
        assert str(archive).endswith(damaged)


def test_what_is_not_damaged_is_still_restored(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=80, size=250_000)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.backup("home")
    flip_a_bit(max(Medium(path=cartridge).archives, key=lambda path: path.stat().st_size))
    outcome = program.restore("home", tmp_path / "out", code=5)
    damaged = {Path(path).name for path in outcome["damaged"]}
    assert 0 < len(damaged) < 40
    for file in source.iterdir():
        if file.name not in damaged:
            restored = tmp_path / "out" / "source" / file.name
            assert restored.read_bytes() == file.read_bytes(), file.name


# ---- mistakes


def test_all_mistakes_in_a_profile_are_reported_at_once(home: Home) -> None:
    program, _, _ = home
    mistakes = {
        "source": [{"exclud": ["*.tmp"]}],
        "cartridges": {"capacity": "25 parsecs", "copies": "many"},
        "archive": {"codec": "rar"},
        "retention": {"keep_last": -3},
        "run": {"workers": "plenty"},
    }
    program.edit_profile("home", mistakes)
    error = program.backup("home", code=2)
    told = f"{error['message']} {error['help']}"
    shown = program.run("backup", "home", code=2).stderr
    for key in ("exclud", "capacity", "copies", "codec", "keep_last", "workers"):
        assert key in told, f"the mistake in {key} is not reported"
        assert key in shown, f"the mistake in {key} is not shown"
    assert "home.toml" in re.sub(r"\s", "", shown)


def test_init_labels_nothing_where_one_of_several_volumes_is_foreign(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    first, second = cartridges(2)
    (second / "thesis.doc").write_text("Not a cartridge.")
    options = ("--source", source, "--cartridge", first, "--cartridge", second)
    told = program.run("init", "home", *options, code=1).stderr
    assert "thesis.doc" in told
    assert os.listdir(first) == []
    (second / "thesis.doc").unlink()
    program.init("home", [source], [first, second])
    told = program.run("label", first, "--set", "home", code=1).stderr
    assert "labelled already" in told


def test_label_refuses_a_directory_with_foreign_files(
    program: Program, cartridges: MakeCartridges
) -> None:
    [folder] = cartridges(1)
    (folder / "holiday.jpg").write_bytes(b"precious")
    before = bytes_on(folder)
    error = program.json("label", folder, "--set", "home", code=None)
    assert error["exit_code"] in (1, 2)
    assert str(folder) in error["message"] + error["help"]
    assert bytes_on(folder) == before


def test_label_refuses_a_cartridge_that_has_a_label(home: Home) -> None:
    program, _, cartridge = home
    before = bytes_on(cartridge)
    assert program.json("label", cartridge, "--set", "other", code=None)["exit_code"] in (1, 2)
    assert bytes_on(cartridge) == before


def test_a_profile_that_is_not_there_is_wrong_usage(program: Program) -> None:
    error = program.backup("nowhere", code=2)
    assert "nowhere" in error["message"]


# ---- retention


def archives_of(cartridge: Path, snapshot: str) -> list[Path]:
    found = Medium(path=cartridge).archives
    return [archive for archive in found if archive.parent.name == snapshot]


def test_prune_removes_whole_dead_archives(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=8, size=300_000, seed=1)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    old = program.backup("home")["snapshot"]
    fill(source, files=8, size=300_000, seed=2)
    new = program.backup("home")["snapshot"]
    assert archives_of(cartridge, old)
    program.edit_profile("home", {"retention": {"keep_last": 1}})

    before = bytes_on(cartridge)
    program.json("prune", "home", "--dry-run")
    assert bytes_on(cartridge) == before
    program.json("prune", "home")
    assert archives_of(cartridge, old) == []
    assert archives_of(cartridge, new)
    assert program.snapshots("home") == [new]
    check_sums(Medium(path=cartridge))
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_prune_keeps_what_kept_snapshots_refer_to(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    expected = {program.snapshots("home")[0]: snapshot_of(source)}
    for number in range(3):
        fill(source / "big", files=2, size=200_000, seed=10 + number)
        (source / "big" / "005.bin").rename(source / f"moved {number}.bin")
        shutil.copyfile(source / f"moved {number}.bin", source / "big" / "005.bin")
        expected[program.backup("home")["snapshot"]] = snapshot_of(source)
    program.edit_profile("home", {"retention": {"keep_last": 2}})
    program.json("prune", "home")
    kept = program.snapshots("home")
    assert kept == sorted(expected)[-2:]
    for snapshot in kept:
        program.restore("home", tmp_path / snapshot, "--snapshot", snapshot)
        assert_same_tree(expected[snapshot], tmp_path / snapshot / "source")
    gone = program.restore("home", tmp_path / "gone", "--snapshot", sorted(expected)[0], code=None)
    assert gone["exit_code"] in (1, 2)
    assert program.json("verify", "home")["cartridges"][0]["damaged"] == []
