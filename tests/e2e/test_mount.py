"""Mounted snapshots are the source's content for every tool, and never anything else."""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.catalogs import add_archives, add_numbered, make_profile
from tests.helpers.compare import assert_same_tree, snapshot_of, without
from tests.helpers.damage import put_back
from tests.helpers.mounts import (
    can_mount,
    is_mounted,
    may_everybody_mount,
    mounted,
    start_mount,
    unmount,
)
from tests.helpers.processes import end_of
from tests.helpers.program import Program
from tests.helpers.trees import funny_farm, small_tree

pytestmark = pytest.mark.skipif(not can_mount(), reason="there is no /dev/fuse")

MakeCartridges = Callable[[int], list[Path]]
MIB = 1 << 20


class Farm:
    """A funny farm and large files, backed up on three cartridges, and mounted."""

    def __init__(self, folder: Path) -> None:
        self.program = Program(folder / "program")
        self.source, self.folder = folder / "farm", folder / "mnt"
        funny_farm(self.source)
        filler = self.source / "filler"
        filler.mkdir()
        for number in range(20):
            (filler / f"{number:02}").write_bytes(random.Random(number).randbytes(300_000))
        (filler / "large").write_bytes(random.Random(99).randbytes(12 * MIB))
        self.cartridges = [folder / "media" / f"c{number}" for number in (1, 2, 3)]
        for cartridge in self.cartridges:
            cartridge.mkdir(parents=True)
        self.program.init("home", [self.source], self.cartridges, "18MB")
        self.program.edit_profile("home", {"archive": {"split_size": "4MiB"}})
        self.snapshot = self.program.backup("home")["snapshot"]
        self.top = self.folder / "latest" / "farm"

    def log(self) -> str:
        path = self.program.workspace / "state" / "home" / "logs" / "mount.jsonl"
        return path.read_text("ascii") if path.exists() else ""


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    return Farm(tmp_path_factory.mktemp("farm"))


@pytest.fixture(scope="module")
def farm(backed_up: Farm) -> Iterator[Farm]:
    with mounted(backed_up.program, "home", backed_up.folder):
        yield backed_up


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, timeout=120)


def fails_with(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number


# The same content, for every tool.


def test_the_mount_has_every_fact_of_the_source(farm: Farm) -> None:
    assert_same_tree(farm.source, farm.top)


def test_cp_gives_the_source(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to(farm.top.parent)  # the longest path leaves room for short names
    run("cp", "-a", "m/farm", "copy", cwd=tmp_path)
    assert_same_tree(farm.source, tmp_path / "copy")


def test_tar_gives_the_source(farm: Farm, tmp_path: Path) -> None:
    archive, out = tmp_path / "t.tar", tmp_path / "out"
    out.mkdir()
    run("tar", "--sparse", "--xattrs", "--acls", "-cf", archive, "farm", cwd=farm.top.parent)
    run("tar", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive, "-C", out)
    expected = without(snapshot_of(farm.source), "fifo")  # tar keeps no links between fifos
    assert_same_tree(expected, without(snapshot_of(out / "farm"), "fifo"), ["sparse"])


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_rsync_finds_nothing_to_do(farm: Farm) -> None:
    options = ("-aHAXn", "--checksum", "--itemize-changes", "--delete")
    assert run("rsync", *options, f"{farm.top}/", f"{farm.source}/").stdout == b""


def test_find_and_sha256sum_see_what_is_in_the_source(farm: Farm) -> None:
    for command in (
        ("find", ".", "-printf", "%P %y %m %s %U %G %T@ %l\\0"),
        ("find", "sizes", "filler", "-type", "f", "-exec", "sha256sum", "{}", "+"),
    ):
        lines = [sorted(run(*command, cwd=d).stdout.split(b"\0")) for d in (farm.source, farm.top)]
        found = [[line for line in some if b" d " not in line] for some in lines]
        assert sorted(b"\n".join(found[0]).split(b"\n")) == sorted(
            b"\n".join(found[1]).split(b"\n")
        )


def test_hard_links_are_one_file(farm: Farm) -> None:
    names = [farm.top / "hard links" / n for n in ("first", "twin of first", "a before/first")]
    facts = [os.lstat(name) for name in names if name.exists()]
    assert len({f.st_ino for f in facts}) == 1
    assert {f.st_nlink for f in facts} == {os.lstat(farm.source / "hard links" / "first").st_nlink}
    entries = {entry.name: entry.inode() for entry in os.scandir(farm.top / "hard links")}
    assert entries["twin of first"] == facts[0].st_ino == entries["first"]
    assert 0 not in entries.values()


def test_readers_at_the_same_time_get_the_same(farm: Farm) -> None:
    path = "filler/large"
    expected = (farm.source / path).read_bytes()

    def one(number: int) -> bool:
        chance = random.Random(number)
        with (farm.top / path).open("rb", buffering=0) as file:
            for _ in range(20):
                start, size = chance.randrange(len(expected)), chance.randrange(300_000)
                if os.pread(file.fileno(), size, start) != expected[start : start + size]:
                    return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(12)))


