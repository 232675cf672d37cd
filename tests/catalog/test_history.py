"""The history of a path: its versions, and what made them."""

import os
from pathlib import Path
from typing import Any

import pytest

from tasks.catalog.history import Version, history
from tasks.catalog.store import Store
from tasks.model.errors import NothingSelected, UsageError
from tasks.model.units import iso_ns
from tests.helpers.catalogs import add_archives, add_snapshot, archive_name, part
from tests.helpers.manifests import DAYS, new_store
from tests.helpers.rows import WHEN, Row, row


def versions_of(store: Store, path: str) -> list[tuple[str, str, str]]:
    found, _ = history(store, path)
    return [(v.change, v.snapshot, v.last) for v in found]


def file(path: bytes | str, content: int = 1, **facts: Any) -> Row:
    given_facts = {"size": content, "sha256": bytes([content]) * 32, **facts}
    return row(path, parts=[part(archive_name(content))], **given_facts)


def test_a_version_is_a_run_of_snapshots_with_the_same_content_and_metadata(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    states = [
        [row("b")],
        [file("a", ctime=1, inode=1)],
        [file("a", ctime=2, inode=2)],
        [file("a", mode=0o600)],
        [file("a", 2, mtime=WHEN + 1)],
        [],
        [file("a", 2, mtime=WHEN + 1)],
        [file("a", 2, xattrs=[("user.a", b"")], mtime=WHEN + 1)],
        [file("ab")],
        [],
    ]
    for day, rows in zip(DAYS, states, strict=False):
        add_snapshot(store, day, rows)
    found, deleted = history(store, "s/a")
    assert versions_of(store, "s/a") == [
        ("added", DAYS[1], DAYS[2]),
        ("metadata", DAYS[3], DAYS[3]),
        ("modified", DAYS[4], DAYS[4]),
        ("added", DAYS[6], DAYS[6]),
        ("metadata", DAYS[7], DAYS[7]),
    ]
    assert deleted == DAYS[8]
    assert found[2] == Version(
        snapshot=DAYS[4],
        last=DAYS[4],
        time="2026-01-05T00:00:00Z",
        path="a",
        source="s",
        size=2,
        mtime=iso_ns(WHEN + 1),
        sha256="02" * 32,
        cartridges=[3],
        change="modified",
    )
    assert history(store, "a") == (found, deleted)
    assert history(store, "ab")[1] == DAYS[9]
    assert history(store, "/s/b/")[1] == DAYS[1]


def test_the_cartridges_of_a_version_are_those_of_its_last_snapshot(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    for day, number in zip(DAYS, (0, 0, 2), strict=False):
        again = {**file("a"), "parts": [part(archive_name(number))]}
        add_snapshot(store, day, [again])
    [version], deleted = history(store, "a")
    assert (version.last, version.cartridges, deleted) == (DAYS[2], [3], None)


def test_another_name_of_a_file_has_the_history_of_its_content(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_archives(store, 40_000, cartridges=5)
    link = row("b", "hardlink", link_target=b"a", size=9, mtime=5)
    for day, rows in zip(
        DAYS, ([file("a"), link], [file("a", 3), link], [file("b", 3)], [link]), strict=False
    ):
        add_snapshot(store, day, rows)
    found, _ = history(store, "b")
    assert versions_of(store, "b") == [
        ("added", DAYS[0], DAYS[0]),
        ("modified", DAYS[1], DAYS[2]),
        ("modified", DAYS[3], DAYS[3]),
    ]
    assert [(v.size, v.sha256, v.cartridges) for v in found] == [
        (1, "01" * 32, [2]),
        (3, "03" * 32, [4]),
        (9, None, []),
    ]


def test_folders_links_and_what_changes_its_type_have_versions(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    states = [
        row("a", "dir"),
        row("a", "dir", mtime=5),
        row("a", "symlink", link_target=b"x", mtime=5),
        row("a", "symlink", link_target=b"y", mtime=5),
        row("a", "char", rdev=1, mtime=5),
        row("a", "char", rdev=2, mtime=5),
    ]
    for day, one in zip(DAYS, states, strict=False):
        add_snapshot(store, day, [row("A"), one, row("a-"), row("a", source="t")])
    changes = [change for change, *_ in versions_of(store, "s/a")]
    assert changes == ["added", "metadata", "modified", "modified", "modified", "modified"]


def test_a_path_that_means_several_files_has_to_be_named_whole(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    rows = [file("a"), file("b", source="t"), file("a/b"), file("a", 2, source="t"), file("t/b")]
    add_snapshot(store, DAYS[0], rows)
    with pytest.raises(UsageError, match="s/a, t/a"):
        history(store, "a")
    [version], _ = history(store, "t/b")
    assert (version.source, version.path) == ("t", "b")
    [version], _ = history(store, "s/t/b")
    assert (version.source, version.path) == ("s", "t/b")
    [version], _ = history(store, "a/b")
    assert (version.source, version.path) == ("s", "a/b")


def test_names_that_are_not_utf_8_are_told_apart_by_their_bytes(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    rows = [file(b"x\xff", 1), file(b"x\xfe", 2), file(b"y\xff", 3)]
    add_snapshot(store, DAYS[0], rows)
    [version], _ = history(store, os.fsdecode(b"x\xfe"))
    assert (version.path, version.size, version.raw_path) == ("x\ufffd", 2, "eP4=")
    assert history(store, "s/y\ufffd")[0][0].size == 3
    with pytest.raises(UsageError):
        history(store, "x\ufffd")
    with pytest.raises(NothingSelected):
        history(store, os.fsdecode(b"x\xfd"))


def test_a_path_that_no_snapshot_has_is_an_error(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_snapshot(store, DAYS[0], [file("a")])
    for path in ("b", "s", "a/b", "", "s/", "t/a"):
        with pytest.raises(NothingSelected, match=DAYS[0]):
            history(store, path)
