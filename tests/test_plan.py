"""The plan: all rows once, in bundles that are few and that their archives can be numbered in."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog.contents import BUNDLE
from tasks.catalog.request import Request
from tasks.formats.manifest import TableWriter
from tasks.model.profile import parse_profile
from tasks.plan import plan, smallest_capacity

GB = 10**9
SCHEMA = pa.schema([("type", pa.dictionary(pa.int32(), pa.string())), ("size", pa.int64())])


def request_of(archive_size: str = "auto") -> Request:
    text = f'[[source]]\npath = "/a"\n[archive]\narchive_size = "{archive_size}"\n'
    return Request(
        snapshot="20260101T000000Z",
        profile_name="home",
        profile=parse_profile("home", text, "home.toml"),
        workspace="/w",
        previous=None,
        full=False,
        allow_shrink=False,
        started="",
    )


def pack_list(folder: Path, sizes: list[int], kind: str = "file") -> str:
    path = str(folder / "pack.parquet")
    with TableWriter(path, SCHEMA) as writer:
        kinds = pa.array([kind] * len(sizes), pa.string()).dictionary_encode()
        writer.write(pa.record_batch([kinds, pa.array(sizes, pa.int64())], schema=SCHEMA))
        writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10**12), max_size=200), st.none() | st.integers(10**6, 10**12))
def test_every_row_is_in_one_bundle_and_in_order(
    folder: Path, sizes: list[int], smallest: int | None
) -> None:
    found = plan(pack_list(folder, sizes), request_of(), smallest)
    rows = [row for bundle in found.bundles for row in range(bundle.start, bundle.stop)]
    assert rows == list(range(len(sizes)))
    assert [bundle.number for bundle in found.bundles] == list(range(1, len(found.bundles) + 1))
    assert sum(bundle.bytes for bundle in found.bundles) >= sum(sizes)
    assert len(found.bundles) <= 250


def test_entries_without_content_weigh_little(folder: Path) -> None:
    found = plan(pack_list(folder, [10**12] * 5, kind="hardlink"), request_of(), None)
    assert len(found.bundles) == 1


@pytest.mark.parametrize(
    ("size", "archive_size", "smallest"),
    [
        (25_000 * GB, "auto", 4_700_000_000),  # a storage pool on DVDs
        (2000 * GB, "4MiB", None),
    ],
)
def test_a_bundle_has_no_more_archives_than_can_be_numbered(
    folder: Path, size: int, archive_size: str, smallest: int | None
) -> None:
    found = plan(pack_list(folder, [size, 1]), request_of(archive_size), smallest)
    assert all(bundle.bytes // found.archive_size < BUNDLE for bundle in found.bundles)


@given(st.integers(0, 10**15), st.integers(10**6, 10**13))
@settings(max_examples=40)
def test_archives_are_small_against_the_smallest_cartridge(
    folder: Path, total: int, smallest: int
) -> None:
    found = plan(pack_list(folder, [total]), request_of(), smallest)
    assert found.archive_size <= max(smallest // 32, 64 << 10)
    assert smallest < GB or found.archive_size <= smallest * 0.02


def test_the_smallest_capacity_is_that_of_any_cartridge_or_the_cap() -> None:
    assert smallest_capacity([], None) is None
    assert smallest_capacity([], 5) == 5
