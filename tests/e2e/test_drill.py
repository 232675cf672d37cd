"""A drill restores some of every cartridge that is here, compares it, and notes what it proved."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers import processes
from tests.helpers.damage import flip_a_bit, put_back
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import funny_farm, small_tree

EVERYTHING = ("--files", "100000", "--bytes", "1GB")


class Home(NamedTuple):
    """Three snapshots on three cartridges, two of them on the first."""

    program: Program
    source: Path
    media: list[Path]
    snapshots: list[str]

    def drill(self, *args: str, code: int = 0) -> dict[str, Any]:
        return self.program.json("drill", "home", *args, code=code)

    def proven(self) -> dict[int, Any]:
        return {one["serial"]: one for one in self.program.json("status", "home")["proven"]}

    @property
    def history(self) -> Path:
        return self.program.workspace / "state" / "home" / "drills.jsonl"

    @property
    def passing(self) -> Path:
        return self.program.directory / "tmp"


@pytest.fixture(scope="module")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Home:
    base = tmp_path_factory.mktemp("drill")
    program, source = Program(base / "program"), base / "source"
    media = [base / "media" / f"c{number}" for number in (1, 2, 3)]
    for folder in (source, *media):
        folder.mkdir(parents=True)
    small_tree(source, files=60)
    os.link(source / "0000.txt", source / "x" / "twin")
    (source / "empty").touch()
    program.init("home", [source], media, capacity="3500kB")
    snapshots = [program.backup("home")["snapshot"]]
    for number in (1, 2):
        fill(source / f"later {number}", files=14, size=250_000, seed=number)
        snapshots.append(program.backup("home")["snapshot"])
    assert all(Medium(path=folder).archives for folder in media)
    return Home(program, source, media, snapshots)


@pytest.fixture
def home(home_of_all: Home) -> Any:
    """The same for all tests of this module; cartridges and history are put back."""
    home_of_all.history.unlink(missing_ok=True)
    with put_back(*home_of_all.media):
        yield home_of_all
    assert os.listdir(home_of_all.passing) == [], "a drill leaves nothing behind"


# ---- what is proven


def test_some_files_of_every_cartridge_old_and_new_are_restored(home: Home) -> None:
    found = home.drill("--files", "30")
    assert [one["serial"] for one in found["cartridges"]] == [1, 2, 3]
    assert all(one["files"] >= 5 for one in found["cartridges"])
    assert all(one["bytes"] > 0 and one["damaged"] == [] for one in found["cartridges"])
    assert found["not_proven"] == []
    assert found["seconds"] > 0
    assert 25 <= len(found["sample"]) <= 45
    sizes = [(home.source.parent / path).stat().st_size for path in found["sample"]]
    assert min(sizes) < 4096, "small files"
    assert max(sizes) == 250_000, "and large ones"
    assert any("later 2" in path for path in found["sample"])
    assert any("later" not in path for path in found["sample"])


def test_a_drill_is_told_in_sentences(home: Home) -> None:
    said = home.program.run("drill", "home", "--seed", "7").stdout
    assert "Cartridge home 1: " in said
    assert "--seed 7 repeats" in said


def test_a_seed_repeats_the_sample_and_chance_does_not(home: Home) -> None:
    first = home.drill("--files", "12")
    again = home.drill("--files", "12", "--seed", str(first["seed"]))
    assert again["sample"] == first["sample"]
    others = [home.drill("--files", "12")["sample"] for _ in range(3)]
    assert any(sample != first["sample"] for sample in others)


def test_no_more_bytes_are_restored_than_allowed(home: Home) -> None:
    found = home.drill("--bytes", "600kB")
    assert sum(one["bytes"] for one in found["cartridges"]) <= 600_000
    found = home.drill("--bytes", "100kB")
    assert {one["serial"] for one in found["not_proven"]} == {2, 3}, "only large files lie there"
    assert "100.0 kB" in found["not_proven"][0]["reason"]
    error = home.drill("--bytes", "10", code=2)
    assert "--bytes" in error["message"]


def test_the_first_cartridge_is_proven_by_snapshots_that_no_newer_one_needs(
    home: Home, tmp_path: Path
) -> None:
    """An archive that only an old snapshot refers to is drawn from by that snapshot."""
    program, source, cartridge = Program(tmp_path / "program"), tmp_path / "source", tmp_path / "c1"
    for folder in (source, cartridge):
        folder.mkdir()
    program.init("home", [source], [cartridge])
    for name in ("first", "second"):
        (source / "file").write_text(name)
        program.backup("home")
    found = program.json("drill", "home", *EVERYTHING)
    assert found["sample"] == ["source/file", "source/file"]
    assert found["cartridges"][0]["files"] == 2


def test_links_parts_holes_and_all_that_is_odd_come_back_right(tmp_path: Path) -> None:
    program, source, cartridge = Program(tmp_path / "program"), tmp_path / "farm", tmp_path / "c1"
    funny_farm(source)
    cartridge.mkdir()
    program.init("home", [source], [cartridge])
    program.edit_profile("home", {"archive": {"split_size": "1MiB"}})
    program.backup("home")
    listed = program.json("ls", "home")["entries"]
    files = {f"farm/{e['path']}" for e in listed if e["type"] in ("file", "hardlink")}
    found = program.json("drill", "home", *EVERYTHING)
    empty = {f"farm/{e['path']}" for e in listed if e["type"] == "file" and not e["size"]}
    hard = {f"farm/{e['path']}" for e in listed if e["type"] == "hardlink"}
    assert files - {*found["sample"]} <= empty | hard, "all with content, and links to these"
    assert {*found["sample"]} <= files
    for path in ("hard links/z after/twin of first", "sparse/many holes", "sizes/of 0"):
        assert f"farm/{path}" in found["sample"] or path == "sizes/of 0"
    assert {*found["sample"]} & empty
    assert os.listdir(program.directory / "tmp") == []


def test_a_user_without_rights_drills_as_well(barred: Program) -> None:
    barred.backup("home", code=3)
    assert barred.json("drill", "home")["cartridges"][0]["files"] == 2


# ---- damage


def test_a_flipped_bit_is_found_and_named(home: Home) -> None:
    archive = Medium(path=home.media[1]).archives[-1]
    flip_a_bit(archive, random.Random(1))
    error = home.drill(*EVERYTHING, code=5)
    assert str(archive.relative_to(home.media[1])) in error["message"]
    assert "home 2" in error["message"]
    damaged = {one["serial"]: one["damaged"] for one in error["cartridges"]}
    assert damaged[2]
    assert damaged[1] == damaged[3] == []
    assert all(path in error["message"] for path in damaged[2][:3])
    proven = home.proven()
    assert proven[2]["proven"] is None, "a drill that fails proves nothing"
    assert proven[2]["failed"] is not None
    assert proven[1]["days"] == 0
    assert "home 2: last proven restore never; a drill found damage" in (
        home.program.run("status", "home").stdout
    )


def test_an_archive_that_is_gone_is_damage(home: Home) -> None:
    archive = Medium(path=home.media[0]).archives[0]
    archive.unlink()
    error = home.drill(*EVERYTHING, code=5)
    assert archive.name in error["message"]


def test_an_earlier_proof_is_kept_beside_the_damage(home: Home) -> None:
    home.drill()
    for archive in Medium(path=home.media[2]).archives:
        archive.write_bytes(b"nothing")
    home.drill(code=5)
    third = home.proven()[3]
    assert third["proven"] <= third["failed"]


# ---- cartridges that are not here


def test_absent_cartridges_are_named_as_not_proven(home: Home, tmp_path: Path) -> None:
    away = home.media[1].rename(tmp_path / "away")
    try:
        found = home.drill()
        said = home.program.run("drill", "home").stdout
        proven = home.proven()
    finally:
        away.rename(home.media[1])
    assert [one["serial"] for one in found["cartridges"]] == [1, 3]
    assert [(one["serial"], one["label"]) for one in found["not_proven"]] == [(2, "home 2")]
    assert "home 2 is not proven: it is not present" in said
    assert proven[2]["proven"] is None


def test_where_none_is_here_it_is_said_which_would_be_wanted(home: Home, tmp_path: Path) -> None:
    away = home.media[0].parent.rename(tmp_path / "away")
    try:
        error = home.drill(code=4)
    finally:
        away.rename(home.media[0].parent)
    assert error["error"] == "CartridgeWanted"
    assert "home 1, home 2, home 3" in error["message"]
    assert not home.history.exists()


def test_without_a_snapshot_there_is_nothing_to_drill(program: Program, tmp_path: Path) -> None:
    for name in ("source", "c1"):
        (tmp_path / name).mkdir()
    program.init("home", [tmp_path / "source"], [tmp_path / "c1"])
    assert program.json("drill", "home", code=1)["error"] == "SnapshotMissing"


# ---- the history


def test_status_tells_the_age_of_the_last_proof(home: Home) -> None:
    assert {one["proven"] for one in home.proven().values()} == {None}
    assert "home 1: last proven restore never." in home.program.run("status", "home").stdout
    home.drill()
    assert {one["days"] for one in home.proven().values()} == {0}
    assert "home 1: last proven restore today." in home.program.run("status", "home").stdout
    line = json.loads(home.history.read_text())
    line["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 40 * 86_400))
    home.history.write_text(json.dumps(line) + "\n")
    assert home.proven()[1]["days"] == 40
    assert "home 1: last proven restore 40 days ago." in home.program.run("status", "home").stdout


def test_the_history_outlives_a_prune_and_cartridges_stay_as_they_were(
    home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(home.source.parent, folder, symlinks=True)
    before = [path.read_bytes() for path in sorted(home.media[0].rglob("*")) if path.is_file()]
    home.drill()
    home.drill()
    assert len(home.history.read_text().splitlines()) == 2
    after = [path.read_bytes() for path in sorted(home.media[0].rglob("*")) if path.is_file()]
    assert before == after
    for medium in home.media:
        check_cartridge(medium)
    history = home.history.read_text()
    home.program.json("prune", "home")
    assert home.history.read_text() == history
    assert {one["days"] for one in home.proven().values()} == {0}


def test_a_torn_line_of_the_history_does_not_count(home: Home) -> None:
    home.drill()
    whole = home.history.read_text()
    home.history.write_text(whole + whole[:50])
    assert home.proven()[1]["days"] == 0
    home.drill()
    assert len(home.history.read_text().splitlines()) == 2


# ---- the passing place


def test_where_there_is_no_room_it_is_said(
    home: Home, loop_volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = loop_volume(8)
    (full / "filler").write_bytes(bytes(os.statvfs(full).f_bavail * 1024 - 3000))
    monkeypatch.setitem(home.program.env, "TMPDIR", str(full))
    error = home.drill(code=1)
    assert error["error"] == "DestinationUnusable"
    assert "TMPDIR" in error["message"]
    assert not home.history.exists()
    assert sorted(os.listdir(full)) == ["filler", "lost+found"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_it_is_stopped(home: Home, number: signal.Signals) -> None:
    process = home.program.start("drill", "home", *EVERYTHING)
    restoring = lambda: any(home.passing.glob("*/*/source/*"))  # noqa: E731
    assert processes.wait_for(restoring, process)
    os.kill(process.pid, number)
    code, _, _ = processes.end_of(process)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    processes.assert_none_left(process)
    assert not home.history.exists()
    for left in home.passing.iterdir():  # a killed process cannot clean up: the next one does
        assert number == signal.SIGKILL
        os.utime(left, (0, 0))
    home.drill("--files", "1")


def test_a_drill_waits_for_no_run_and_disturbs_none(home: Home) -> None:
    first = home.program.start("drill", "home", *EVERYTHING)
    assert processes.wait_for(lambda: any(home.passing.glob("*/*")), first)
    processes.stop_all(first)
    try:
        error = home.program.json("prune", "home", code=6)
    finally:
        processes.go_on(first)
    assert error["error"] == "RunActive"
    assert processes.end_of(first)[0] == 0