def test_nothing_can_be_changed(farm: Farm) -> None:
    name = farm.top / "names" / "plain"
    for action in (
        lambda: name.write_bytes(b"x"),
        (farm.top / "new").mkdir,
        (farm.folder / "new").touch,
        name.unlink,
        lambda: name.rename(farm.top / "other"),
        lambda: os.chmod(name, 0o600),
        lambda: os.utime(name),
        lambda: os.truncate(name, 0),
        lambda: os.symlink("a", farm.top / "link"),
        lambda: os.link(name, farm.top / "link"),
        lambda: os.setxattr(name, "user.a", b"1"),
        lambda: os.rmdir(farm.top / "sizes" / "empty"),
    ):
        fails_with(errno.EROFS, action)


def test_what_is_not_there_is_said_not_to_be(farm: Farm) -> None:
    for path in (
        "none",
        "latest/none",
        "latest/farm/none",
        "20200101T000000Z",
        "latest/farm/names/x",
    ):
        assert not (farm.folder / path).exists()
    fails_with(errno.ENODATA, lambda: os.getxattr(farm.top / "names" / "plain", "user.none"))
    fails_with(errno.EINVAL, lambda: os.readlink(farm.top / "names" / "plain"))
    assert sorted(os.listdir(farm.folder)) == [farm.snapshot, "latest"]
    assert os.readlink(farm.folder / "latest") == farm.snapshot
    assert os.statvfs(farm.folder).f_namemax == 255


# Only what was checked.


def test_a_cartridge_that_is_not_here_is_named_and_found_when_it_is_back(
    backed_up: Farm, tmp_path: Path
) -> None:
    folder = tmp_path / "mnt"
    top = folder / "latest" / "farm"
    with mounted(backed_up.program, "home", folder) as process:
        away = [c.rename(c.with_name(f"{c.name}-away")) for c in backed_up.cartridges]
        path = top / "sizes" / "text"
        assert path.stat().st_size == MIB
        fails_with(errno.EIO, path.read_bytes)
        fails_with(errno.EIO, path.read_bytes)
        empty = (top / "sizes" / "of 0").read_bytes()
        for moved, cartridge in zip(away, backed_up.cartridges, strict=True):
            moved.rename(cartridge)
        assert path.read_bytes() == (backed_up.source / "sizes" / "text").read_bytes()
        assert empty == b""
        unmount(folder)
        code, _, err = end_of(process)
    assert code == 0
    assert len(re.findall("farm/sizes/text needs home [12], which is not here", err)) == 1
    lines = [json.loads(line) for line in backed_up.log().splitlines()]
    assert lines[-1]["path"] == "farm/sizes/text"
    assert "needs home " in lines[-1]["message"]


