"""A source that changes under a backup: what comes back was once there, or its loss is reported."""

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.compare import assert_same_tree, snapshot_of
from tests.helpers.media import fill
from tests.helpers.program import NOBODY, Program
from tests.helpers.trees import small_tree

MakeCartridges = Callable[[int], list[Path]]
Change = Callable[[Path], None]

BLOCK = 4096


# ---- a state that a file really had


def state(number: int, blocks: int) -> bytes:
    """Return the content of a file that tells whether it is whole.

    All blocks have the same number, the first says how many there are, and each has its checksum.
    """
    body = b"%016d %016d " % (number, blocks)
    one = body + b"." * (BLOCK - len(body) - 32)
    return (one + hashlib.sha256(one).digest()) * blocks


def is_a_state(content: bytes) -> bool:
    """Whether a file was like this at some instant, between two writes of its writer."""
    if len(content) % BLOCK:
        return False
    blocks = {content[at : at + BLOCK] for at in range(0, len(content), BLOCK)}
    if not blocks:
        return True
    [*others, block] = blocks
    told = int(block[17:33]) if not others else -1
    whole = hashlib.sha256(block[:-32]).digest() == block[-32:]
    return whole and told == len(content) // BLOCK


def replace(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.rename(path)


def truncate(path: Path, content: bytes) -> None:
    path.write_bytes(content[:BLOCK].replace(content[17:33], b"%016d" % 1))


def rewrite(path: Path, content: bytes) -> None:
    """Write in place and block by block, so that a reader may see half of it."""
    with path.open("r+b", buffering=0) as file:
        for at in range(0, len(content), BLOCK):
            file.write(content[at : at + BLOCK])
        file.truncate(len(content))


def remove(path: Path, content: bytes) -> None:
    path.unlink()


def keep_changing(folder: Path, seed: int) -> None:
    """Change the files of a folder for ever."""
    chance = random.Random(seed)
    number = 10**6 * seed
    while True:
        path = folder / f"{chance.randrange(40):02}.log"
        number += 1
        content = state(number, chance.choice([1, 2, 30, 200]))
        if not path.exists():
            replace(path, content)
        else:
            chance.choice([replace, rewrite, rewrite, rewrite, remove])(path, content)
        if chance.random() < 0.2:
            time.sleep(0.01)


@contextlib.contextmanager
def changing(*folders: Path) -> Iterator[None]:
    """Keep changing some folders, each in a process of its own, while the block runs."""
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=keep_changing, args=(folder, seed), daemon=True)
        for seed, folder in enumerate(folders, start=1)
    ]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def busy_tree(source: Path) -> list[Path]:
    """Make folders of files that tell their state, among others that never change."""
    small_tree(source / "calm", files=60)
    fill(source / "calm", files=12, size=400_000)
    folders = [source / "busy", source / "zealous"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        for number in range(40):
            (folder / f"{number:02}.log").write_bytes(state(number + 100 * seed, number % 7 + 1))
    return folders


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.night)])
def test_every_file_comes_back_as_it_once_was_or_is_reported(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path, rounds: int
) -> None:
    folders = busy_tree(source)
    calm = snapshot_of(source / "calm")
    program.init("home", [source], cartridges(1))
    outcomes: dict[str, dict[str, Any]] = {}
    with changing(*folders):
        for _ in range(rounds):
            outcome = program.backup("home", code=None)
            check_told(outcome)
            outcomes[outcome["snapshot"]] = outcome
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    for snapshot in outcomes:
        out = tmp_path / snapshot
        program.restore("home", out, "--snapshot", snapshot)
        assert_same_tree(calm, out / "source" / "calm")
        for path in (out / "source").glob("*/*.log"):
            assert is_a_state(path.read_bytes()), f"{path.name} never was like that"
        shutil.rmtree(out)


