"""Nothing goes that is needed: what a catalog does not know is not what it has forgotten."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.catalog import placement
from tasks.catalog.store import Store
from tests.conftest import Home, MakeCartridges
from tests.helpers.compare import assert_same_tree, bytes_on, snapshot_of
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program


def store_of(program: Program) -> Store:
    return Store(str(program.catalog("home")))


def forget_all_but_the_newest(program: Program) -> None:
    program.edit_profile("home", {"retention": {"keep_last": 1}})


def lose_the_computer(program: Program) -> None:
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()


def killed_at(program: Program, place: str, *args: str) -> None:
    """Run a command that is killed where it would call a function, `module:name`."""
    module, name = place.split(":")
    code = (
        f"import os, sys, {module} as module\n"
        "def die(*args, **named):\n    os.killpg(0, 9)\n"
        f"owner, _, name = {name!r}.rpartition('.')\n"
        "setattr(getattr(module, owner) if owner else module, name, die)\n"
        f"sys.argv = {['cartridge', *args]!r}\n"
        "from pipelines.__main__ import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=program.env,
        cwd=program.workspace,
        check=False,
        capture_output=True,
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def overtaken(program: Program, *args: str) -> int:
    """Run a command that another workspace overtakes just before it has a cartridge for itself."""
    code = (
        "import contextlib, pathlib, sys\n"
        "from tasks.media.cartridge import Cartridge\n"
        "writing = Cartridge.writing\n"
        "@contextlib.contextmanager\n"
        "def late(self):\n"
        "    with writing(self):\n"
        "        theirs = 'catalog/manifests/20300101T000000Z.parquet'\n"
        "        pathlib.Path(self.path, theirs).write_bytes(b'theirs')\n"
        "        yield\n"
        "Cartridge.writing = late\n"
        f"sys.argv = {['cartridge', *args]!r}\n"
        "from pipelines.__main__ import main\nmain()\n"
    )
    command = [sys.executable, "-c", code]
    place = {"env": program.env, "cwd": program.workspace}
    return subprocess.run(command, **place, check=False, capture_output=True).returncode


@pytest.fixture
def spread(program: Program, source: Path, cartridges: MakeCartridges) -> tuple[list[Path], str]:
    """Two cartridges, swapped in one drive: the second snapshot has photos on both."""
    first, second = cartridges(2)
    fill(source / "old", files=4, size=250_000)
    program.init("home", [source], [first, second], capacity="4MB")
    away = second.rename(second.with_name("away"))
    program.backup("home")
    fill(source / "photos", files=10, size=400_000, seed=2)
    assert program.backup("home", code=4)["status"] == "waiting"
    safe = first.rename(first.with_name("safe"))
    away.rename(second)
    newest = program.backup("home")["snapshot"]
    second.rename(away)
    safe.rename(first)
    return [first, second, away], newest


def test_what_a_recover_was_not_given_stays_on_cartridges(
    program: Program, source: Path, spread: tuple[list[Path], str], tmp_path: Path
) -> None:
    (first, second, away), newest = spread
    before = snapshot_of(source)
    lose_the_computer(program)
    shutil.rmtree(source / "photos")
    assert program.json("recover", first)["missing"]["snapshots"] == [newest]
    third = first.with_name("c3")
    third.mkdir()
    program.run("label", third, "--set", "home", "--capacity", "4MB")
    program.edit_profile("home", {"cartridges": {"search": [str(first.with_name("c*"))]}})
    forget_all_but_the_newest(program)
    archives = bytes_on(first / "archives")
    for _ in range(2):
        (source / f"note {time.time_ns()}").write_text("new")
        assert program.backup("home")["status"] == "complete"
    assert bytes_on(first / "archives") == archives
    away.rename(second)
    (source / "last note").write_text("new")
    program.backup("home")
    assert Medium(path=second).manifest(newest).exists()

    given = ("--from", first, "--from", second)
    out = tmp_path / "out"
    program.json("restore", *given, out, "--snapshot", newest)
    assert_same_tree(before, out / "source")
    lose_the_computer(program)
    assert newest in program.json("recover", first, second, third)["snapshots"]


def test_what_was_forgotten_goes_from_cartridges_that_were_away(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    [cartridge] = cartridges(1)
    fill(source, files=4, size=250_000)
    program.init("home", [source], [cartridge])
    first = program.backup("home")["snapshot"]
    fill(source, files=4, size=250_000, seed=2)
    program.backup("home")
    away = cartridge.rename(cartridge.with_name("away"))
    forget_all_but_the_newest(program)
    program.json("prune", "home")
    away.rename(cartridge)
    assert program.json("prune", "home")["freed"] > 0
    assert not Medium(path=cartridge).manifest(first).exists()
    told = json.loads((cartridge / "catalog" / "snapshots.json").read_text())
    assert first in told["forgotten"]


def shorten(journal: Path) -> None:
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[1:]))


def empty(journal: Path) -> None:
    journal.write_text("")


@pytest.mark.parametrize("damage", [shorten, empty])
def test_a_prune_removes_nothing_from_a_cartridge_whose_journal_is_damaged(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    damage: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    [cartridge] = cartridges(1)
    fill(source, files=6, size=100_000)
    program.init("home", [source], [cartridge], capacity="4MB")  # several archives
    program.backup("home")
    (source / "004.bin").unlink()
    (source / "005.bin").unlink()
    program.backup("home")
    damage(cartridge / "journal.jsonl")
    archives = bytes_on(cartridge / "archives")
    forget_all_but_the_newest(program)
    assert program.json("prune", "home")["freed"] == 0
    assert bytes_on(cartridge / "archives") == archives
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.parametrize("command", [("prune", "home"), ("backup", "home", "--abandon")])
def test_a_catalog_that_is_older_than_a_cartridge_removes_nothing_from_it(
    home: Home, command: tuple[str, ...], tmp_path: Path
) -> None:
    program, source, cartridge = home
    shutil.copytree(program.workspace, tmp_path / "older", symlinks=True)
    fill(source / "new", files=1, size=300_000, seed=3)
    program.backup("home")
    before = bytes_on(cartridge)
    shutil.rmtree(program.workspace)
    shutil.copytree(tmp_path / "older", program.workspace, symlinks=True)
    program.run(*command)
    assert bytes_on(cartridge) == before


def test_a_prune_that_waits_for_a_backup_knows_what_it_has_stored(
    home: Home, tmp_path: Path
) -> None:
    """What was without use when the prune began is referred to when the backup has ended."""
    program, source, _ = home
    fill(source / "new", files=1, size=300_000, seed=3)  # it has an archive of its own
    program.backup("home")
    gone = (source / "new" / "000.bin").rename(tmp_path / "gone.bin")
    program.backup("home")
    forget_all_but_the_newest(program)
    shutil.copyfile(gone, source / "again.bin")
    (program.workspace / "hold").touch()
    # The run holds the profile when its hook runs, and the prune begins meanwhile.
    hook = f"while [ -e '{program.workspace}/hold' ]; do sleep 0.05; done"
    program.edit_profile("home", {"hooks": {"before": [hook]}})
    backup = program.start("backup", "home")
    time.sleep(1)
    prune = program.start("prune", "home")
    time.sleep(1.5)
    (program.workspace / "hold").unlink()
    codes = [process.wait(timeout=60) for process in (backup, prune)]
    assert codes[0] == 0
    assert codes[1] in (0, 6)
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


@pytest.mark.parametrize("state", [placement.SUSPECT, placement.LOST])
def test_a_cartridge_that_is_given_up_is_not_written_by_a_prune(home: Home, state: str) -> None:
    program, source, cartridge = home
    (source / "big" / "005.bin").unlink()
    program.backup("home")
    [row] = store_of(program).cartridges()
    store_of(program).alter_cartridge(row.uuid, state=state)
    before = bytes_on(cartridge)
    forget_all_but_the_newest(program)
    program.run("prune", "home")
    assert bytes_on(cartridge) == before


def test_a_cartridge_that_is_killed_while_it_is_written_off_is_still_to_be_written_off(
    home: Home,
) -> None:
    program, _, _ = home
    killed_at(program, "tasks.catalog.store:Store.update_archives", "lost", "home", "1")
    [row] = program.json("cartridges", "home")["cartridges"]
    assert row["state"] != "lost"


def test_a_run_that_was_under_way_tells_of_a_loss_that_it_may_refer_to(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    first, second = cartridges(2)
    fill(source / "old", files=1, size=1_500_000)
    program.init("home", [source], [first], capacity="4MB")
    program.backup("home")
    fill(source / "new", files=1, size=3_500_000, seed=2)
    program.backup("home", code=4)
    program.run("lost", "home", "1")
    shutil.rmtree(first)
    program.run("label", second, "--set", "home", "--capacity", "20MB")
    cartridge = {"search": [str(second)], "capacity": "20MB"}
    program.edit_profile("home", {"cartridges": cartridge})
    told = program.backup("home", code=5)
    assert (told["error"], told["status"]) == ("DamageFound", "complete")
    assert told["snapshot"] == program.snapshots("home")[-1]
    assert program.backup("home")["status"] == "complete"
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def damage(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)


def test_damage_that_was_found_is_remembered_by_a_run_that_is_killed(
    home: Home, tmp_path: Path
) -> None:
    program, source, cartridge = home
    damage(max(Medium(path=cartridge).archives, key=lambda path: path.stat().st_size))
    other = cartridge.with_name("c2")
    other.mkdir()
    program.run("label", other, "--set", "home")
    program.edit_profile("home", {"cartridges": {"search": [str(cartridge.with_name("c*"))]}})
    fill(source / "new", files=1, size=300_000, seed=3)
    killed_at(program, "tasks.verify:_write_off", "backup", "home")
    codes = [program.run("backup", "home", code=None).returncode for _ in range(3)]
    assert 5 in codes
    assert codes[-1] == 0
    cartridge.rename(cartridge.with_name("away"))
    program.restore("home", tmp_path / "out", code=None)
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_medium_that_has_dropped_what_was_written_is_found_out(
    home: Home, tmp_path: Path
) -> None:
    """The run was killed before it read back; the medium came back as it had been before."""
    program, source, cartridge = home
    before = tmp_path / "before"
    subprocess.run(["cp", "-a", cartridge, before], check=True)
    fill(source / "new", files=1, size=300_000, seed=3)
    killed_at(program, "tasks.verify:VerifyCartridge.work", "backup", "home")
    shutil.rmtree(cartridge)
    subprocess.run(["cp", "-a", before, cartridge], check=True)
    told = program.run("backup", "home", code=None)
    assert told.returncode != 0
    assert len(program.snapshots("home")) == 1


def test_a_copy_on_a_sound_cartridge_is_the_one_to_refer_to(home: Home, tmp_path: Path) -> None:
    program, source, cartridge = home
    second, third = cartridge.with_name("c2"), cartridge.with_name("c3")
    for folder in (second, third):
        folder.mkdir()
        program.run("label", folder, "--set", "home")
    program.edit_profile("home", {"cartridges": {"search": [str(cartridge.with_name("c*"))]}})
    store = store_of(program)
    uuids = {row.serial: row.uuid for row in store.cartridges()} or {}
    store.alter_cartridge(uuids[1], state=placement.FULL)
    program.backup("home", "--full")
    uuids = {row.serial: row.uuid for row in store.cartridges()}
    store.alter_cartridge(uuids[2], state=placement.SUSPECT)
    gone = (source / "big" / "005.bin").rename(tmp_path / "gone.bin")
    program.backup("home")
    shutil.copyfile(gone, source / "again.bin")
    program.backup("home")
    plan = program.json("restore", "home", tmp_path / "out", "source/again.bin", "--plan")
    assert [row["serial"] for row in plan["cartridges"]] == [1]


def test_a_hard_link_is_no_file_that_could_not_be_read_again(
    as_nobody: Program, commons: Path
) -> None:
    source, cartridge = commons / "source", commons / "c1"
    fill(source, files=2, size=3000)
    (source / "001.bin").chmod(0)
    cartridge.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", source, cartridge], check=True)
    as_nobody.init("home", [source], [cartridge])
    as_nobody.edit_profile("home", {"source": [{"change_detection": "mtime"}]})
    as_nobody.backup("home", code=3)
    (source / "001.bin").unlink()
    os.link(source / "000.bin", source / "link.bin")
    as_nobody.backup("home")
    assert any(path.endswith("link.bin") for path in as_nobody.listed("home"))


@pytest.mark.parametrize(("command", "code"), [("prune", 0), ("backup", 1)])
def test_a_cartridge_that_another_has_just_written_is_not_written(
    home: Home, command: str, code: int
) -> None:
    """It is looked at again, once nobody else can write it."""
    program, source, cartridge = home
    shutil.rmtree(source)
    source.mkdir()
    (source / "other").write_text("other")
    program.backup("home", "--allow-shrink")
    forget_all_but_the_newest(program)
    (source / "new").write_text("new")
    before = Medium(path=cartridge).journal
    assert overtaken(program, command, "home") == code
    assert Medium(path=cartridge).journal == before
