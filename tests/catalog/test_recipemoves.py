"""Which moved files tar can rename by rules; the rules are judged by GNU tar itself."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog.contents import CONTENTS, marks
from tasks.catalog.recipemoves import Metadata, Moves, Renaming
from tasks.catalog.recipeparts import Parts
from tests.helpers.rows import WHEN, batch, row
from tests.helpers.trees import ODD_NAMES

ARCHIVE = "archives/20260101T000000Z/0001000000.tar.lz4"
Pairs = dict[bytes, bytes]  # new name -> old name


def pairs_of(one: Renaming) -> Pairs:
    names = one.pairs.split(b"\0")[:-1]
    return dict(zip(names[::2], names[1::2], strict=True))


def unpacked(folder: Path, one: Renaming, members: list[bytes]) -> Pairs:
    """Have tar unpack one pass of an archive whose members have their names as content."""
    folder.mkdir(parents=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in members:
            facts = tarfile.TarInfo(os.fsdecode(name))
            facts.size = len(name)
            tar.addfile(facts, io.BytesIO(name))
    (folder / "list").write_bytes(one.members)
    (folder / "out").mkdir()
    done = subprocess.run(
        [
            *("tar", "-x", "-f", "-", "-C", folder / "out", "--no-recursion", "--same-order"),
            *("--null", "-T", folder / "list", b"--transform=" + one.rules),
        ],
        input=packed.getvalue(),
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    assert done.stderr == b""
    top = bytes(folder / "out")
    found = [p for p in (folder / "out").rglob("*") if p.is_file()]
    return {bytes(p)[len(top) + 1 :]: p.read_bytes() for p in found}


def check(folder: Path, wanted: list[tuple[bytes, bytes]]) -> Moves:
    """Add pairs (old, new); what a pass takes is what tar then makes of it."""
    members = list(dict.fromkeys(old for old, _ in wanted))
    moves = Moves()
    taken = {new: old for old, new in wanted if moves.add(old, new, (0, members.index(old)))}
    made: Pairs = {}
    for number, one in enumerate(moves.passes):
        pairs = pairs_of(one)
        assert unpacked(folder / str(number), one, members) == pairs
        made |= pairs
    assert made == taken
    return moves


def moved(old: bytes, new: bytes, *names: bytes) -> list[tuple[bytes, bytes]]:
    return [(old + b"/" + name, new + b"/" + name) for name in names]


NAMES = st.sampled_from(
    [b"a", b"b", b"ab", b"a.b", b"a&\\1", b"*[x]", b"new\nline", b"\xff", b"s,x,"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: b"s/" + b"/".join(names))


def _fits(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Leave out what no file system could hold: a file that is a folder too, one name twice."""
    kept: dict[bytes, bytes] = {}
    olds: set[bytes] = set()
    for old, new in pairs:
        above = [n for n in kept if n.startswith(new + b"/") or new.startswith(n + b"/")]
        before = [o for o in olds if o.startswith(old + b"/") or old.startswith(o + b"/")]
        if new not in kept and not above and not before:
            kept[new] = old
            olds.add(old)
    return [(old, new) for new, old in sorted(kept.items())]


@settings(max_examples=60)
@given(st.lists(st.tuples(PATHS, PATHS, NAMES), min_size=1, max_size=8))
def test_tar_makes_of_members_what_the_passes_say(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[bytes, bytes, bytes]]
) -> None:
    pairs = [(old + b"/" + name, new + b"/" + name) for old, new, name in found]
    check(tmp_path_factory.mktemp("moves"), _fits(pairs))


def test_a_tree_that_moved_takes_one_rule(tmp_path: Path) -> None:
    names = [b"%d/%d/file %d" % (n % 3, n % 5, n) for n in range(100)]
    [only] = check(tmp_path, moved(b"s/photos", b"s/archive/pictures", *names)).passes
    assert only.rules.count(b";") == 1
    assert len(pairs_of(only)) == 100


def test_folders_that_changed_places_take_one_pass(tmp_path: Path) -> None:
    """What one rule has named, the other does not name again."""
    pairs = [*moved(b"s/a", b"s/b", b"1", b"x/2"), *moved(b"s/b", b"s/a", b"1", b"y/3")]
    assert len(check(tmp_path, pairs).passes) == 1


