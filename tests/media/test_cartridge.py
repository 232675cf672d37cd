"""A cartridge: what its journal names lies whole on it, and it is never filled beyond its caps."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.media import cartridge as media
from tasks.media import durable
from tasks.media.cartridge import Cartridge, rounded
from tasks.media.labelling import write_label
from tasks.media.readback import (
    examine,
    expected_sums,
    read_back,
)
from tasks.model.errors import (
    CartridgeFailed,
    CartridgeFull,
    ForeignVolume,
    LabelledAlready,
    RunActive,
    VolumeUnusable,
)
from tests.conftest import MakeVolume
from tests.helpers.cartridge import SNAPSHOT, labelled, line, place

FOLDERS = 3 * 4096  # what a writer keeps free for the first journal line and the folders


def files(cartridge: Cartridge) -> set[str]:
    top = Path(cartridge.path)
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


def measured(cartridge: Cartridge) -> int:
    """What lies there in whole blocks, directories included, as `du` would count."""
    paths = [Path(cartridge.path), *Path(cartridge.path).rglob("*")]
    return sum(4096 if p.is_dir() else -(-p.stat().st_size // 4096) * 4096 for p in paths)


def sha256sum(cartridge: Cartridge) -> None:
    command = ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]
    subprocess.run(command, cwd=cartridge.path, check=True)


@pytest.fixture
def cartridge(tmp_path: Path) -> Cartridge:
    return labelled(tmp_path / "c1")


def test_a_label_says_who_a_cartridge_is(tmp_path: Path) -> None:
    cartridge = labelled(tmp_path / "c1", capacity=1000)
    assert files(cartridge) == {"CARTRIDGE.json"}
    label = cartridge.label
    assert (label.title, label.capacity, label.encryption) == ("home 1", 1000, "none")
    assert labelled(tmp_path / "c2").label.uuid != label.uuid


@pytest.mark.parametrize("name", ["letter.txt", ".hidden", "folder"])
def test_a_volume_that_holds_something_is_not_labelled(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ForeignVolume, match=name):
        labelled(tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_a_cartridge_is_not_labelled_again(tmp_path: Path) -> None:
    before = labelled(tmp_path).label
    with pytest.raises(LabelledAlready, match="is cartridge home 1 already"):
        labelled(tmp_path)
    assert Cartridge.open(str(tmp_path)).label == before


def test_what_file_systems_and_desktops_leave_is_nobodys(tmp_path: Path) -> None:
    for name in ("lost+found", "System Volume Information", ".Trash-1000"):
        (tmp_path / name).mkdir()
    assert labelled(tmp_path).label.serial == 1


def test_a_volume_that_is_not_there_cannot_be_labelled(tmp_path: Path) -> None:
    with pytest.raises(VolumeUnusable):
        write_label(
            str(tmp_path / "x"), set_name="a", serial=1, profile="a", capacity=None, created=""
        )


def test_a_folder_without_a_label_is_no_cartridge(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cartridge.open(str(tmp_path))


@pytest.mark.parametrize("size", [0, 1, 4096, 20 << 20])
def test_an_archive_is_placed_whole_and_then_journalled(cartridge: Cartridge, size: int) -> None:
    data = os.urandom(size)
    placed = place(cartridge, 1, data)
    assert Path(cartridge.file(placed.archive)).read_bytes() == data
    assert cartridge.journal() == [placed]
    assert files(cartridge) == {"CARTRIDGE.json", "journal.jsonl", placed.archive}


def test_on_one_file_system_the_spooled_archive_is_not_written_again(
    cartridge: Cartridge, tmp_path: Path
) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"data")
    cartridge.place(line(1, b"data"), str(spooled))
    assert spooled.samefile(cartridge.file(line(1, b"").archive))


def test_on_another_file_system_it_is_copied(loop_volume: MakeVolume, tmp_path: Path) -> None:
    cartridge = labelled(loop_volume(8))
    (tmp_path / "spooled").write_bytes(b"data")
    cartridge.place(line(1, b"data"), str(tmp_path / "spooled"))
    assert Path(cartridge.file(line(1, b"").archive)).read_bytes() == b"data"


def test_a_killed_runs_second_name_of_an_archive_is_never_written_to(
    cartridge: Cartridge, tmp_path: Path
) -> None:
    (tmp_path / "spooled").write_bytes(b"data")
    draft = Path(cartridge.file(line(1, b"").archive) + ".tmp")
    draft.parent.mkdir(parents=True)
    draft.hardlink_to(tmp_path / "spooled")
    (tmp_path / "another").write_bytes(b"packed again")
    cartridge.place(line(1, b"packed again"), str(tmp_path / "another"))
    assert (tmp_path / "spooled").read_bytes() == b"data"


def test_a_short_copy_is_an_error_and_not_journalled(cartridge: Cartridge, tmp_path: Path) -> None:
    (tmp_path / "spooled").write_bytes(b"short")
    with pytest.raises(CartridgeFailed, match="5 of 9 bytes"), cartridge.writing():
        cartridge.place(line(1, b"long data"), str(tmp_path / "spooled"))
    assert cartridge.journal() == []
    assert files(cartridge) == {"CARTRIDGE.json"}


def test_tidying_removes_what_an_interrupted_write_left(cartridge: Cartridge) -> None:
    placed = place(cartridge, 1, b"whole")
    folder = Path(cartridge.path, "archives", SNAPSHOT)
    before = files(cartridge)
    (folder / "00000002.tar.lz4").write_bytes(b"never journalled")
    (folder / "00000003.tar.lz4.tmp").write_bytes(b"half")
    cartridge.tidy([SNAPSHOT])
    assert files(cartridge) == before
    assert cartridge.journal() == [placed]


def test_tidying_does_not_count_a_torn_journal_line(cartridge: Cartridge) -> None:
    first, second = place(cartridge, 1, b"one"), place(cartridge, 2, b"two")
    journal = Path(cartridge.file("journal.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-5])
    cartridge.tidy([SNAPSHOT])
    assert cartridge.journal() == [first]
    assert second.archive not in files(cartridge)
    assert place(cartridge, 2, b"two") == cartridge.journal()[-1]


def test_tidying_leaves_what_is_not_ours(cartridge: Cartridge) -> None:
    notes = Path(cartridge.file("my notes.tmp"))
    notes.write_bytes(b"put here by its owner")
    cartridge.tidy([SNAPSHOT])
    assert notes.exists()


def test_sealing_puts_the_catalog_and_the_sums_of_all(cartridge: Cartridge, tmp_path: Path) -> None:
    place(cartridge, 1, b"data")
    (tmp_path / "m").write_bytes(b"manifest")
    cartridge.seal({"catalog/manifests/a.parquet": str(tmp_path / "m"), "README.txt": b"hi"}, set())
    assert Path(cartridge.file("catalog/manifests/a.parquet")).read_bytes() == b"manifest"
    assert set(cartridge.sums()) == files(cartridge) - {"SHA256SUMS"}
    sha256sum(cartridge)


def test_sealing_again_replaces_and_drops_what_is_stale(cartridge: Cartridge) -> None:
    cartridge.seal({"catalog/a": b"1", "catalog/b": b"1"}, set())
    cartridge.seal({"catalog/b": b"2", "catalog/c": b"2"}, {"catalog/a", "catalog/never"})
    assert files(cartridge) == {"CARTRIDGE.json", "SHA256SUMS", "catalog/b", "catalog/c"}
    sha256sum(cartridge)


def test_a_seal_is_no_damage_at_any_moment(
    cartridge: Cartridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = place(cartridge, 1, b"good")
    cartridge.seal({"catalog/a": b"1", "catalog/b": b"1"}, set())
    cartridge.seal({"catalog/b": b"2"}, {"catalog/a"})
    found: list[list[str]] = []

    def looking(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*args: str) -> None:
            change(*args)
            found.append(examine(cartridge, dict, lambda count: None).damaged)

        return changed

    for name in ("publish", "remove"):
        monkeypatch.setattr(durable, name, looking(getattr(durable, name)))
    with cartridge.writing():
        cartridge.seal({"catalog/b": b"3", "catalog/c": b"3"}, {"catalog/a"})
    assert found == [[]] * 4

    Path(cartridge.file(placed.archive)).write_bytes(b"evil")
    found.clear()
    with cartridge.writing():
        cartridge.seal({"catalog/b": b"4"}, set())
    assert found == [[placed.archive]] * 2


def test_a_seal_that_was_killed_hides_no_damage(cartridge: Cartridge) -> None:
    cartridge.seal({"catalog/a": b"1"}, set())
    Path(cartridge.file("SHA256SUMS.tmp")).write_bytes(b"half")
    assert examine(cartridge, dict, lambda count: None).damaged == []
    Path(cartridge.file("catalog/a")).write_bytes(b"2")
    assert examine(cartridge, dict, lambda count: None).damaged == ["catalog/a"]


def test_what_changes_while_it_is_verified_is_looked_at_again(cartridge: Cartridge) -> None:
    """An archive that the catalog knows and a prune removes meanwhile is not missing."""
    placed = place(cartridge, 1, b"old")
    known = {placed.archive: placed.sha256}

    def prune() -> dict[str, str]:
        told = dict(known)
        if known:
            known.clear()
            cartridge.drop({placed.archive})
        return told

    assert examine(cartridge, prune, lambda count: None).damaged == []


def test_the_sums_of_archives_are_those_of_the_journal(cartridge: Cartridge) -> None:
    """A byte that went bad between placing and sealing must not be blessed."""
    placed = place(cartridge, 1, b"good")
    Path(cartridge.file(placed.archive)).write_bytes(b"evil")
    cartridge.write_sums()
    assert cartridge.sums()[placed.archive] == placed.sha256
    verdict = read_back(cartridge, expected_sums(cartridge), lambda count: None)
    assert verdict.damaged == [placed.archive]


def test_the_sum_of_an_earlier_manifest_stays_what_it_was(cartridge: Cartridge) -> None:
    manifest = cartridge.file("catalog/manifests/20260101T000000Z.parquet")
    cartridge.seal({"catalog/manifests/20260101T000000Z.parquet": b"good"}, set())
    Path(manifest).write_bytes(b"evil")
    cartridge.seal({"README.txt": b"new"}, set())
    verdict = read_back(cartridge, expected_sums(cartridge), lambda count: None)
    assert verdict.damaged == ["catalog/manifests/20260101T000000Z.parquet"]


def test_where_a_seal_was_cut_short_all_sums_are_made_anew(cartridge: Cartridge) -> None:
    """It may have put another recipe there, and not its sum."""
    name = "catalog/recipes/20260101T000000Z.tar.lz4"
    cartridge.seal({name: b"old"}, set())
    Path(cartridge.file(name)).write_bytes(b"made again")
    Path(cartridge.file("SHA256SUMS.tmp")).write_bytes(b"half")
    cartridge.tidy([SNAPSHOT])
    with pytest.raises(FileNotFoundError):
        cartridge.seal({"README.txt": "/not/there"}, set())
    cartridge.seal({"README.txt": b"new"}, set())
    sha256sum(cartridge)
    assert "SHA256SUMS.tmp" not in files(cartridge)


def test_dropping_archives_frees_their_room(cartridge: Cartridge) -> None:
    placed = [place(cartridge, number, bytes(10_000)) for number in range(3)]
    before = measured(cartridge)
    assert cartridge.drop({placed[0].archive, placed[2].archive, "archives/no/such"}) == 20_000
    assert cartridge.journal() == [placed[1]]
    assert placed[1].archive in files(cartridge)
    assert cartridge.used() == measured(cartridge) == before - 2 * rounded(10_000)


def test_a_folder_goes_with_its_last_archive(cartridge: Cartridge) -> None:
    placed = place(cartridge, 1, b"x")
    cartridge.drop({placed.archive})
    assert not Path(cartridge.path, "archives", SNAPSHOT).exists()


def test_only_one_writes_a_cartridge(cartridge: Cartridge) -> None:
    other = Cartridge.open(cartridge.path)
    with cartridge.writing(), pytest.raises(RunActive, match="home 1"), other.writing():
        raise AssertionError("two writers")
    with other.writing():
        pass


def test_an_error_of_the_system_names_the_cartridge(cartridge: Cartridge) -> None:
    Path(cartridge.file("archives")).write_bytes(b"in the way")
    with pytest.raises(CartridgeFailed, match=r"home 1.*Not a directory"), cartridge.writing():
        place(cartridge, 1, b"x")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30_000), max_size=12), st.integers(40_000, 200_000))
def test_what_fits_by_its_cost_never_exceeds_the_capacity(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], capacity: int
) -> None:
    cartridge = labelled(tmp_path_factory.mktemp("media") / "c1", capacity)
    for number, size in enumerate(sizes):
        if cartridge.cost(size) <= cartridge.room(None) - FOLDERS:
            place(cartridge, number, bytes(size))
        assert measured(cartridge) <= capacity
    assert Cartridge.open(cartridge.path).used() == measured(cartridge)


def test_room_is_the_least_of_label_cap_and_volume(tmp_path: Path) -> None:
    cartridge = labelled(tmp_path / "c1", 100_000)
    used = measured(cartridge)
    assert cartridge.room(None) == 100_000 - used
    assert cartridge.room(50_000) == 50_000 - used
    assert cartridge.room(10**15) == 100_000 - used
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert labelled(tmp_path / "c2").room(None) <= free


@pytest.mark.parametrize("kind", ["ext4", "vfat"])
def test_a_real_volume_is_filled_without_an_error(loop_volume: MakeVolume, kind: str) -> None:
    volume = loop_volume(8, kind=kind)
    cartridge = labelled(volume)
    number = 0
    while cartridge.cost(200_000) <= cartridge.room(None):
        place(cartridge, number, bytes(200_000))
        number += 1
    assert number > 25
    cartridge.write_sums()
    sha256sum(cartridge)


def test_a_full_volume_is_an_error_that_leaves_it_sound(loop_volume: MakeVolume) -> None:
    cartridge = labelled(loop_volume(4))
    placed = place(cartridge, 1, bytes(100_000))
    with pytest.raises(CartridgeFull, match="No space left"), cartridge.writing():
        place(cartridge, 2, bytes(8_000_000))
    assert cartridge.journal() == [placed]
    assert not [name for name in files(cartridge) if name.endswith(".tmp")]


def test_sizes_are_rounded_to_blocks() -> None:
    assert [media.rounded(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
