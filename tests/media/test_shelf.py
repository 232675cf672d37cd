"""The shelf: cartridges are found wherever they are mounted, and doubtful ones are named."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.media.labelling import write_label
from tasks.media.shelf import belongs, look
from tasks.model.errors import WrongCartridge
from tasks.model.words import Label


def label(folder: Path, serial: int = 1, set_name: str = "home", profile: str = "home") -> Label:
    folder.mkdir(parents=True)
    created = "2026-01-01T00:00:00Z"
    facts = {"set_name": set_name, "profile": profile, "created": created}
    return write_label(str(folder), serial=serial, capacity=None, **facts)


def test_cartridges_are_found_by_pattern(tmp_path: Path) -> None:
    labels = [label(tmp_path / "media" / f"disk{n}", n) for n in (1, 2)]
    shelf = look([f"{tmp_path}/media/*"], [], "/")
    assert [c.label for c in shelf.cartridges] == labels
    for one in labels:
        found = shelf.find(one.uuid)
        assert found is not None
        assert found.label == one
    assert shelf.find("no such uuid") is None


def test_a_cartridge_is_found_at_its_known_place_without_a_pattern(tmp_path: Path) -> None:
    label(tmp_path / "[odd] *name?")
    shelf = look([], [str(tmp_path / "[odd] *name?"), "", str(tmp_path / "gone")], "/")
    assert [c.path for c in shelf.cartridges] == [str(tmp_path / "[odd] *name?")]


def test_relative_patterns_start_in_the_workspace(tmp_path: Path) -> None:
    label(tmp_path / "boxes" / "c1")
    assert len(look(["boxes/*"], [], str(tmp_path)).cartridges) == 1


def test_relative_patterns_start_in_a_workspace_of_any_name(tmp_path: Path) -> None:
    label(tmp_path / "[w]" / "boxes" / "c1")
    assert len(look(["boxes/*"], [], str(tmp_path / "[w]")).cartridges) == 1


def test_one_cartridge_seen_in_two_ways_is_one(tmp_path: Path) -> None:
    found = label(tmp_path / "c1")
    (tmp_path / "link").symlink_to("c1")
    shelf = look([f"{tmp_path}/*", f"{tmp_path}/c?"], [str(tmp_path / "link")], "/")
    assert len(shelf.cartridges) == 1
    assert shelf.find(found.uuid) is not None


def test_a_clone_is_refused_and_both_places_are_named(tmp_path: Path) -> None:
    found = label(tmp_path / "c1")
    shutil.copytree(tmp_path / "c1", tmp_path / "c2")
    shelf = look([f"{tmp_path}/*"], [], "/")
    with pytest.raises(WrongCartridge, match="same UUID") as caught:
        shelf.find(found.uuid)
    assert str(tmp_path / "c1") in str(caught.value)
    assert str(tmp_path / "c2") in str(caught.value)


def test_an_empty_folder_is_blank_and_a_full_one_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "formatted" / "lost+found").mkdir(parents=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "photo.jpg").write_bytes(b"")
    (tmp_path / "a file").write_bytes(b"")
    shelf = look([f"{tmp_path}/*"], [], "/")
    assert shelf.blank == [str(tmp_path / "empty"), str(tmp_path / "formatted")]
    assert shelf.cartridges == []
    assert list(shelf.unreadable) == [str(tmp_path / "foreign")]


@pytest.mark.parametrize(
    "text", [b"", b"nonsense", b"\0" * 100, json.dumps({"format_version": 99}).encode()]
)
def test_a_label_that_cannot_be_read_is_reported_and_is_not_blank(
    tmp_path: Path, text: bytes
) -> None:
    label(tmp_path / "c1")
    (tmp_path / "c2").mkdir()
    (tmp_path / "c2" / "CARTRIDGE.json").write_bytes(text)
    shelf = look([f"{tmp_path}/*"], [], "/")
    assert [c.path for c in shelf.cartridges] == [str(tmp_path / "c1")]
    assert shelf.blank == []
    assert list(shelf.unreadable) == [f"{tmp_path}/c2"]


def test_a_label_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "c1").mkdir()
    with (tmp_path / "c1" / "CARTRIDGE.json").open("wb") as file:
        file.truncate(1 << 40)
    shelf = look([f"{tmp_path}/*"], [], "/")
    assert len(shelf.unreadable) == 1
    assert shelf.cartridges == []


def test_only_cartridges_of_the_set_and_profile_are_ours(tmp_path: Path) -> None:
    ours = [label(tmp_path / name, n) for name, n in (("z", 1), ("m", 2), ("a", 3))]
    label(tmp_path / "b", 4, set_name="other")
    label(tmp_path / "c", 5, profile="other")
    shelf = look([f"{tmp_path}/*"], [], "/")
    assert [c.label for c in shelf.of_set("home", "home")] == ours
    assert [belongs(one, "home", "home") for one in ours] == [True] * 3