def check_told(outcome: dict[str, Any]) -> None:
    """The exit code, the status and the list of what was not read agree."""
    assert "error" not in outcome, outcome
    assert outcome["status"] == ("partial" if outcome["unreadable"] else "complete")
    assert not [path for path in outcome["unreadable"] if "/calm/" in path]


@pytest.mark.night
def test_a_large_file_that_changes_comes_back_as_it_once_was_or_is_reported(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Contents that are cut into chunks are read in many calls; a change between two is seen."""
    path = source / "disk.img"
    path.write_bytes(state(1, 20_000))
    (source / "calm.txt").write_text("calm\n")
    program.init("home", [source], cartridges(1))
    program.edit_profile("home", {"archive": {"split_size": "1MiB"}})
    context = multiprocessing.get_context("fork")
    for turn in range(8):
        pause = turn * 0.05
        writer = context.Process(target=keep_rewriting, args=(path, turn + 2, pause), daemon=True)
        writer.start()
        outcome = program.backup("home", code=None)
        writer.kill()
        writer.join()
        check_told(outcome)
        out = tmp_path / f"{turn}"
        program.restore("home", out)
        restored = out / "source" / "disk.img"
        assert restored.exists() == (outcome["unreadable"] == [])
        assert not restored.exists() or is_a_state(restored.read_bytes())
        path.write_bytes(state(turn, 20_000))


def keep_rewriting(path: Path, seed: int, pause: float) -> None:
    number = seed * 1000
    while True:
        number += 1
        rewrite(path, state(number, 20_000))
        time.sleep(pause)


# ---- between the look and the reading


class Held:
    """A backup that is held between the scan of the source and the reading of its files."""

    def __init__(self, program: Program, source: Path) -> None:
        self.program = program
        self.run = program.workspace / "state" / "home" / "runs"
        self.process = program.start("backup", "--json", "home")
        scanned = f"*/scan/{source.name}.parquet"
        assert processes.wait_for(lambda: any(self.run.glob(scanned)), self.process)
        processes.stop_all(self.process)
        assert not any(self.run.glob("*/plan.json")), "it was faster than the test"

    def goes_on(self) -> dict[str, Any]:
        import json

        processes.go_on(self.process)
        _, out, err = processes.end_of(self.process)
        assert out, err
        outcome: dict[str, Any] = json.loads(out)
        return outcome | {"code": self.process.returncode}


def test_what_vanishes_after_the_scan_is_reported_and_nothing_else_is_lost(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    small_tree(source, files=30)
    (source / "gone.txt").write_text("not for long\n")
    (source / "folder").mkdir()
    (source / "folder" / "gone too.txt").write_text("neither\n")
    (source / "becomes a folder").write_text("a file\n")
    (source / "becomes a fifo").write_text("a file\n")
    (source / "becomes a link").write_text("a file\n")
    program.init("home", [source], cartridges(1))
    held = Held(program, source)
    (source / "gone.txt").unlink()
    shutil.rmtree(source / "folder")
    for name in ("folder", "fifo", "link"):
        (source / f"becomes a {name}").unlink()
    (source / "becomes a folder").mkdir()
    os.mkfifo(source / "becomes a fifo")
    (source / "becomes a link").symlink_to("/etc/passwd")
    outcome = held.goes_on()
    assert (outcome["code"], outcome["status"]) == (3, "partial")
    lost = ["becomes a fifo", "becomes a folder", "becomes a link", "folder/gone too.txt"]
    assert sorted(outcome["unreadable"]) == [f"source/{name}" for name in (*lost, "gone.txt")]
    program.restore("home", tmp_path / "out")
    there = snapshot_of(tmp_path / "out" / "source")
    assert not any(name.encode() in there for name in (*lost, "gone.txt"))
    assert len([facts for facts in there.values() if facts.kind == "file"]) == 30

    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "later")
    assert_same_tree(source, tmp_path / "later" / "source")


@pytest.mark.night
def test_what_changes_after_the_scan_is_backed_up_as_it_is_now(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    small_tree(source, files=10)
    fill(source / "big", files=4, size=300_000)
    program.init("home", [source], cartridges(1))
    held = Held(program, source)
    (source / "big" / "000.bin").write_bytes(b"shorter\n")
    with (source / "big" / "001.bin").open("ab") as file:
        file.write(random.Random(5).randbytes(70_000_000))
    replace(source / "big" / "002.bin", bytes(300_000))
    with (source / "big" / "003.bin").open("wb") as file:
        file.truncate(5_000_000)
    expected = snapshot_of(source / "big")
    outcome = held.goes_on()
    assert (outcome["code"], outcome["unreadable"]) == (0, [])
    program.restore("home", tmp_path / "out")
    assert_same_tree(expected, tmp_path / "out" / "source" / "big", ignore=["mtime_ns"])


def test_a_name_that_is_replaced_takes_nothing_from_its_hard_link(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """An editor saves by replacing one name of two: the other still has the old content."""
    (source / "a.txt").write_text("old\n")
    os.link(source / "a.txt", source / "b.txt")
    (source / "c.txt").write_text("going\n")
    os.link(source / "c.txt", source / "d.txt")
    small_tree(source / "rest", files=5)
    program.init("home", [source], cartridges(1))
    held = Held(program, source)
    replace(source / "a.txt", b"new\n")
    (source / "c.txt").unlink()
    outcome = held.goes_on()
    program.restore("home", tmp_path / "out")
    out = tmp_path / "out" / "source"
    unread = set(outcome["unreadable"])
    for name, content in {"a.txt": "new\n", "b.txt": "old\n", "d.txt": "going\n"}.items():
        if (out / name).exists():
            assert (out / name).read_text() == content, name
        else:
            assert f"source/{name}" in unread, f"{name} was lost without a word"
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "later")
    assert_same_tree(source, tmp_path / "later" / "source")


# ---- what may not be read


@pytest.fixture
def theirs(as_nobody: Program, commons: Path) -> tuple[Program, Path]:
    """A backup of a user without rights, with a folder that can be taken from them."""
    source = commons / "source"
    small_tree(source / "open", files=30)
    small_tree(source / "locked", files=10, seed=2)
    (source / "locked" / "link").symlink_to("nowhere")
    (source / "locked" / "empty").mkdir()
    os.link(source / "open" / "0000.txt", source / "locked" / "twin.txt")
    (commons / "c1").mkdir()
    give(source)
    give(commons / "c1")
    as_nobody.init("home", [source], [commons / "c1"])
    assert as_nobody.backup("home")["status"] == "complete"
    return as_nobody, source


def give(folder: Path) -> None:
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)


def lock(folder: Path) -> None:
    folder.chmod(0)


def hide(folder: Path) -> None:
    """Names can be listed, and nothing more."""
    folder.chmod(0o444)


@pytest.mark.parametrize("close", [lock, pytest.param(hide, marks=pytest.mark.night)])
def test_a_folder_that_may_not_be_read_keeps_what_it_had(
    theirs: tuple[Program, Path], tmp_path: Path, close: Change
) -> None:
    program, source = theirs
    out = program.directory.parent / "out"
    before = snapshot_of(source / "locked")
    close(source / "locked")
    (source / "open" / "new.txt").write_text("new\n")
    partial = program.backup("home", code=3)
    assert (partial["status"], partial["deleted"]) == ("partial", 0)
    assert any("locked" in path for path in partial["unreadable"])
    again = program.backup("home", code=3)  # and also where nothing else has changed
    assert any("locked" in path for path in again["unreadable"])
    program.restore("home", out)
    (source / "locked").chmod(0o755)
    (out / "source" / "locked").chmod(0o755)
    assert_same_tree(before, out / "source" / "locked", ignore=["mode"])


def test_a_folder_that_may_not_be_read_is_no_loss_that_stops_the_run(
    theirs: tuple[Program, Path],
) -> None:
    program, source = theirs
    out = program.directory.parent / "out"
    before = snapshot_of(source / "open")
    lock(source / "open")
    assert program.backup("home", code=3)["deleted"] == 0
    program.restore("home", out)
    (out / "source" / "open").chmod(0o755)
    assert_same_tree(before, out / "source" / "open", ignore=["mode", "group"])


@pytest.mark.night
def test_a_locked_folder_does_not_hang_on_names_outside_of_it(
    theirs: tuple[Program, Path],
) -> None:
    """A name that shared its content with one outside keeps it, whatever happens there."""
    program, source = theirs
    out = program.directory.parent / "out"
    content = (source / "locked" / "twin.txt").read_bytes()
    lock(source / "locked")
    (source / "open" / "0000.txt").unlink()
    program.backup("home", code=3)
    program.restore("home", out / "gone")
    assert (out / "gone" / "source" / "locked" / "twin.txt").read_bytes() == content
    (source / "open" / "0000.txt").write_text("another file\n")
    give(source / "open")
    program.backup("home", code=3)
    program.restore("home", out / "new")
    assert (out / "new" / "source" / "locked" / "twin.txt").read_bytes() == content
    assert (out / "new" / "source" / "open" / "0000.txt").read_text() == "another file\n"


@pytest.mark.night
def test_a_file_that_may_no_longer_be_read_is_reported_each_time(
    theirs: tuple[Program, Path],
) -> None:
    program, source = theirs
    (source / "open" / "new.txt").write_text("secret\n")
    (source / "open" / "new.txt").chmod(0)
    give(source / "open")
    for _ in range(2):
        outcome = program.backup("home", code=3)
        assert outcome["unreadable"] == ["source/open/new.txt"]
        assert outcome["status"] == "partial"
    (source / "open" / "new.txt").chmod(0o600)
    outcome = program.backup("home")
    assert (outcome["status"], outcome["added"]) == ("complete", 1)


@pytest.mark.night
@pytest.mark.parametrize("name", ["new.txt", pytest.param("0001.txt", marks=pytest.mark.night)])
def test_a_file_that_stays_unreadable_makes_no_new_snapshot_each_time(
    theirs: tuple[Program, Path], name: str
) -> None:
    """Whether it is new or was backed up before; and nothing new needs no cartridge."""
    program, source = theirs
    closed, cartridge = source / "open" / name, program.directory.parent / "c1"
    content = f"secret, and this is {name}\n"
    closed.write_text(content)
    closed.chmod(0)
    give(source / "open")
    first = program.backup("home", code=3)
    assert (first["status"], first["unreadable"]) == ("partial", [f"source/open/{name}"])
    snapshots = program.snapshots("home")
    assert first["snapshot"] in snapshots
    cartridge.rename(cartridge.with_name("away"))
    for _ in range(2):
        again = program.backup("home", code=3)
        assert (again["status"], again["snapshot"]) == ("partial", None)
        assert again["unreadable"] == [f"source/open/{name}"]
        assert (again["added"], again["modified"], again["bytes_stored"]) == (0, 0, 0)
    assert program.snapshots("home") == snapshots
    assert program.json("status", "home")["unfinished"] is None
    cartridge.with_name("away").rename(cartridge)

    (source / "open" / "another.txt").write_text("another\n")
    give(source / "open" / "another.txt")
    more = program.backup("home", code=3)
    assert (more["added"], more["unreadable"]) == (1, [f"source/open/{name}"])
    assert more["snapshot"] is not None
    closed.chmod(0o600)
    last = program.backup("home")
    assert (last["status"], last["added"] + last["modified"]) == ("complete", 1)
    program.restore("home", program.directory.parent / "out")
    restored = program.directory.parent / "out" / "source" / "open" / name
    assert restored.read_text() == content
    assert program.backup("home")["status"] == "unchanged"
