"""What a snapshot stored is known from its manifest as well as from a list, and never forgotten."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.catalog.contents import CONTENTS
from tasks.catalog.relisted import stored_by
from tasks.catalog.store import Store
from tests.conftest import MakeCartridges
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import fill
from tests.helpers.program import Program
from tests.helpers.trees import funny_farm

Content = tuple[Any, ...]


def store_of(program: Program) -> Store:
    return Store(str(program.workspace / "state" / "home" / "catalog"))


def contents(batches: Iterable[pa.RecordBatch]) -> set[Content]:
    rows = [row for batch in batches for row in batch.to_pylist()]
    return {
        (*(row[f.name] if f.name != "parts" else repr(row["parts"]) for f in CONTENTS),)
        for row in rows
    }


def without_marks(found: set[Content]) -> set[Content]:
    return {content[:-1] for content in found}


def test_a_manifest_says_all_that_a_list_of_contents_does(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source / "many", files=6000, size=20)
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"archive": {"split_size": "256kB"}})
    program.backup("home")
    funny_farm(source / "farm")
    (source / "large").write_bytes(random.Random(1).randbytes(9_000_000))
    shutil.copyfile(source / "large", source / "again")
    snapshot = program.backup("home")["snapshot"]

    store = store_of(program)
    assert os.path.exists(store.contents_path(snapshot))
    listed = contents(stored_by(store, snapshot, CONTENTS.names))
    os.remove(store.contents_path(snapshot))
    told = contents(stored_by(store, snapshot, CONTENTS.names))
    assert len(listed) > 100
    assert without_marks(told) == without_marks(listed)
    assert listed <= told  # where several files have a content, one has its member's metadata

    for columns in (["sha256", "archive"], ["archive", "frame", "skip", "mark"]):
        [*batches] = stored_by(store, snapshot, columns)
        assert {name for batch in batches for name in batch.schema.names} == {*columns}


def test_a_snapshot_that_stored_all_that_it_has_keeps_no_list(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source, files=20_000, size=30)
    program.init("home", [source], cartridges(1))
    snapshot = program.backup("home")["snapshot"]
    store = store_of(program)
    assert not os.path.exists(store.contents_path(snapshot))
    catalog = sum(path.stat().st_size for path in Path(store.folder).rglob("*") if path.is_file())
    assert catalog < 90 * 20_000

    shutil.copytree(source, source / "copy")
    again = program.backup("home")
    assert again["added"] == 20_001
    assert again["bytes_stored"] < 1000  # the header of a folder


def test_what_is_stored_stays_known_when_its_snapshot_is_forgotten(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    fill(source, files=40, size=5_000)
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    first = program.backup("home")["snapshot"]
    away = source.parent / "away"
    (source / "007.bin").rename(away)
    program.backup("home")
    assert first not in program.snapshots("home")
    away.rename(source / "back")
    outcome = program.backup("home")
    assert (outcome["added"], outcome["bytes_stored"]) == (1, 0)


def test_a_cut_file_that_holds_another_is_no_sparse_file(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """A piece of an image is the whole of a file of zeros: the image has several archives."""
    (source / "a").mkdir()
    fill(source / "a", files=1, size=110_000)
    (source / "a" / "zeros").write_bytes(bytes(32768))
    image = source / "image"
    image.write_bytes(bytes(131072) + random.Random(7).randbytes(90112))
    program.init("home", [source], cartridges(1), capacity="4MB")
    program.backup("home")
    away = image.rename(tmp_path / "image")
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    program.backup("home")  # the archive of the random half goes
    subprocess.run(["cp", "--sparse=always", away, source / "copy"], check=True)
    program.backup("home")
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
