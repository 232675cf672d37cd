"""A file is what its parts are together: a manifest that says otherwise is not believed."""

import hashlib
import os
from pathlib import Path

import pytest

from tasks.catalog.runs import Place
from tasks.catalog.wholeness import torn
from tests.helpers.house import House
from tests.helpers.rows import Row, batch, row, write

ONE, OTHER = (hashlib.sha256(content).digest() for content in (b"one", b"other"))


def part(length: int, digest: bytes | None = OTHER) -> Row:
    archive = "archives/x.tar.lz4" if digest else None
    place = {"frame": 0, "skip": 0} if digest else {"frame": None, "skip": None}
    return {"archive": archive, "member": None, "length": length, "sha256": digest, **place}


@pytest.mark.parametrize(
    ("size", "digest", "parts", "is_torn"),
    [
        (0, ONE, [], False),
        (3, ONE, [part(3, ONE)], False),
        (7, ONE, [part(3), part(4)], False),
        (7, ONE, [part(3), part(4, None)], False),
        (7, ONE, [part(7, None)], False),
        (3, None, [part(3)], False),  # made of archives: nobody knows the digest
        (3, ONE, [part(3)], True),
        (4, ONE, [part(3, ONE)], True),
        (3, ONE, [], True),
        (3, ONE, None, True),
        (7, ONE, [part(-1), part(8)], True),
        (2**63 - 1, ONE, [part(2**62), part(2**62)], True),
    ],
)
def test_a_file_is_torn_where_its_parts_are_not_the_whole_of_it(
    size: int, digest: bytes | None, parts: list[Row] | None, is_torn: bool
) -> None:
    good = row("a", size=3, sha256=ONE, parts=[part(3, ONE)])
    rows = [row("0", "dir"), good, row("b", size=size, sha256=digest, parts=parts), good]
    assert torn(batch(rows)).tolist() == [False, False, is_torn, False]
    assert torn(batch(rows).slice(2)).tolist() == [is_torn, False]
    assert torn(batch(rows[:2])).tolist() == [False, False]


def test_a_torn_file_is_reported_and_stored_again_by_the_next_run(
    tmp_path: Path, source: Path
) -> None:
    house = House(tmp_path / "workspace", "source")
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * 9)
    os.link(source / "a", source / "link to a")
    info, rows = house.back_up()
    rows[0]["parts"] = rows[1]["parts"]
    store = Place(str(house.folder), "home").store
    write(store.manifest_path(info.snapshot), rows, info)
    (source / "new").write_bytes(b"new")
    info, rows = house.back_up()
    assert [r["path"] for r in rows] == ["b", "c", "new"]
    assert [t.path for t in info.troubles] == ["source/a", "source/link to a"]
    info, rows = house.back_up()
    house.check(rows, source, "source")
    assert not info.troubles