def test_damaged_bytes_are_never_handed_out(backed_up: Farm, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    top = folder / "latest" / "farm"
    with put_back(*backed_up.cartridges):
        for cartridge in backed_up.cartridges:
            for archive in cartridge.glob("archives/*/*.lz4"):
                data = bytearray(archive.read_bytes())
                for place in range(5, len(data), 40_000):
                    data[place] ^= 1
                archive.write_bytes(data)
        with mounted(backed_up.program, "home", folder) as process:
            right = wrong = 0
            for number in range(20):
                path = f"filler/{number:02}"
                try:
                    same = (top / path).read_bytes() == (backed_up.source / path).read_bytes()
                    assert same
                    right += 1
                except OSError as error:
                    assert error.errno == errno.EIO
                    wrong += 1
            unmount(folder)
            _, _, err = end_of(process)
    assert wrong > 10
    assert "is damaged" in err
    assert "filler/" in err


def test_a_volume_can_be_unmounted_while_its_snapshots_are_mounted(
    program: Program, source: Path, loop_volume: Callable[..., Path], tmp_path: Path
) -> None:
    small_tree(source)
    volume = loop_volume(64)
    program.init("home", [source], [volume])
    program.backup("home")
    with mounted(program, "home", tmp_path / "mnt"):
        opened = (tmp_path / "mnt" / "latest" / "source" / "0000.txt").open("rb")
        with opened:
            opened.read(10)
            subprocess.run(["umount", volume], check=True, timeout=30)


# Snapshots that come and go.


def test_snapshots_that_come_and_go_are_seen(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    folder = tmp_path / "mnt"
    (source / "a").write_bytes(b"one")
    program.init("home", [source], cartridges(1))
    with mounted(program, "home", folder):
        assert os.listdir(folder) == []
        fails_with(errno.ENOENT, lambda: os.readlink(folder / "latest"))
        first = program.backup("home")["snapshot"]
        (source / "a").write_bytes(b"second")
        second = program.backup("home")["snapshot"]
        assert sorted(os.listdir(folder)) == [first, second, "latest"]
        assert (folder / "latest" / "source" / "a").read_bytes() == b"second"
        assert (folder / first / "source" / "a").read_bytes() == b"one"
        with (folder / first / "source" / "a").open("rb") as held:
            program.edit_profile("home", {"retention": {"keep_last": 1}})
            program.run("prune", "home")
            assert sorted(os.listdir(folder)) == [second, "latest"]
            time.sleep(1.1)  # the kernel remembers a name for a second
            fails_with(errno.ENOENT, lambda: os.stat(folder / first / "source" / "a"))
            with contextlib.suppress(OSError):
                assert held.read() == b"one"
        assert (folder / "latest" / "source" / "a").read_bytes() == b"second"
        program.restore("home", tmp_path / "back")


# Beginning and ending.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_cleanly(backed_up: Farm, tmp_path: Path, number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("it is ignored here, as under nohup, and so it is by the program")
    folder = tmp_path / "mnt"
    process = start_mount(backed_up.program, "home", folder)
    process.send_signal(number)
    assert end_of(process) == (0, "", "")
    assert not is_mounted(folder)
    assert os.listdir(folder) == []


@pytest.mark.skipif(not shutil.which("fusermount"), reason="nobody is there to unmount")
def test_a_kill_leaves_no_dead_mount(backed_up: Farm, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    process = start_mount(backed_up.program, "home", folder)
    process.kill()
    process.communicate(timeout=20)
    deadline = time.monotonic() + 20
    while is_mounted(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(folder) == []


def test_a_script_gets_one_object_when_it_is_ready(backed_up: Farm, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    process = backed_up.program.start("mount", "home", folder, "--json")
    assert process.stdout is not None
    found = json.loads(process.stdout.readline())
    assert found == {"profile": "home", "mounted": str(folder)}
    assert os.listdir(folder) == [backed_up.snapshot, "latest"]
    unmount(folder)
    assert end_of(process) == (0, "", "")


def test_a_folder_that_is_not_empty_or_no_folder_is_refused(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    (source / "a").touch()
    program.init("home", [source], cartridges(1))
    for path, word in (
        (source, "not empty"),
        (source / "a", "no folder"),
        (tmp_path / "x", "such"),
    ):
        error = program.json("mount", "home", path, code=2)
        assert error["error"] == "UsageError"
        assert str(path) in error["message"]
        assert word in error["message"]
    assert program.json("mount", "nobody", tmp_path, code=2)["error"] == "ProfileMissing"


def test_what_is_missing_is_named_with_what_to_do(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    program.init("home", [source], cartridges(1))
    (tmp_path / "mnt").mkdir()
    without_it = tmp_path / "without"
    without_it.mkdir()
    for text, words in (
        ("raise ImportError", "pip install 'cartridge-backup[mount]'"),
        ("raise OSError('Unable to find libfuse')", "libfuse"),
    ):
        (without_it / "mfusepy.py").write_text(text, "utf-8")
        program.env["PYTHONPATH"] = f"{without_it}:{program.env['PYTHONPATH']}"
        error = program.json("mount", "home", tmp_path / "mnt", code=2)
        assert error["error"] == "UsageError"
        assert words in error["message"]


@pytest.mark.skipif(not may_everybody_mount(), reason="only root may open /dev/fuse here")
def test_a_user_mounts_too(as_nobody: Program, commons: Path) -> None:
    source, cartridge, folder = commons / "source", commons / "c1", commons / "mnt"
    for path in (source, cartridge, folder):
        path.mkdir()
    (source / "a").write_bytes(b"one")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "65534:65534", commons], check=True)
    as_nobody.init("home", [source], [cartridge])
    as_nobody.backup("home")
    process = start_mount(as_nobody, "home", folder)
    words = [*as_nobody.prefix, "cat", str(folder / "latest" / "source" / "a")]
    assert subprocess.run(words, check=True, capture_output=True).stdout == b"one"
    process.send_signal(signal.SIGTERM)
    assert end_of(process)[0] == 0
    assert not is_mounted(folder)


def test_a_mount_that_the_system_refuses_is_told(barred: Program, commons: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a folder of somebody else")
    folder = commons / "of root"
    folder.mkdir(mode=0o755)
    error = barred.json("mount", "home", folder, code=1)
    assert error["error"] == "MountFailed"
    assert str(folder) in error["message"]
    assert not is_mounted(folder)


def test_a_mount_that_lies_where_cartridges_are_looked_for_does_not_hang(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    small_tree(source)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.edit_profile("home", {"cartridges": {"search": [str(cartridge.parent / "*")]}})
    program.backup("home")
    with mounted(program, "home", cartridge.parent / "mnt"):
        assert_same_tree(source, cartridge.parent / "mnt" / "latest" / "source")
        assert program.run("verify", "home").returncode == 0


# Many entries.


@pytest.mark.night
def test_a_folder_among_a_million_entries_takes_little_time_and_memory(
    program: Program, tmp_path: Path
) -> None:
    store = make_profile(program.workspace)
    add_archives(store, 1_000_000, cartridges=1)
    days = [f"202601{day:02}T000000Z" for day in range(1, 29)]
    add_numbered(store, days[0], np.arange(1_000_000))
    for day in days[1:]:
        os.link(store.manifest_path(days[0]), store.manifest_path(day))
    folder = tmp_path / "mnt"
    with mounted(program, "home", folder) as process:
        pid = process.pid
        for day in days[:6]:
            assert len(os.listdir(folder / day / "s")) == 1000
            below = folder / day / "s" / "folder 00500"
            assert len([entry.stat() for entry in os.scandir(below)]) == 999
        text = Path(f"/proc/{pid}/status").read_text("ascii")
        used = int(next(ln for ln in text.splitlines() if ln.startswith("VmHWM")).split()[1])
    assert used < 300_000  # kB
