"""What changed between two snapshots is what a backup would have found."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog import moves
from tasks.catalog.changes import OLD_COLUMNS, Change, ChangeWriter, Judge, compare, listed
from tasks.catalog.compared import KINDS, compare_snapshots
from tasks.formats.manifest import batches
from tests.helpers.catalogs import add_snapshot
from tests.helpers.manifests import DAYS, manifests, new_store, raw_name
from tests.helpers.rows import WHEN, Row, row


def merged(folder: Path, old: str, new: str, lenient: Sequence[str]) -> list[Change]:
    """What a backup would find between two manifests."""
    paths = [str(folder / name) for name in ("changes", "pack", "carry", "kept")]
    writer = ChangeWriter(*paths)
    judge = Judge(lenient=frozenset(lenient), unread=(), forced=False)
    compare(batches(new, OLD_COLUMNS), batches(old, OLD_COLUMNS), judge, writer)
    writer.close()
    moved = moves.find(paths[0], lenient)
    if moved:
        moves.apply(moved, *paths[:3])
    return [as_told(change) for change in listed(paths[0])]


def as_told(change: Change) -> Change:
    """A comparison knows both contents; those that are drawn differ where their sizes do."""
    is_same = change.change == "modified" and change.reason in ("mtime", "ctime", "inode")
    return dataclasses.replace(change, change="metadata") if is_same else change


NUMBERS = st.sets(st.integers(0, 24))


@given(manifests(), manifests(), NUMBERS, NUMBERS, st.sampled_from(((), ("s",))))
@settings(max_examples=50)
def test_a_comparison_finds_what_a_backup_would(
    tmp_path_factory: pytest.TempPathFactory,
    old: list[Row],
    others: list[Row],
    stay: set[int],
    touched: set[int],
    lenient: tuple[str, ...],
) -> None:
    store = new_store(tmp_path_factory.mktemp("catalog"))
    kept = {
        raw_name(r): {**r, "ctime": r["ctime"] + 5} if i in touched else r
        for i, r in enumerate(old)
        if i in stay
    }
    new = kept | {raw_name(r): r for r in others}
    older, newer = (store.manifest_path(day) for day in DAYS[:2])
    add_snapshot(store, DAYS[0], old)
    add_snapshot(store, DAYS[1], new.values())
    folder = Path(store.folder)
    expected = merged(folder, older, newer, lenient)
    found = compare_snapshots(newer, older, lenient, str(folder / "spool"))
    changes = [change for page in found.changes() for change in page]
    assert sorted(changes, key=repr) == sorted(expected, key=repr)
    for kind in KINDS:
        paths = [path for page in found.paths(kind) for path in page]
        assert paths == [c.path for c in changes if c.change == kind]


def test_changes_come_in_path_order_over_all_row_groups(tmp_path: Path) -> None:
    store = new_store(tmp_path)

    def rows(numbers: Iterable[int], *, altered: int) -> list[Row]:
        """Every 777th file is written to, every 600th touched."""
        return [
            row(
                f"{n:06}",
                inode=n,
                mtime=WHEN + altered * (n % 600 == 0),
                size=n,
                sha256=b"%031d" % n + (b"?" if altered and n % 777 == 0 else b"."),
                ctime=WHEN + altered * (n % 777 == 0),
            )
            for n in numbers
        ]

    old = rows((n for n in range(200_000) if n % 1000 != 3), altered=0)
    new = rows((n for n in range(200_000) if n % 900 != 4), altered=1)
    add_snapshot(store, DAYS[0], old)
    add_snapshot(store, DAYS[1], new)
    older, newer = (store.manifest_path(day) for day in DAYS[:2])
    found = compare_snapshots(newer, older, (), str(tmp_path / "spool"))
    changes = [change for page in found.changes() for change in page]
    assert [c.path for c in changes] == sorted(c.path for c in changes)
    gone = {f"s/{n:06}" for n in range(4, 200_000, 900)} - {
        f"s/{n:06}" for n in range(3, 200_000, 1000)
    }
    assert {c.path for c in changes if c.change == "deleted"} == gone
    fresh = {f"s/{n:06}" for n in range(3, 200_000, 1000) if n % 900 != 4}
    assert {c.path for c in changes if c.change == "added"} == fresh
    other = {f"s/{n:06}" for n in range(0, 200_000, 777) if n % 900 != 4 and n % 1000 != 3}
    assert {c.path for c in changes if c.change == "modified"} == other
    touched = {f"s/{n:06}" for n in range(0, 200_000, 600) if n % 900 != 4 and n % 1000 != 3}
    assert {c.path for c in changes if c.change == "metadata"} == touched - other
