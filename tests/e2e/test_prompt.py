"""Somebody sits at a terminal and is asked for cartridges; nobody else ever is."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.compare import assert_same_tree
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.terminal import ENTER, Terminal, end_of

MakeCartridges = Callable[[int], list[Path]]


@pytest.fixture
def hungry(program: Program, source: Path, cartridges: MakeCartridges) -> Path:
    """A profile that needs three cartridges of 4 MB and has one; its folder of media."""
    fill(source, files=36, size=250_000)
    os.link(source / "000.bin", source / "zz twin.bin")
    [first] = cartridges(1)
    program.init("home", [source], [first], capacity="4MB")
    program.edit_profile("home", {"cartridges": {"search": [str(first.parent / "*")]}})
    return first.parent


def test_the_next_cartridge_is_asked_for_by_set_and_number(
    program: Program,
    source: Path,
    hungry: Path,
    cartridges: MakeCartridges,
    terminal: Terminal,
    tmp_path: Path,
) -> None:
    child = terminal("backup", "home")
    child.expect("home 2")
    child.expect(ENTER)
    child.sendline("")  # nothing was inserted: it asks again
    child.expect("home 2")
    child.expect(ENTER)
    second, third = cartridges(2)
    program.run("label", second, "--set", "home", "--capacity", "4MB")
    child.sendline("")
    child.expect("home 3")
    child.expect(ENTER)
    program.run("label", third, "--set", "home", "--capacity", "4MB")
    child.sendline("")
    code, shown = end_of(child)
    assert code == 0, shown
    assert len(program.snapshots("home")) == 1
    for folder in sorted(hungry.iterdir()):
        check_cartridge(folder)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.night
def test_no_cartridge_is_held_open_while_the_next_is_asked_for(
    hungry: Path, terminal: Terminal
) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    for folder in Path("/proc").glob("[0-9]*"):
        places = [*folder.glob("fd/*"), folder / "cwd"] if folder.exists() else []
        for place in places:
            try:
                where = place.readlink()
            except OSError:
                continue
            assert not where.is_relative_to(hungry), f"{folder.name} holds {where}"


def test_q_ends_the_run_and_keeps_what_is_done(
    program: Program, hungry: Path, terminal: Terminal, cartridges: MakeCartridges
) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    child.sendline("q")
    code, shown = end_of(child)
    assert code == 4, shown
    assert "home 2" in shown
    kept = Medium(path=hungry / "c1").journal
    assert kept
    for folder in cartridges(2):
        program.run("label", folder, "--set", "home", "--capacity", "4MB")
    assert program.backup("home")["cartridges"] == [1, 2, 3]
    assert Medium(path=hungry / "c1").journal == kept


@pytest.mark.night
def test_the_end_of_input_ends_the_run(hungry: Path, terminal: Terminal) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    child.sendeof()
    code, shown = end_of(child)
    assert code == 4, shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_asks_ends_the_run(
    hungry: Path, terminal: Terminal, number: signal.Signals
) -> None:
    child = terminal("backup", "home")
    child.expect(ENTER)
    child.kill(number)
    code, shown = end_of(child)
    assert code == 130, shown


def test_batch_asks_nothing_on_a_terminal(hungry: Path, terminal: Terminal) -> None:
    code, shown = end_of(terminal("backup", "--batch", "home"))
    assert code == 4
    assert "home 2" in shown
    assert ENTER not in shown


def test_nothing_is_asked_where_input_is_no_terminal(program: Program, hungry: Path) -> None:
    reader, writer = os.pipe()
    process = program.start("backup", "home", stdin=reader)
    os.close(reader)
    try:
        out, err = process.communicate(timeout=60)  # it would wait for ever for our answer
    finally:
        os.close(writer)
    assert process.returncode == 4
    assert ENTER not in out + err
    assert "home 2" in err


# ---- restore


@pytest.fixture
def scattered(program: Program, hungry: Path, cartridges: MakeCartridges) -> Path:
    """A backup over three cartridges, of which the second is away; the folder of media."""
    for folder in cartridges(2):
        program.run("label", folder, "--set", "home", "--capacity", "4MB")
    program.backup("home")
    (hungry / "c2").rename(hungry.parent / "away")
    return hungry


@pytest.mark.night
def test_a_missing_cartridge_is_asked_for_by_its_label(
    source: Path, scattered: Path, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("restore", "home", tmp_path / "out")
    child.expect("home 2")
    child.expect(ENTER)
    child.sendline("")
    child.expect("home 2")
    child.expect(ENTER)
    (tmp_path / "away").rename(scattered / "found again")
    child.sendline("")
    code, shown = end_of(child)
    assert code == 0, shown
    assert_same_tree(source, tmp_path / "out" / "source")


def test_s_restores_the_rest_and_names_what_is_missing(
    program: Program, source: Path, scattered: Path, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("restore", "home", tmp_path / "out")
    child.expect(ENTER)
    child.sendline("s")
    code, shown = end_of(child)
    assert code == 4, shown
    assert "home 2" in shown
    check_rest(program, source, tmp_path)


@pytest.mark.parametrize(
    "away", ["c1", *(pytest.param(c, marks=pytest.mark.night) for c in ("c2", "c3"))]
)
def test_without_a_terminal_the_rest_is_restored(
    program: Program, source: Path, scattered: Path, tmp_path: Path, away: str
) -> None:
    """Whichever cartridge is away, and also where a file lies there that has a second name."""
    (tmp_path / "away").rename(scattered / "c2")
    (scattered / away).rename(tmp_path / "away")
    found = program.restore("home", tmp_path / "out", code=4)
    assert f"home {away[1]}" in found["message"]
    assert found["damaged"] == []
    check_rest(program, source, tmp_path)


def check_rest(program: Program, source: Path, tmp_path: Path) -> None:
    """All came back but what lies, if only in part, on the cartridge that is away."""
    serial = Medium(path=tmp_path / "away").label["serial"]
    found = program.json("find", "home", "*.bin")["matches"]
    names = {entry["path"].rpartition("/")[2]: entry["cartridges"] for entry in found}
    missing = {name for name, cartridges in names.items() if serial in cartridges}
    missing |= {"zz twin.bin"} if "000.bin" in missing else set()
    assert missing
    there = {path.name for path in (tmp_path / "out" / "source").iterdir()}
    there = {name for name in there if not name.startswith(".cartridge-part-")}
    assert there == {path.name for path in source.iterdir()} - missing
    for name in there:
        assert (source / name).read_bytes() == (tmp_path / "out" / "source" / name).read_bytes()


@pytest.mark.night
def test_a_restore_that_is_interrupted_while_it_asks_leaves_nothing_unfinished(
    program: Program, source: Path, scattered: Path, terminal: Terminal, tmp_path: Path
) -> None:
    child = terminal("restore", "home", tmp_path / "out")
    child.expect(ENTER)
    child.sendintr()
    code, shown = end_of(child)
    assert code == 130, shown
    left = [path.name for path in (tmp_path / "out").rglob("*.tmp")]
    assert all(name.startswith(".cartridge-part-") for name in left)
    shutil.move(tmp_path / "away", scattered / "c2")
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
