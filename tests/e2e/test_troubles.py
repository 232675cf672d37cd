"""Troubles end as promised: no cartridge, no source, damage, and mistakes of a user."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Home, MakeCartridges
from tests.helpers.compare import assert_same_tree, bytes_on
from tests.helpers.farm import Farm
from tests.helpers.media import fill
from tests.helpers.program import NOBODY, Medium, Program
from tests.helpers.trees import small_tree


def test_a_batch_run_waits_for_cartridges_and_goes_on(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=60, size=400_000)
    first, second = cartridges(2)
    program.init("home", [source], [first, second], capacity="8MB")
    program.edit_profile("home", {"cartridges": {"search": [str(first.parent / "*")]}})
    waiting = program.backup("home", "--batch", code=4)
    assert waiting["status"] == "waiting"
    assert (waiting["entries"], waiting["added"], waiting["modified"]) == (60, 60, 0)
    assert 0 < waiting["bytes_stored"] < waiting["bytes_read"] <= 60 * 400_000
    kept = bytes_on(first / "archives")
    again = program.backup("home", "--batch", code=4)
    assert again["snapshot"] == waiting["snapshot"]

    for cartridge in cartridges(2):
        name = Medium(path=first).label["set"]
        program.run("label", cartridge, "--set", name, "--capacity", "8MB")
    done = program.backup("home", "--batch")
    assert (done["status"], done["snapshot"]) == ("complete", waiting["snapshot"])
    assert done.keys() == waiting.keys() - {"error", "message", "help", "exit_code"}
    assert bytes_on(first / "archives") == kept, "what is full is not written again"
    assert program.snapshots("home") == [done["snapshot"]]
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


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


def test_a_hard_link_goes_with_the_file_that_could_not_be_read(
    as_nobody: Program, commons: Path
) -> None:
    source, cartridge = commons / "source", commons / "c1"
    (source / "z").mkdir(parents=True)
    (source / "a").write_text("first")
    os.link(source / "a", source / "z" / "link")
    cartridge.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", source, cartridge], check=True)
    as_nobody.init("home", [source], [cartridge])
    as_nobody.backup("home")
    (source / "a").write_text("second")
    (source / "a").chmod(0)
    (source / "z").chmod(0)
    as_nobody.backup("home", code=3)
    (source / "z").chmod(0o700)
    assert as_nobody.restore("home", commons / "out")["damaged"] == []


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


def test_a_folder_that_cannot_be_looked_into_does_not_let_all_else_vanish(
    as_nobody: Program, commons: Path
) -> None:
    """As `lost+found` at the top of every ext4 volume; what lies in it is no loss."""
    program, source, cartridge = as_nobody, commons / "source", commons / "c1"
    hidden = source / "lost+found"
    for folder in (hidden, cartridge):
        folder.mkdir(parents=True)
    for number in range(20):
        (source / f"{number}").write_text("precious")
        (hidden / f"{number}").write_text("found again")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", source, cartridge], check=True)
    program.init("home", [source], [cartridge])
    program.backup("home")
    hidden.chmod(0)
    (source / "new").write_text("new")
    assert program.backup("home", code=3)["deleted"] == 0
    for number in range(20):
        (source / f"{number}").unlink()
    assert program.backup("home", code=1)["error"] == "SourceShrunk"
    assert program.backup("home", "--allow-shrink", code=3)["deleted"] == 20


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


def test_verify_names_the_cartridges_that_are_not_there(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    first, second, third = cartridges(3)
    fill(source, files=20, size=300_000)
    program.init("home", [source], [first, second, third], capacity="4MB")
    program.backup("home")
    first.rename(first.with_name("away"))
    assert program.json("verify", "home")["absent"] == ["home 1"]
    assert "home 1 is not here" in program.run("verify", "home").stdout


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
    assert "home 1 already" in told


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


def test_a_label_keeps_to_the_capacity_of_the_profile(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    first, second, third = cartridges(3)
    program.init("home", [source], [first], capacity="3MB")
    program.run("label", second, "--set", "home")
    program.run("label", third, "--set", "home", "--capacity", "2MB")
    found = program.json("cartridges", "home")["cartridges"]
    assert [one["capacity"] for one in found] == [3_000_000, 3_000_000, 2_000_000]
    assert Medium(path=second).label["capacity"] == 3_000_000


def test_a_profile_that_is_not_utf8_is_refused(home: Home) -> None:
    """Its patterns would match nothing, and its paths lead nowhere."""
    program = home[0]
    profile = program.profile("home")
    profile.write_bytes(b"# caf\xe9\n" + profile.read_bytes())
    told = program.backup("home", code=2)
    assert told["error"] == "ProfileInvalid"
    assert "byte 6 is not UTF-8" in told["message"]
    profile.write_bytes(b"\xef\xbb\xbf" + profile.read_bytes().replace(b"\xe9", b"e"))
    assert program.backup("home")["status"] == "unchanged"


def test_what_a_terminal_cannot_show_costs_no_exit_code(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, source, _ = home
    (source / "\N{LATIN SMALL LETTER U WITH DIAERESIS}").write_text("x")
    program.backup("home")
    monkeypatch.setitem(program.env, "PYTHONIOENCODING", "ascii")
    assert "\\xfc" in program.run("ls", "home", "source").stdout


def test_a_set_is_that_of_one_profile(home: Home) -> None:
    program, source, _ = home
    told = program.json("init", "other", "--source", source, "--set", "home", code=2)
    assert "the profile 'home'" in told["message"]
    assert not program.profile("other").exists()
