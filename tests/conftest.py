"""What tests are given: a fresh program, a source, cartridges, and volumes where root may mount."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.helpers.farm import Farm
from tests.helpers.luigid import Luigid
from tests.helpers.media import fill
from tests.helpers.program import NOBODY, REPOSITORY, Program
from tests.helpers.terminal import Terminal, terminals
from tests.helpers.trees import small_tree

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

MAKERS = {
    "ext2": ["mkfs.ext2", "-q", "-I", "128"],  # such inodes have whole seconds
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"],
    "exfat": ["mkfs.exfat"],
    "vfat": ["mkfs.vfat"],
}

MakeCartridges = Callable[[int], list[Path]]
MakeVolume = Callable[..., Path]
Home = tuple[Program, Path, Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with a fresh workspace."""
    return Program(tmp_path / "program")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty directory to back up, called `source`."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def cartridges(tmp_path: Path) -> MakeCartridges:
    """Makes n more empty directories in `media`, called c1, c2, and so on."""
    media = tmp_path / "media"
    media.mkdir()

    def make(number: int) -> list[Path]:
        first = len(list(media.iterdir())) + 1
        made = [media / f"c{index}" for index in range(first, first + number)]
        for folder in made:
            folder.mkdir()
        return made

    return make


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Home:
    """Back up a source of 50 small files and of 3 MB of random files onto one cartridge."""
    small_tree(source)
    fill(source / "big", files=6, size=500_000)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.backup("home")
    return program, source, cartridge


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """One backup that many tests look at; none may change it."""
    return Farm(tmp_path_factory.mktemp("farm"))


@pytest.fixture
def terminal(program: Program) -> Iterator[Terminal]:
    """Starts a command on a terminal of its own; whatever is still there at the end is killed."""
    with terminals(program) as start:
        yield start


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    """A luigid that is gone after the test."""
    scheduler = Luigid(tmp_path / "luigid")
    yield scheduler
    scheduler.stop()


@pytest.fixture
def needs_root() -> None:
    """Leave the test out where it does not run as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def commons() -> Iterator[Path]:
    """A directory that a user without rights can reach and owns; run `as_nobody` in it."""
    folder = Path(tempfile.mkdtemp(prefix="commons-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def as_nobody(commons: Path) -> Program:
    """The program in `commons`, run by a user who may not read everything."""
    program = Program(commons / "program")
    if os.geteuid() != 0:
        return program
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", commons], check=True)
    if not shutil.which("setpriv") or not _reaches_the_code(program.as_user()):
        pytest.skip("no other user can run the program from here")
    return program.as_user()


@pytest.fixture
def barred(as_nobody: Program, commons: Path) -> Program:
    """A profile `home` over three files, of which its user may not read `source/001.bin`."""
    source, cartridge = commons / "source", commons / "c1"
    for folder in (source, cartridge):
        folder.mkdir()
    for number in range(3):
        (source / f"{number:03}.bin").write_bytes(bytes([number]) * 1000)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", source, cartridge], check=True)
    (source / "001.bin").chmod(0)
    as_nobody.init("home", [source], [cartridge])
    return as_nobody


@pytest.fixture
def loop_volume(tmp_path: Path) -> Iterator[MakeVolume]:
    """Makes and mounts a file system of n MB: `loop_volume(64, kind="exfat", options="ro")`."""
    with contextlib.ExitStack() as undo:

        def make(megabytes: int, kind: str = "ext4", options: str = "") -> Path:
            number = len(list(tmp_path.glob("volume-*.img"))) + 1
            image = tmp_path / f"volume-{number}.img"
            target = tmp_path / f"volume-{number}"
            _format(image, megabytes, kind)
            target.mkdir()
            mount(image, target, kind, options)
            undo.callback(_unmount, target)
            return target

        yield make


def _reaches_the_code(program: Program) -> bool:
    checks = (
        ["test", "-r", str(REPOSITORY / "pipelines" / "__init__.py")],
        [sys.executable, "-c", "import pyarrow"],
    )
    return all(
        subprocess.run([*program.prefix, *check], check=False, capture_output=True).returncode == 0
        for check in checks
    )


def _format(image: Path, megabytes: int, kind: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if not shutil.which(MAKERS[kind][0]):
        pytest.skip(f"{MAKERS[kind][0]} is not installed")
    with image.open("wb") as file:
        file.truncate(megabytes * 1_000_000)
    subprocess.run([*MAKERS[kind], image], check=True, capture_output=True)


def mount(image: Path, target: Path, kind: str, options: str = "") -> None:
    """Mount a file system; the test is left out where this machine cannot."""
    loop = ",".join(filter(None, ["loop", options]))
    command: list[str | Path] = ["mount", "-t", kind, "-o", loop, image, target]
    if kind == "exfat" and (driver := shutil.which("mount.exfat-fuse")):
        with _loop_device(image) as device:  # kernels without exFAT are common
            command = [driver, "-o", options or "rw", device, target]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
    else:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.strip()}")


@contextlib.contextmanager
def _loop_device(image: Path) -> Iterator[str]:
    """Give a device for an image; it goes when nobody has it open any more."""
    show = ["losetup", "--find", "--show", image]
    device = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def _unmount(target: Path) -> None:
    plain = subprocess.run(["umount", target], check=False, capture_output=True)
    if plain.returncode != 0:  # a process still sits on it, or a test has unmounted it already
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)
