"""Retention forgets what it should, frees what only that needed, and never touches the rest."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Home
from tests.helpers import processes
from tests.helpers.compare import Facts, assert_same_tree, bytes_on, snapshot_of
from tests.helpers.media import check_cartridge, fill, used
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]


class History:
    """A tree that changes from snapshot to snapshot, and what each must bring back."""

    def __init__(self, program: Program, source: Path, cartridges: list[Path]) -> None:
        self.program, self.source, self.cartridges = program, source, cartridges
        self.facts: dict[str, dict[bytes, Facts]] = {}

    def back_up(self, *args: str) -> str:
        """Back up and return the snapshot's id."""
        outcome = self.program.backup("home", "--allow-shrink", *args)
        assert outcome["status"] == "complete"
        self.facts[outcome["snapshot"]] = snapshot_of(self.source)
        snapshot: str = outcome["snapshot"]
        return snapshot

    def keep(self, number: int) -> None:
        self.program.edit_profile("home", {"retention": {"keep_last": number}})

    def check(self, out: Path) -> None:
        """Every snapshot that is known restores exactly, and cartridges hold what they say."""
        for snapshot in self.program.snapshots("home"):
            self.program.restore("home", out / snapshot, "--snapshot", snapshot)
            assert_same_tree(self.facts[snapshot], out / snapshot / "source")
        shutil.rmtree(out)
        for cartridge in self.cartridges:
            if cartridge.exists() and (cartridge / "SHA256SUMS").exists():
                check_cartridge(cartridge)


@pytest.fixture
def history(program: Program, source: Path, cartridges: MakeCartridges) -> History:
    """Three snapshots over two small cartridges; each has files that no other has."""
    small_tree(source, files=20)
    made = cartridges(3)
    program.init("home", [source], made, capacity="4MB")
    history = History(program, source, made)
    for seed in (1, 2, 3):
        fill(source / "changing", files=8, size=200_000, seed=seed)
        history.back_up()
    return history


def archives_of(cartridge: Path, snapshot: str) -> list[Path]:
    return list(cartridge.glob(f"archives/{snapshot}/*"))


def test_a_backup_applies_retention_and_frees_cartridges(history: History, tmp_path: Path) -> None:
    _, second, _ = history.facts
    before = sum(map(used, history.cartridges))
    history.keep(1)
    fill(history.source / "changing", files=1, size=1000, seed=4)
    fourth = history.back_up()
    assert history.program.snapshots("home") == [fourth]
    assert sum(map(used, history.cartridges)) < before - 2_000_000
    for cartridge in history.cartridges:
        manifests = {path.stem for path in cartridge.glob("catalog/manifests/*")}
        assert manifests <= {fourth}
        assert not archives_of(cartridge, second)
    history.check(tmp_path / "out")


@pytest.mark.night
def test_freed_cartridges_are_written_again(history: History, tmp_path: Path) -> None:
    """With keep_last = 1 a set of three cartridges takes any number of snapshots."""
    history.keep(1)
    for seed in range(4, 7):
        fill(history.source / "changing", files=8, size=200_000, seed=seed)
        last = history.back_up()
        assert history.program.snapshots("home") == [last]
    assert max(map(used, history.cartridges)) <= 4_000_000
    history.check(tmp_path / "out")


def test_an_absent_cartridge_is_freed_when_it_is_back(history: History, tmp_path: Path) -> None:
    first, *_ = history.facts
    [home] = [c for c in history.cartridges if archives_of(c, first)]
    aside = tmp_path / "in the safe"
    home.rename(aside)
    history.keep(1)
    found = history.program.json("prune", "home")
    assert found["waiting"] > 1_000_000
    assert archives_of(aside, first)
    aside.rename(home)
    assert history.program.json("prune", "home")["waiting"] == 0
    kept = {line["archive"] for line in Medium(path=home).journal}
    assert kept == {str(path.relative_to(home)) for path in Medium(path=home).archives}
    history.check(tmp_path / "out")


@pytest.mark.night
def test_a_backup_frees_a_cartridge_that_is_back(history: History, tmp_path: Path) -> None:
    first, *_ = history.facts
    [home] = [c for c in history.cartridges if archives_of(c, first)]
    aside = tmp_path / "in the safe"
    home.rename(aside)
    history.keep(1)
    history.program.json("prune", "home")
    aside.rename(home)
    before = used(home)
    assert history.program.backup("home")["status"] == "unchanged"
    assert used(home) < before - 1_000_000
    history.check(tmp_path / "out")


