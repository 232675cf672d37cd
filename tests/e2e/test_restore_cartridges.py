"""A restore needs few cartridges, takes them in any order, and does without those nobody has."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.catalog.store import ARCHIVES, Store, write_rows
from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.compare import assert_same_tree
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program
from tests.helpers.terminal import ENTER, Terminal, end_of


class Shelf:
    """Three cartridges that a snapshot lies on; each may be on the desk or put away."""

    def __init__(self, program: Program, source: Path, desk: Path) -> None:
        self.program, self.source, self.desk = program, source, desk
        self.away = desk.with_name("away")
        self.away.mkdir()

    def put_away(self, *serials: int) -> None:
        for serial in serials:
            (self.desk / f"c{serial}").rename(self.away / f"c{serial}")

    def insert(self, serial: int) -> None:
        (self.away / f"c{serial}").rename(self.desk / f"c{serial}")

    def files_on(self, serial: int) -> set[str]:
        """Return which files lie there, if only in part."""
        found = self.program.json("find", "home", "*.bin")["matches"]
        return {f"source/{one['path']}" for one in found if serial in one["cartridges"]}

    def files_only_on(self, serial: int) -> set[str]:
        return self.files_on(serial).difference(*(self.files_on(n) for n in {1, 2, 3} - {serial}))


@pytest.fixture
def shelf(program: Program, source: Path, cartridges: MakeCartridges) -> Shelf:
    fill(source, files=36, size=250_000)
    media = cartridges(3)
    program.init("home", [source], media, capacity="4MB")
    program.edit_profile("home", {"cartridges": {"search": [str(media[0].parent / "*")]}})
    program.backup("home")
    return Shelf(program, source, media[0].parent)


def lost(folder: Path, shown: str, word: str = "missing: ") -> set[str]:
    lines = shown.replace("\r", "").splitlines()
    return {line.removeprefix(word) for line in lines if line.startswith(word)}


# ---- the plan


def test_the_plan_has_sizes_counts_and_the_order_of_reading(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_away(1)
    plan = shelf.program.restore("home", tmp_path / "out", "--plan")
    assert [one["label"] for one in plan["cartridges"]] == ["home 2", "home 3", "home 1"]
    assert [one["present"] for one in plan["cartridges"]] == [True, True, False]
    for one in plan["cartridges"]:
        assert one["files"] == len(shelf.files_on(one["serial"]))
    assert sum(one["bytes"] for one in plan["cartridges"]) == 36 * 250_000
    name = min(shelf.files_only_on(3)).removeprefix("source/")
    only = shelf.program.restore("home", tmp_path / "out", name, "--plan")["cartridges"]
    assert [(one["serial"], one["files"], one["bytes"]) for one in only] == [(3, 1, 250_000)]


def copy_onto(shelf: Shelf, copies: dict[int, int]) -> None:
    """Have the archives of some cartridges lie on others too, as copies would."""
    catalog = shelf.program.catalog("home")
    store = Store(str(catalog))
    rows = store.archives()
    news = []
    for row in rows:
        target = copies.get(row.cartridge)
        if target is not None:
            to = shelf.desk / f"c{target}" / row.archive
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shelf.desk / f"c{row.cartridge}" / row.archive, to)
            news.append(type(row)(**{**_fields(row), "cartridge": target}))
    write_rows(store.archives_path, ARCHIVES, [*rows, *news])


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_with_copies_those_present_do_and_else_the_fewest(shelf: Shelf, tmp_path: Path) -> None:
    copy_onto(shelf, {1: 3, 2: 3})
    out = tmp_path / "out"
    plan = shelf.program.restore("home", out, "--plan")["cartridges"]
    assert [one["serial"] for one in plan] == [3]
    shelf.put_away(3)
    plan = shelf.program.restore("home", out, "--plan")["cartridges"]
    assert [(one["serial"], one["present"]) for one in plan] == [(3, False)]
    shelf.put_away(1)
    shelf.insert(3)
    done = shelf.program.restore("home", out)
    assert done["cartridges"] == [3]
    assert_same_tree(shelf.source, out / "source")


def test_where_one_copy_is_damaged_the_other_one_is_read(shelf: Shelf, tmp_path: Path) -> None:
    copy_onto(shelf, {1: 3, 2: 3})
    for archive in Medium(path=shelf.desk / "c3").archives[:2]:
        damaged = bytearray(archive.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        archive.write_bytes(damaged)
    done = shelf.program.restore("home", tmp_path / "out")
    assert done["damaged"] == []
    assert done["cartridges"][0] == 3
    assert done["files"] == 36
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


# ---- at a terminal


def test_any_of_those_waited_for_may_come_next(
    shelf: Shelf, terminal: Terminal, tmp_path: Path
) -> None:
    shelf.put_away(1, 2, 3)
    child = terminal("restore", "home", tmp_path / "out")
    for serial in (1, 2, 3):
        child.expect(rf"Needed: cartridge home {serial}, for \d+ files \(\d")
    child.expect(ENTER)
    shelf.insert(2)  # noticed without a word
    child.expect("Needed: cartridge home 1")
    child.expect("Needed: cartridge home 3")
    child.expect(ENTER)
    shelf.put_away(2)
    shelf.insert(3)
    child.expect("Needed: cartridge home 1")
    assert "home 2" not in child.before
    child.expect(ENTER)
    shelf.insert(1)
    code, shown = end_of(child)
    assert code == 0, shown
    assert "Needed" not in shown
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


def test_a_wrong_one_is_named_with_those_waited_for(
    shelf: Shelf, program: Program, terminal: Terminal, tmp_path: Path
) -> None:
    shelf.put_away(1, 2)
    child = terminal("restore", "home", tmp_path / "out")
    child.expect(ENTER)
    child.sendline("")
    child.expect("This is home 3 ")
    child.expect("waiting for home 1 or home 2")
    child.expect(ENTER)
    foreign = shelf.desk / "foreign"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_bytes(b"")
    child.expect("foreign is no cartridge that can be read")
    child.expect("waiting for home 1 or home 2")
    child.expect(ENTER)
    other = shelf.away / "other"
    other.mkdir()
    program.run("init", "photos", "--source", shelf.source, "--cartridge", other)
    other.rename(shelf.desk / "other")
    child.expect("This is photos 1 ")
    child.expect(ENTER)
    twin = shelf.away / "twin"
    shutil.copytree(shelf.away / "c1", twin)
    label = (twin / "CARTRIDGE.json").read_text()
    uuid = Medium(path=twin).label["uuid"]
    (twin / "CARTRIDGE.json").write_text(label.replace(uuid, uuid[::-1]))
    (twin / "SHA256SUMS").unlink()
    twin.rename(shelf.desk / "twin")
    child.expect("This is home 1, but another one of that number")
    child.expect(ENTER)
    shelf.insert(1)
    child.expect(ENTER)
    shelf.insert(2)
    code, shown = end_of(child)
    assert code == 0, shown
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


@pytest.mark.parametrize("answer", ["2", "home 2"])
def test_one_that_nobody_has_is_done_without_and_what_it_costs_is_listed(
    shelf: Shelf, terminal: Terminal, tmp_path: Path, answer: str
) -> None:
    shelf.put_away(1, 2)
    child = terminal("restore", "home", tmp_path / "out")
    child.expect("Needed: cartridge home 2")
    child.expect(ENTER)
    child.sendline(answer)
    child.expect("Needed: cartridge home 1")
    child.expect(ENTER)
    shelf.insert(1)
    code, shown = end_of(child)
    assert code == 4, shown
    missing = shelf.files_on(2)
    assert lost(tmp_path, shown) == missing
    assert f"Restored {36 - len(missing)} files" in shown
    there = {f"source/{path.name}" for path in (tmp_path / "out" / "source").iterdir()}
    assert there == {f"source/{path.name}" for path in shelf.source.iterdir()} - missing


@pytest.mark.night
def test_none_of_them_is_an_answer_too(shelf: Shelf, terminal: Terminal, tmp_path: Path) -> None:
    shelf.put_away(1, 2)
    child = terminal("restore", "home", tmp_path / "out")
    child.expect(ENTER)
    child.sendline("none")
    code, shown = end_of(child)
    assert code == 4, shown
    assert lost(tmp_path, shown) == shelf.files_on(1) | shelf.files_on(2)
    assert "home 1 and home 2" in shown


def test_one_that_is_written_off_is_not_asked_for(
    shelf: Shelf, terminal: Terminal, tmp_path: Path
) -> None:
    shelf.put_away(2)
    missing = shelf.files_on(2)
    shelf.program.run("lost", "home", "2")
    child = terminal("restore", "home", tmp_path / "out")
    code, shown = end_of(child)
    assert code == 4, shown
    assert ENTER not in shown
    assert lost(tmp_path, shown) == missing


def test_where_nobody_can_be_asked_the_rest_is_restored_and_counted(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.put_away(2)
    shown = shelf.program.run("restore", "home", tmp_path / "out", code=4)
    missing = shelf.files_on(2)
    assert lost(tmp_path, shown.stdout) == missing
    assert f"Restored {36 - len(missing)} files" in shown.stdout
    assert "Waiting for cartridge home 2" in shown.stderr
    told = shelf.program.restore("home", tmp_path / "out", code=4)
    assert set(told["missing"]) == missing
    assert (told["present"], told["files"]) == (36 - len(missing), 0)
    shelf.insert(2)
    shelf.put_away(1, 3)
    told = shelf.program.restore("home", tmp_path / "out")
    assert (told["files"], told["cartridges"]) == (len(missing), [2])
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


# ---- without a workspace


def test_from_cartridges_alone_another_one_may_be_named_by_its_folder(
    shelf: Shelf, terminal: Terminal, tmp_path: Path
) -> None:
    shelf.put_away(1)
    given = [word for n in (2, 3) for word in ("--from", shelf.desk / f"c{n}")]
    child = terminal("restore", *given, tmp_path / "out")
    child.expect("Needed: cartridge home 1")
    child.expect(ENTER)
    child.sendline(str(shelf.away / "c1"))
    code, shown = end_of(child)
    assert code == 0, shown
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


def test_from_too_few_nothing_is_said_of_a_next_backup(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_away(1, 2)
    (shelf.desk / "c3" / "journal.jsonl").write_text("")
    shown = shelf.program.run("restore", "--from", shelf.desk / "c3", tmp_path / "out", code=None)
    assert shown.returncode in (4, 5)
    assert "stored again" not in shown.stdout + shown.stderr
    assert lost(tmp_path, shown.stdout)


# ---- killed, or the cartridge pulled


def test_killed_it_goes_on_and_reads_nothing_twice(shelf: Shelf, tmp_path: Path) -> None:
    out = tmp_path / "out" / "source"
    process = shelf.program.start("restore", "--json", "home", tmp_path / "out", "--workers", "1")
    first = shelf.files_on(1) if shelf.files_on(1) else set()
    assert processes.wait_for(
        lambda: out.is_dir() and len([n for n in os.listdir(out) if n.endswith("bin")]) > 14,
        process,
    )
    os.killpg(process.pid, signal.SIGKILL)
    processes.end_of(process)
    done = {f"source/{n}" for n in os.listdir(out) if n.endswith(".bin")}
    told = shelf.program.restore("home", tmp_path / "out")
    assert (told["present"], told["files"]) == (len(done), 36 - len(done))
    assert told["bytes"] == (36 - len(done)) * 250_000
    assert first <= done, "or the next line proves nothing"
    assert 1 not in told["cartridges"]
    assert_same_tree(shelf.source, tmp_path / "out" / "source")


def test_what_is_there_and_not_right_is_restored_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.program.restore("home", tmp_path / "out")
    out = tmp_path / "out" / "source"
    when = (out / "007.bin").stat().st_mtime_ns
    data = bytearray((out / "007.bin").read_bytes())
    data[1000] ^= 1
    (out / "007.bin").write_bytes(data)
    os.utime(out / "007.bin", ns=(when, when))
    (out / "008.bin").chmod(0o600)
    (out / "009.bin").unlink()
    os.link(out / "010.bin", tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o640)
    told = shelf.program.restore("home", tmp_path / "out")
    assert (told["files"], told["present"]) == (3, 33)
    assert_same_tree(shelf.source, out)
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o640


def test_a_cartridge_that_is_pulled_while_it_is_read_is_missing_and_not_damaged(
    shelf: Shelf, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "source"
    process = shelf.program.start("restore", "--json", "home", tmp_path / "out", "--workers", "1")
    assert processes.wait_for(lambda: out.is_dir() and len(os.listdir(out)) > 2, process)
    processes.stop_all(process)
    shelf.put_away(1, 2, 3)
    processes.go_on(process)
    code, told, err = processes.end_of(process)
    assert code == 4, told + err
    again = shelf.program.restore("home", tmp_path / "out", code=4)
    assert again["damaged"] == []
    for serial in (1, 2, 3):
        shelf.insert(serial)
    shelf.program.restore("home", tmp_path / "out")
    assert_same_tree(shelf.source, out)


# ---- a file that lies on several cartridges


@pytest.fixture
def large(program: Program, source: Path, cartridges: MakeCartridges) -> Shelf:
    """A file with a hole that takes three cartridges."""
    with (source / "disk.img").open("wb") as file:
        for number in range(9):
            file.write(os.urandom(1_000_000))
            if number == 4:
                file.seek(3_000_000, os.SEEK_CUR)
    media = cartridges(4)
    program.init("home", [source], media, capacity="4MB")
    program.edit_profile("home", {"cartridges": {"search": [str(media[0].parent / "*")]}})
    assert program.backup("home")["cartridges"] == [1, 2, 3]
    return Shelf(program, source, media[0].parent)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".cartridge-part-*"))


@pytest.mark.night
def test_in_a_machine_with_one_drive_a_file_comes_together_run_by_run(
    large: Shelf, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    large.put_away(1, 2, 3)
    for serial in (2, 3):
        large.insert(serial)
        told = large.program.restore("home", out, code=4)
        assert (told["cartridges"], told["files"]) == ([serial], 0)
        assert told["missing"] == ["source/disk.img"]
        large.put_away(serial)
    large.insert(1)
    told = large.program.restore("home", out)
    assert (told["cartridges"], told["files"]) == ([1], 1)
    assert_same_tree(large.source, out / "source")
    assert parts(out) == []


def spoil(part: Path) -> None:
    with part.open("r+b") as file:
        file.seek(100)
        file.write(b"not what was restored")


def fill_hole(part: Path) -> None:
    with part.open("r+b") as file:
        file.seek(6_000_000)
        file.write(b"not empty")


def give_another_name(part: Path) -> None:
    os.link(part, part.parents[2] / "elsewhere")


def replace_by_a_link(part: Path) -> None:
    target = part.parents[2] / "elsewhere"
    target.write_bytes(b"precious")
    part.unlink()
    part.symlink_to(target)


@pytest.mark.night
@pytest.mark.parametrize("befalls", [spoil, fill_hole, give_another_name, replace_by_a_link])
def test_parts_that_are_not_right_get_into_no_file(
    large: Shelf, tmp_path: Path, befalls: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    large.put_away(2)
    large.program.restore("home", out, code=4)
    [part] = parts(out)
    befalls(part)
    elsewhere = tmp_path / "elsewhere"
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    large.insert(2)
    large.program.restore("home", out)
    assert_same_tree(large.source, out / "source")
    assert parts(out) == []
    assert before is None or elsewhere.read_bytes() == before


@pytest.mark.night
def test_parts_of_what_was_since_backed_up_anew_are_swept_away(
    large: Shelf, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    large.put_away(2)
    large.program.restore("home", out, code=4)
    assert parts(out)
    large.insert(2)
    (large.source / "disk.img").write_bytes(b"small now")
    large.program.backup("home")
    large.program.restore("home", out)
    assert_same_tree(large.source, out / "source")
    assert parts(out) == []


def test_where_somebody_says_that_he_does_not_have_it_no_parts_are_left(
    large: Shelf, terminal: Terminal, tmp_path: Path
) -> None:
    large.put_away(2)
    child = terminal("restore", "home", tmp_path / "out")
    child.expect(ENTER)
    child.sendline("2")
    code, shown = end_of(child)
    assert code == 4, shown
    assert lost(tmp_path, shown) == {"source/disk.img"}
    assert os.listdir(tmp_path / "out" / "source") == []