def test_what_moved_out_of_and_into_a_moved_folder_is_right(tmp_path: Path) -> None:
    pairs = [
        *moved(b"s/a", b"s/b", b"1", b"sub/2", b"sub/3"),
        *moved(b"s/a/sub", b"s/elsewhere", b"4"),
        *moved(b"s/far/away", b"s/b/sub", b"5"),
        *moved(b"s/a/inner", b"s/c", b"6", b"7"),
    ]
    passes = check(tmp_path, pairs).passes
    assert sum(len(pairs_of(one)) for one in passes) == len(pairs)


def test_a_member_with_several_new_names_takes_as_many_passes(tmp_path: Path) -> None:
    pairs = [(b"s/a/1", b"s/copy %d/1" % n) for n in range(6)]
    moves = check(tmp_path, pairs)
    assert [len(pairs_of(one)) for one in moves.passes] == [1, 1, 1, 1]


def test_a_file_of_another_name_is_not_taken() -> None:
    assert not Moves().add(b"s/a/1", b"s/a/2", (0, 0))


def test_no_more_rules_are_made_than_tar_can_be_given() -> None:
    """Rules are one word of a command; the system limits it to 131,072 bytes."""
    moves = Moves()
    for number in range(3000):
        moves.add(b"s/%04d/x" % number, b"s/%s-%04d/x" % (b"." * 200, number), (0, number))
    assert all(len(one.rules) < 100_000 for one in moves.passes)
    assert all(one.rules.count(b";") <= 200 for one in moves.passes)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_folders_of_odd_names_are_moved(tmp_path: Path, name: bytes) -> None:
    pairs = [*moved(b"s/" + name, b"s/plain", b"1"), *moved(b"s/other", b"s/to/" + name, b"2")]
    check(tmp_path, pairs)


# ---- which members have the metadata that a row has


def stored(*rows: tuple[int, int | None]) -> pa.RecordBatch:
    """Make a list of contents: skip and mark of each."""
    found = [
        {"sha256": bytes(32), "archive": ARCHIVE, "member": b"s/old", "frame": 0, "length": 1}
        | {"skip": skip, "mark": mark}
        for skip, mark in rows
    ]
    return pa.RecordBatch.from_pylist(found, schema=CONTENTS)


def test_only_members_that_have_the_same_metadata_are_alike() -> None:
    [mark] = marks([WHEN], [0o644], [0], [0]).tolist()
    found = stored((512, mark), (1536, mark), (2560, None))

    def file(name: str, skip: int, **facts: object) -> dict[str, object]:
        part = {"archive": ARCHIVE, "member": "s/old", "frame": 0, "skip": skip, "length": 1}
        parts = [{**part, "sha256": bytes(32)}]
        return row(name, **{"size": 1, "parts": parts, **facts})

    rows = {
        "same": (file("a", 512), True),
        "same, elsewhere": (file("b", 1536), True),
        "not known": (file("c", 2560), False),
        "no member": (file("d", 9999), False),
        "mode": (file("e", 512, mode=0o600), False),
        "owner": (file("f", 512, uid=1), False),
        "group": (file("g", 512, gid=1), False),
        "time": (file("h", 512, mtime=WHEN + 1), False),
        "attributes": (file("i", 512, xattrs=[("user.x", b"")]), False),
        "names": (file("j", 512, nlink=2), False),
    }
    given_rows = batch(found for found, _ in rows.values())
    parts = Parts(given_rows, lambda archive: 1)
    alike = Metadata(lambda *_: [found]).alike(given_rows, parts, [ARCHIVE])
    assert dict(zip(rows, alike.tolist(), strict=True)) == {n: e for n, (_, e) in rows.items()}


def test_a_list_that_is_gone_or_of_an_early_version_tells_nothing() -> None:
    early = stored((512, None)).drop_columns(["mark"])
    part = {"archive": ARCHIVE, "member": "s/old", "frame": 0, "skip": 512, "length": 1}
    rows = batch([row("a", size=1, parts=[{**part, "sha256": bytes(32)}])])
    for lists in ([early], []):
        found = Metadata(lambda *_, lists=lists: lists)  # type: ignore[misc]
        assert not found.alike(rows, Parts(rows, lambda archive: 1), [ARCHIVE]).any()