@pytest.mark.night
def test_a_cartridge_that_may_not_be_written_does_not_stop_a_backup(
    program: Program, source: Path, loop_volume: MakeVolume, cartridges: MakeCartridges
) -> None:
    """Somebody has slid the switch of an old cartridge; it is freed another time."""
    fill(source, files=8, size=200_000)
    old = loop_volume(20)
    [new] = cartridges(1)
    program.init("home", [source], [old])
    program.backup("home")
    program.run("label", new, "--set", "home")
    fill(source, files=90, size=200_000, seed=2)
    program.edit_profile("home", {"cartridges": {"search": [str(old), str(new)]}})
    assert program.backup("home")["cartridges"] == [1, 2]
    subprocess.run(["mount", "-o", "remount,ro", old], check=True)
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    fill(source, files=90, size=100_000, seed=3)
    assert program.backup("home")["status"] == "complete"
    assert len(program.snapshots("home")) == 1
    assert program.backup("home")["status"] == "unchanged"


@pytest.mark.night
def test_a_prune_that_is_killed_is_finished_by_the_next(history: History, tmp_path: Path) -> None:
    """Killed at one point after the other, until it is through without being met."""
    history.keep(1)
    whole = tmp_path / "whole"
    shutil.copytree(history.program.workspace, whole / "workspace")
    shutil.copytree(tmp_path / "media", whole / "media")
    for step, reached in enumerate(STEPS):
        for name, place in (
            ("workspace", history.program.workspace),
            ("media", tmp_path / "media"),
        ):
            shutil.rmtree(place)
            shutil.copytree(whole / name, place)
        process = history.program.start("prune", "--json", "home")
        processes.wait_for(lambda: reached(history), process, pause=0)  # noqa: B023
        processes.kill_all(process)
        again = history.program.json("prune", "home")
        assert again["waiting"] == 0, f"step {step}"
        assert len(history.program.snapshots("home")) == 1
        history.check(tmp_path / "out")


def is_forgotten(history: History) -> bool:
    return len(os.listdir(history.program.catalog("home") / "manifests")) < 3


def is_dropped(history: History) -> bool:
    """The first cartridge has lost an archive."""
    first = next(iter(history.facts))
    return not (history.cartridges[0] / "archives" / first).exists()


def is_half_dropped(history: History) -> bool:
    first = next(iter(history.facts))
    folder = history.cartridges[0] / "archives" / first
    return not folder.exists() or len(os.listdir(folder)) < 6


def is_sealing(history: History) -> bool:
    return is_dropped(history) and any(history.cartridges[0].rglob("*.tmp"))


def is_tidied(history: History) -> bool:
    newest = [*history.facts][-1]
    there = {path.stem for path in history.cartridges[0].glob("catalog/manifests/*.parquet")}
    return there == {newest}


def is_sealed(history: History) -> bool:
    text = (history.cartridges[0] / "SHA256SUMS").read_text()
    return next(iter(history.facts)) not in text


STEPS = (is_forgotten, is_half_dropped, is_dropped, is_sealing, is_tidied, is_sealed)


