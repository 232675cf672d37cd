"""A manifest says where every content lies: each is read from there and compared with the file."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.catalog.contents import BUNDLE, Claims, StoredIndex
from tasks.catalog.runs import Run
from tasks.commit import commit
from tasks.diff import diff
from tasks.formats.manifest import read_info
from tasks.model.profile import parse_profile
from tasks.model.words import DiffSummary, ScanSummary
from tests.helpers.house import KIB, SPLIT, House, grow
from tests.helpers.rows import Row, key, read, write


def paths(rows: list[Row]) -> list[str]:
    return [f"{r['source']}/{r['path']}" for r in rows]


def by_path(rows: list[Row]) -> dict[str, Row]:
    return dict(zip(paths(rows), rows, strict=True))


@pytest.fixture
def house(tmp_path: Path, source: Path) -> House:
    return House(tmp_path / "workspace", "source")


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_every_content_lies_where_the_manifest_says(house: House, source: Path, rows: int) -> None:
    grow(source)
    info, found = house.back_up(rows=rows)
    assert info.troubles == []
    assert info.complete
    assert paths(found) == paths(sorted(found, key=key))
    house.check(found, source, "source")
    house.check_members(found)
    used = {p["archive"] for r in found for p in r["parts"] or () if p["archive"]}
    assert set(info.archives) == used
    files = [r for r in found if r["type"] == "file"]
    assert (info.files, info.bytes) == (len(files), sum(r["size"] for r in files))


def test_contents_that_are_alike_are_stored_once(house: House, source: Path) -> None:
    grow(source)
    _, rows = house.back_up(rows=1)
    found = by_path(rows)
    for one, other in (("0/big", "2/big again"), ("1/sparse", "2/sparse too")):
        first, second = found[f"source/{one}"], found[f"source/{other}"]
        places = [
            [(p["archive"], p["frame"], p["skip"], p["length"]) for p in r["parts"]]
            for r in (first, second)
        ]
        assert places[0] == places[1]
    stored = sum(os.path.getsize(path) for path in house.archives.values())
    assert stored < 150 * KIB + SPLIT + 12 * 30 * KIB + 100 * KIB


def test_a_second_snapshot_takes_over_what_has_not_changed(house: House, source: Path) -> None:
    grow(source)
    _, before = house.back_up(rows=3)
    (source / "0").rename(source / "moved")
    (source / "1" / "file 1").write_bytes(b"changed")
    (source / "1" / "new").write_bytes(b"same")
    (source / "2" / "file 2").unlink()
    (source / "1" / "file 4").chmod(0o600)
    with (source / "2" / "big again").open("r+b") as file:
        file.seek(70 * KIB)
        file.write(b"in the middle")
    archives = set(house.archives)
    _, rows = house.back_up(rows=3)
    house.check(rows, source, "source")
    house.check_members(rows)
    old, new = by_path(before), by_path(rows)
    assert [(p["archive"], p["member"]) for p in new["source/moved/file 0"]["parts"]] == [
        (p["archive"], "source/0/file 0") for p in old["source/0/file 0"]["parts"]
    ]
    assert new["source/1/file 7"] == old["source/1/file 7"]
    fresh = [os.path.getsize(house.archives[name]) for name in set(house.archives) - archives]
    assert sum(fresh) < 60 * KIB


def test_a_third_snapshot_finds_what_the_second_took_over(house: House, source: Path) -> None:
    grow(source)
    house.back_up()
    (source / "0").rename(source / "moved")
    house.back_up()
    (source / "moved").rename(source / "moved again")
    (source / "new").write_bytes(b"new")
    _, rows = house.back_up()
    house.check(rows, source, "source")
    house.check_members(rows)


def test_a_full_snapshot_refers_to_nothing_earlier(house: House, source: Path) -> None:
    grow(source)
    house.back_up()
    info, rows = house.back_up(full=True)
    house.check(rows, source, "source")
    assert all(name.startswith("archives/20260102T") for name in info.archives)


def test_several_sources_lie_in_one_manifest_in_order(tmp_path: Path) -> None:
    names = ("a", "a-b", "a.b", "b")
    for name in names:
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "file").write_bytes(name.encode() * 100)
        (tmp_path / name / "same").write_bytes(b"same")
    house = House(tmp_path / "workspace", "b", "a", "a.b", "a-b")
    for _ in range(2):
        _, rows = house.back_up(rows=1)
        for name in names:
            house.check(rows, tmp_path / name, name)
        (tmp_path / "a" / "x" / "file").write_bytes(b"other")


def test_a_partial_manifest_has_what_is_packed_so_far(house: House, source: Path) -> None:
    for number in range(6):
        (source / f"{number}").write_bytes(b"%d" % number * 100)
    run = house.begin()
    plan = house.plan(run, rows=2)
    house.pack(run, plan, plan.bundles[:2])
    info, rows = house.assemble(run, complete=False)
    assert paths(rows) == ["source/0", "source/1", "source/2", "source/3"]
    assert info.troubles == []
    assert not info.complete
    house.pack(run, plan, plan.bundles[2:])
    _, rows = house.assemble(run)
    house.check(rows, source, "source")


def test_a_file_that_could_not_be_read_has_no_row_and_its_links_neither(
    house: House, source: Path
) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * 50)
    os.link(source / "b", source / "link to b")
    os.link(source / "c", source / "link to c")
    run = house.begin()
    plan = house.plan(run)
    (source / "b").unlink()
    house.pack(run, plan)
    info, rows = house.assemble(run)
    assert paths(rows) == ["source/a", "source/c", "source/link to c"]
    assert [trouble.path for trouble in info.troubles] == ["source/b", "source/link to b"]


def test_a_file_that_changed_after_the_scan_has_the_facts_that_were_read(
    house: House, source: Path
) -> None:
    (source / "a").write_bytes(b"scanned")
    run = house.begin()
    plan = house.plan(run)
    (source / "a").write_bytes(b"and packed later")
    (source / "a").chmod(0o640)
    house.pack(run, plan)
    _, (entry,) = house.assemble(run)
    status = (source / "a").stat()
    assert (entry["size"], entry["mtime"], entry["mode"]) == (16, status.st_mtime_ns, 0o640)
    assert house.content(entry) == b"and packed later"


def claimed_by_a_killed_packer(run: Run, bundle: int, data: bytes) -> None:
    """Leave what a packer leaves that was killed before its archive was whole."""
    claims = Claims(run.path("claims"), bundle, set())
    stored = StoredIndex(run.path("stored.idx"))
    claims.claim([hashlib.sha256(data).digest()], bundle * BUNDLE, stored)
    claims.close()


def test_a_copy_of_what_was_lost_is_a_trouble_and_tried_again(house: House, source: Path) -> None:
    for name, data in {"a": b"same", "b": b"same", "c": b"c"}.items():
        (source / name).write_bytes(data)
    run = house.begin()
    plan = house.plan(run, rows=3)
    claimed_by_a_killed_packer(run, 7, b"same")
    house.pack(run, plan)
    info, rows = house.assemble(run)
    assert paths(rows) == ["source/c"]
    assert [trouble.path for trouble in info.troubles] == ["source/a", "source/b"]
    commit(run, run.load("diff.json", DiffSummary))
    _, rows = house.back_up()
    house.check(rows, source, "source")


@pytest.mark.parametrize("complete", [True, False])
def test_a_bundle_of_which_nothing_is_found_hides_no_other(
    house: House, source: Path, complete: bool
) -> None:
    for name, data in {"a": b"same", "b": b"same", "c": b"c", "d": b"d"}.items():
        (source / name).write_bytes(data)
    run = house.begin()
    plan = house.plan(run, rows=1)
    claimed_by_a_killed_packer(run, 1, b"same")
    (source / "a").unlink()
    house.pack(run, plan)
    _, rows = house.assemble(run, complete=complete)
    assert paths(rows) == ["source/c", "source/d"]


def unread(run: Run, folder: str) -> None:
    """Have the scan say that a folder could not be read, as it does for a user without rights."""
    path = run.scan_path("source")
    summary: ScanSummary = read_info(path, ScanSummary)
    seen = [r for r in read(path) if not r["path"].startswith(f"{folder}/")]
    write(path, seen, replace(summary, unread=[f"source/{folder}".encode().hex()]))
    run.save("diff.json", diff(run))


def test_what_lies_below_an_unread_folder_stays_with_its_content(
    house: House, source: Path
) -> None:
    grow(source)
    _, before = house.back_up()
    (source / "2" / "file 2").write_bytes(b"changed")
    run = house.begin()
    unread(run, "0")
    house.pack(run, house.plan(run))
    _, rows = house.assemble(run)
    house.check(rows, source, "source")
    assert [r for r in rows if r["path"].startswith("0/")] == [
        r for r in before if r["path"].startswith("0/")
    ]


def test_a_link_below_an_unread_folder_keeps_its_content_when_its_first_name_goes(
    house: House, source: Path
) -> None:
    (source / "a").mkdir()
    (source / "z").mkdir()
    (source / "a" / "first").write_bytes(b"one file, two names")
    os.link(source / "a" / "first", source / "z" / "second")
    house.back_up()
    (source / "a" / "first").unlink()
    (source / "a" / "other").write_bytes(b"other")
    run = house.begin()
    unread(run, "z")
    house.pack(run, house.plan(run))
    _, rows = house.assemble(run)
    house.check(rows, source, "source")


def test_a_file_that_is_shorter_than_the_system_says_is_not_padded(tmp_path: Path) -> None:
    """In /sys, and on some network file systems, a size is only a guess."""
    folder = Path("/sys/kernel/mm/transparent_hugepage")
    if not folder.is_dir() or os.stat(folder / "enabled").st_size != 4096:
        pytest.skip("no such files here")
    house = House(tmp_path / "workspace", "unused")
    text = f'[[source]]\npath = "{folder}"\nname = "sys"\n'
    house.profile = parse_profile("home", text, "home.toml")
    info, rows = house.back_up(rows=1000)
    files = [r for r in rows if r["type"] == "file"]
    assert len(files) + len(info.troubles) > 0
    assert all(r["size"] == sum(p["length"] for p in r["parts"]) for r in files)