@pytest.mark.night
@pytest.mark.parametrize("number", range(1, 40, 4))
def test_a_prune_that_is_killed_at_its_nth_change_is_finished_by_the_next(
    history: History, tmp_path: Path, number: int
) -> None:
    """The kernel kills it at the n-th call that changes the disk."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    history.keep(1)
    calls = "trace=unlink,unlinkat,rename,rmdir,fsync"
    inject = f"inject=unlink,unlinkat,rename,rmdir,fsync:signal=KILL:when={number}"
    traced = Program(history.program.directory, ("strace", "-o", "/dev/null", "-e", calls))
    traced.prefix = (*traced.prefix, "-e", inject)
    done = traced.run("prune", "home", code=None)
    again = history.program.json("prune", "home")
    assert again["waiting"] == 0
    assert len(history.program.snapshots("home")) == 1
    history.check(tmp_path / "out")
    assert done.returncode in (0, -9)


@pytest.mark.night
def test_a_full_cartridge_has_room_to_be_pruned(
    program: Program, source: Path, loop_volume: MakeVolume, tmp_path: Path
) -> None:
    """The catalog has grown since the cartridge was filled; pruning it must not fail for room."""
    fill(source, files=30, size=500_000)
    volumes = [loop_volume(20), loop_volume(60), loop_volume(60)]
    program.init("home", [source], volumes)
    history = History(program, source, [])
    history.back_up()
    fill(source / "more", files=30, size=500_000, seed=2)
    history.back_up()
    for number in range(20_000):
        folder = source / "many" / f"{number % 20}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / random.Random(number).randbytes(50).hex()).write_bytes(b"x")
    history.back_up()
    history.keep(1)
    found = program.json("prune", "home")
    assert found["waiting"] == 0
    for volume in volumes:
        if (volume / "SHA256SUMS").exists():
            shutil.rmtree(volume / "lost+found")
            check_cartridge(volume)
    history.check(tmp_path / "out")


def test_a_prune_leaves_cartridges_within_their_capacity(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=14, size=500_000)
    made = cartridges(3)
    program.init("home", [source], made, capacity="5MB")
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    history = History(program, source, made)
    history.back_up()
    chance = random.Random(1)
    for number in range(9000):
        (source / f"{chance.randbytes(40).hex()}.{number}").write_bytes(b"")
    history.back_up()
    for cartridge in made:
        assert used(cartridge) <= 5_000_000
    history.check(tmp_path / "out")


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [pytest.param(s, 14, marks=pytest.mark.night) for s in range(1, 4)],
)
def test_every_kept_snapshot_restores_whatever_was_pruned(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    tmp_path: Path,
    seed: int,
    rounds: int,
) -> None:
    chance = random.Random(seed)
    small_tree(source, files=20, seed=seed)
    made = cartridges(6)
    program.init("home", [source], made, capacity="3MB")
    history = History(program, source, made)
    for turn in range(rounds):
        for _ in range(chance.randrange(1, 5)):
            change(source, chance, turn)
        if snapshot_of(source) == (list(history.facts.values()) or [None])[-1]:
            continue
        history.back_up(*(["--full"] if chance.random() < 0.15 else []))
        history.keep(chance.randrange(1, 5))
        away = chance.choice(made) if chance.random() < 0.5 else None
        if away:
            away.rename(tmp_path / "away")
        program.json("prune", "home", timeout=60)
        if away:
            (tmp_path / "away").rename(away)
        if turn % 3 == 0 or turn == rounds - 1:
            history.check(tmp_path / "out")


def change(source: Path, chance: random.Random, turn: int) -> None:
    """Do something to a tree: write anew, copy, move, remove, bring back."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    one = chance.choice(files)
    what = chance.randrange(6)
    if what == 0:
        one.write_bytes(chance.randbytes(chance.randrange(400_000)))
    elif what == 1:
        shutil.copyfile(one, source / f"copy {turn} {chance.randrange(99)}")
    elif what == 2:
        one.rename(source / f"moved {turn} {chance.randrange(99)}")
    elif what == 3 and len(files) > 10:
        one.unlink()
    elif what == 4:
        fill(source / f"old {chance.randrange(3)}", files=2, size=150_000, seed=chance.randrange(3))
    else:
        one.chmod(chance.choice([0o600, 0o640, 0o644]))


def test_prune_removes_whole_dead_archives(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    fill(source, files=8, size=300_000, seed=1)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    old = program.backup("home")["snapshot"]
    fill(source, files=8, size=300_000, seed=2)
    new = program.backup("home")["snapshot"]
    assert archives_of(cartridge, old)
    program.edit_profile("home", {"retention": {"keep_last": 1}})

    before = bytes_on(cartridge)
    program.json("prune", "home", "--dry-run")
    assert bytes_on(cartridge) == before
    program.json("prune", "home")
    assert archives_of(cartridge, old) == []
    assert archives_of(cartridge, new)
    assert program.snapshots("home") == [new]
    check_cartridge(cartridge)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_prune_keeps_what_kept_snapshots_refer_to(home: Home, tmp_path: Path) -> None:
    program, source, _ = home
    expected = {program.snapshots("home")[0]: snapshot_of(source)}
    for number in range(3):
        fill(source / "big", files=2, size=200_000, seed=10 + number)
        (source / "big" / "005.bin").rename(source / f"moved {number}.bin")
        shutil.copyfile(source / f"moved {number}.bin", source / "big" / "005.bin")
        expected[program.backup("home")["snapshot"]] = snapshot_of(source)
    program.edit_profile("home", {"retention": {"keep_last": 2}})
    program.json("prune", "home")
    kept = program.snapshots("home")
    assert kept == sorted(expected)[-2:]
    for snapshot in kept:
        program.restore("home", tmp_path / snapshot, "--snapshot", snapshot)
        assert_same_tree(expected[snapshot], tmp_path / snapshot / "source")
    gone = program.restore("home", tmp_path / "gone", "--snapshot", sorted(expected)[0], code=None)
    assert gone["exit_code"] in (1, 2)
    assert program.json("verify", "home")["cartridges"][0]["damaged"] == []
