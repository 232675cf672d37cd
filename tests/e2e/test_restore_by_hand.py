"""restore.sh brings every snapshot back where there is no Python and nothing of ours."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests import strategies
from tests.conftest import MakeCartridges
from tests.e2e.test_any_sequence import PATIENT, Diary, Rounds
from tests.helpers.byhand import Stranger
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.damage import flip_a_bit
from tests.helpers.media import fill
from tests.helpers.processes import wait_for
from tests.helpers.program import NOBODY, Medium, Program
from tests.helpers.trees import MIB, funny_farm, small_tree, text_of

SHELLS = [
    "sh",
    pytest.param(
        "busybox",
        marks=pytest.mark.skipif(not shutil.which("busybox"), reason="there is no busybox"),
    ),
]


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    return Stranger.with_tools(tmp_path / "stranger")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[bytes, Facts], list[Path]]:
    """All odd things, backed up over several cartridges: what was there, and the cartridges."""
    base = tmp_path_factory.mktemp("farm")
    program, source = Program(base / "program"), base / "farm"
    media = [base / "media" / f"c{number}" for number in range(1, 4)]
    for folder in media:
        folder.mkdir(parents=True)
    funny_farm(source)
    fill(source / "filler", files=10, size=500_000)
    program.init("home", [source], media, capacity="5MB")
    assert len(program.backup("home")["cartridges"]) > 1
    return snapshot_of(source), [folder for folder in media if (folder / "restore.sh").exists()]


# ---- what comes back


@pytest.mark.parametrize("shell", ["sh", pytest.param("busybox", marks=pytest.mark.slow)])
def test_everything_odd_comes_back_exactly(
    farm: tuple[dict[bytes, Facts], list[Path]], shell: str, tmp_path: Path
) -> None:
    facts, media = farm
    stranger = Stranger.with_tools(tmp_path / "stranger", busybox=shell == "busybox")
    told = stranger.restore(media[-1], tmp_path / "out", *media)
    # Where cp knows nothing of attributes, a file put together from parts loses its holes.
    ignore = ["sparse"] if shell == "busybox" else []
    assert_same_tree(facts, tmp_path / "out" / "farm", ignore)
    assert told.stdout == ""
    assert os.listdir(tmp_path / "out") == ["farm"], "what the restore kept for itself is gone"


def test_a_user_without_rights_gets_all_but_owners_and_devices(
    farm: tuple[dict[bytes, Facts], list[Path]], commons: Path, needs_root: None
) -> None:
    facts, media = farm
    for folder in media:
        shutil.copytree(folder, commons / folder.name)
    stranger = Stranger.with_tools(commons / "stranger")
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", commons], check=True)
    out = commons / "out"
    copies = [commons / folder.name for folder in media]
    stranger.as_nobody().restore(copies[-1], out, *copies)
    expected = {p: f for p, f in facts.items() if f.kind not in ("char", "block")}
    found = snapshot_of(out / "farm")
    # Bits of an owner who is somebody else, and what a user's tar cannot do.
    special = {p for p in expected if expected[p].mode & 0o6000 or b"capable" in p}
    for path in {*special, b"xattrs/read only"}:
        expected.pop(path)
        found.pop(path)
    assert_same_tree(expected, found, ignore=["owner"])


def change_everything(source: Path) -> None:
    """Delete, move, copy, touch and rewrite what `before_changes` has made."""
    (source / "deleted.txt").unlink()
    (source / "letters").rename(source / "mail")
    shutil.copytree(source / "pictures", source / "copies", copy_function=shutil.copy)
    (source / "new mode.txt").chmod(0o600)
    os.utime(source / "touched.txt", ns=(5, 1_234_567_891))
    (source / "back.txt").write_bytes(b"second")
    with (source / "large.img").open("r+b") as file:
        file.seek(MIB)
        file.write(b"a change in the middle")
    (source / "sparse").rename(source / "moved sparse \udcff")
    (source / "a\nb \udcfe").rename(source / "c\nd \udcfd ")
    (source / "small" / "0001.txt").unlink()
    os.link(source / "kept.txt", source / "small" / "0001.txt")
    (source / "folder").rmdir()
    (source / "folder").write_text("now a file")


def before_changes(source: Path) -> None:
    for folder in ("letters", "pictures", "small"):
        small_tree(source / folder, files=10, seed=len(folder))
    (source / "folder").mkdir()
    for name in ("deleted.txt", "new mode.txt", "touched.txt", "kept.txt", "a\nb \udcfe"):
        (source / name).write_text(f"this is {name!r}")
    (source / "small" / "0001.txt").write_bytes(b"to be replaced by a link")
    (source / "back.txt").write_bytes(b"first")
    (source / "large.img").write_bytes(random.Random(1).randbytes(3 * MIB))
    os.truncate(source / "large.img", 4 * MIB)
    with (source / "sparse").open("wb") as file:
        file.truncate(2 * MIB)
        file.seek(MIB)
        file.write(text_of(100_000, random.Random(2)))


class History:
    """Five snapshots on one cartridge, and what each must bring back; a copy is pruned."""

    def __init__(self, base: Path) -> None:
        program, source = Program(base / "program"), base / "source"
        self.pruned, self.cartridge = base / "c1", base / "unpruned"
        for folder in (source, self.pruned):
            folder.mkdir()
        before_changes(source)
        program.init("home", [source], [self.pruned])
        program.edit_profile("home", {"archive": {"split_size": "1MiB"}})
        self.pages = {program.backup("home")["snapshot"]: snapshot_of(source)}
        change_everything(source)
        self.pages[program.backup("home")["snapshot"]] = snapshot_of(source)
        (source / "back.txt").write_bytes(b"first")
        (source / "mail" / "x").rename(source / "small" / "x again")
        (source / "large.img").rename(source / "copies" / "large")
        self.pages[program.backup("home")["snapshot"]] = snapshot_of(source)
        (source / "kept.txt").rename(source / "kept elsewhere.txt")  # nothing is stored for this
        self.pages[program.backup("home")["snapshot"]] = snapshot_of(source)
        (source / "new.txt").write_text("new")
        self.pages[program.backup("home")["snapshot"]] = snapshot_of(source)
        shutil.copytree(self.pruned, self.cartridge)
        program.edit_profile("home", {"retention": {"keep_last": 4}})
        program.json("prune", "home")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A history that many tests look at; none may change it."""
    return History(tmp_path_factory.mktemp("history"))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_snapshot_comes_back_whatever_was_deleted_moved_copied_or_changed(
    history: History, shell: str, tmp_path: Path
) -> None:
    stranger = Stranger.with_tools(tmp_path / "stranger", busybox=shell == "busybox")
    ignore = ["sparse"] if shell == "busybox" else []
    for snapshot, facts in history.pages.items():
        out = tmp_path / f"out {snapshot}"
        stranger.restore(history.cartridge, "--snapshot", snapshot, out)
        assert_same_tree(facts, out / "source", ignore)
    stranger.restore(history.cartridge, tmp_path / "newest")
    assert_same_tree(list(history.pages.values())[-1], tmp_path / "newest" / "source", ignore)


def test_snapshots_come_back_after_others_were_pruned(
    history: History, stranger: Stranger, tmp_path: Path
) -> None:
    gone, *kept = history.pages
    listed = stranger.restore(history.pruned, "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == kept
    stranger.restore(history.pruned, "--snapshot", gone, tmp_path / "none", code=2)
    for snapshot in kept:
        stranger.restore(history.pruned, "--snapshot", snapshot, tmp_path / snapshot)
        assert_same_tree(history.pages[snapshot], tmp_path / snapshot / "source")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pattern_brings_what_it_matches_with_its_folders(
    history: History, shell: str, tmp_path: Path
) -> None:
    stranger = Stranger.with_tools(tmp_path / "stranger", busybox=shell == "busybox")
    facts = list(history.pages.values())[-1]
    wanted: dict[str, Callable[[bytes], bool]] = {
        "source/mail": lambda p: p.startswith(b"mail"),
        "source/copies/*.txt": lambda p: p.startswith(b"copies/") and p.endswith(b".txt"),
        "source/c?d*": lambda p: p.startswith(b"c\nd"),
        "source/copies/large": lambda p: p == b"copies/large",
    }
    for number, (pattern, matches) in enumerate(wanted.items()):
        out = tmp_path / f"out-{number}"
        stranger.restore(history.cartridge, "--only", pattern, out)
        chosen = {path for path in facts if matches(path)}
        above = {p.rpartition(b"/")[0] for p in chosen} | {b""}
        above |= {p.rpartition(b"/")[0] for p in above}
        assert len(chosen) >= 1
        expected = {p: f for p, f in facts.items() if p in chosen | above}
        ignore = ["sparse"] if shell == "busybox" else []
        assert_same_tree(expected, out / "source", ignore)
    stranger.restore(history.cartridge, "--only", "nothing*", tmp_path / "none", code=2)


def test_a_hard_link_brings_the_file_that_it_is_a_link_to(
    history: History, stranger: Stranger, tmp_path: Path
) -> None:
    stranger.restore(history.cartridge, "--only", "source/small/0001.txt", tmp_path / "out")
    facts = list(history.pages.values())[-1]
    names = (b"", b"kept elsewhere.txt", b"small", b"small/0001.txt")
    assert_same_tree({name: facts[name] for name in names}, tmp_path / "out" / "source")


def test_a_hard_link_brings_a_file_that_is_stored_in_parts(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    (source / "links").mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(3_000_000))
    os.link(source / "large", source / "links" / "again")
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.edit_profile("home", {"archive": {"split_size": "1MiB"}})
    program.backup("home")
    stranger = Stranger.with_tools(tmp_path / "stranger")
    stranger.restore(cartridge, "--only", "source/links/again", tmp_path / "out")
    assert (tmp_path / "out" / "source" / "links" / "again").stat().st_nlink == 2
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_cartridge_of_another_set_is_refused(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    """Its snapshots are newer, and of something else."""
    mine, other = cartridges(2)
    (source / "file").write_text("mine")
    for name, cartridge in (("home", mine), ("office", other)):
        program.init(name, [source], [cartridge])
        program.backup(name)
    stranger = Stranger.with_tools(tmp_path / "stranger")
    told = stranger.restore(mine, tmp_path / "out", other, code=2).stderr
    assert "office" in told
    assert not (tmp_path / "out").exists()


# ---- several cartridges


Spread = tuple[dict[bytes, Facts], list[Path]]


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """Small files and one in parts, on three cartridges or more; no test may change them."""
    base = tmp_path_factory.mktemp("spread")
    program, source = Program(base / "program"), base / "source"
    media = [base / "media" / f"c{number}" for number in range(1, 7)]
    for folder in media:
        folder.mkdir(parents=True)
    small_tree(source, files=20)
    fill(source / "big", files=8, size=300_000)
    (source / "large.img").write_bytes(random.Random(3).randbytes(3 * MIB))
    program.init("home", [source], media, capacity="2MB")
    program.backup("home")
    written = [folder for folder in media if (folder / "restore.sh").exists()]
    assert len(written) >= 3
    return snapshot_of(source), sorted(written, key=serial_of)


def serial_of(cartridge: Path) -> int:
    return int(Medium(path=cartridge).label["serial"])


def test_cartridges_are_asked_for_by_label_once_each_and_taken_in_any_order(
    spread: Spread, stranger: Stranger, tmp_path: Path
) -> None:
    facts, media = spread
    *others, last = media
    order = [others[-1], last, *others[:-1]]
    answers = "".join(f"{folder}\n" for folder in order)
    told = stranger.restore(last, tmp_path / "out", answers=answers)
    assert_same_tree(facts, tmp_path / "out" / "source")
    assert f"Insert home {serial_of(others[0])}" in told.stderr
    assert "is not needed any more" in told.stderr
    assert told.stderr.count("Insert") == len(order)


def test_without_a_cartridge_the_rest_comes_back_and_what_lacks_is_listed(
    spread: Spread, stranger: Stranger, tmp_path: Path
) -> None:
    facts, media = spread
    *others, last = media
    missing = others[1]
    rest = [folder for folder in others if folder != missing]
    out = tmp_path / "out"
    told = stranger.restore(last, out, *rest, answers="none\n", code=4)
    found = snapshot_of(out / "source")
    lost = {p.removeprefix("missing: source/").encode() for p in told.stdout.splitlines()}
    assert len(lost) == len(told.stdout.splitlines())  # though its parts lie in many archives
    assert b"large.img" in lost
    assert_same_tree({p: f for p, f in facts.items() if p not in lost}, found)

    stranger.restore(last, out, missing)  # found after all; nothing else is asked for
    assert_same_tree(facts, out / "source")


def test_a_damaged_archive_is_named_and_all_else_comes_back(
    spread: Spread, stranger: Stranger, tmp_path: Path
) -> None:
    facts, media = spread
    first = tmp_path / "c1"
    shutil.copytree(media[0], first)
    archive = Medium(path=first).archives[0]
    flip_a_bit(archive, random.Random(1))
    told = stranger.restore(media[-1], tmp_path / "out", first, *media[1:], code=5)
    assert archive.name in told.stderr
    lost = {p.removeprefix("damaged: source/").encode() for p in told.stdout.splitlines()}
    assert lost
    expected = {p: f for p, f in facts.items() if p not in lost}
    assert_same_tree(expected, tmp_path / "out" / "source")


def test_a_killed_restore_goes_on_where_it_was(
    spread: Spread, stranger: Stranger, tmp_path: Path
) -> None:
    facts, media = spread
    last, *others = reversed(media)
    out = tmp_path / "out"
    finished = out / ".cartridge-restore" / "finished"
    process = stranger.start(last, out, *others)
    assert wait_for(finished.exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = finished.read_text().split()
    told = stranger.restore(last, out, *others)
    assert "going on" in told.stderr
    assert told.stderr.count(": archive ") <= sum(
        len(Medium(path=folder).archives) for folder in media
    ) - len(done)
    assert_same_tree(facts, out / "source")


def test_the_cartridge_with_the_script_may_be_taken_away(
    spread: Spread, stranger: Stranger, tmp_path: Path
) -> None:
    _, media = spread
    last = media[-1]
    process = stranger.start(last, tmp_path / "out")
    process.communicate(timeout=60)
    assert process.returncode == 4
    copy = tmp_path / "out" / ".cartridge-restore" / "restore.sh"
    assert copy.read_bytes() == (last / "restore.sh").read_bytes()


# ---- being a script


def test_the_script_is_clean_in_the_eyes_of_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("there is no shellcheck")
    script = Path(__file__).parents[2] / "tasks" / "formats" / "restore.sh"
    done = subprocess.run(["shellcheck", "-s", "sh", script], check=False, capture_output=True)
    assert done.stdout.decode() == ""


def test_wrong_words_are_told(history: History, stranger: Stranger) -> None:
    stranger.restore(history.cartridge, code=2)
    stranger.restore(history.cartridge, "--nonsense", "out", code=2)
    stranger.restore(history.cartridge, "--only", code=2)
    late = stranger.restore(history.cartridge, "out", "--snapshot", "20260101T000000Z", code=2)
    assert "options go before DEST" in late.stderr
    assert not (stranger.folder / "out").exists()
    mistyped = stranger.restore(history.cartridge, stranger.folder / "there", "/no/such/disk")
    assert "no cartridge at /no/such/disk" in mistyped.stderr
    assert "--only PATTERN" in stranger.restore(history.cartridge, "--help").stdout


def test_a_damaged_recipe_is_not_used(history: History, stranger: Stranger, tmp_path: Path) -> None:
    cartridge = tmp_path / "c1"
    shutil.copytree(history.cartridge, cartridge)
    recipe = cartridge / "catalog" / "recipes" / f"{max(history.pages)}.tar.lz4"
    flip_a_bit(recipe, random.Random(1))
    told = stranger.restore(cartridge, tmp_path / "out", code=5)
    assert "damaged" in told.stderr
    stranger.restore(cartridge, tmp_path / "out", history.cartridge)  # it has a sound one


def test_a_newer_snapshot_of_which_only_a_part_is_here_is_told_of(
    history: History, stranger: Stranger, tmp_path: Path
) -> None:
    cartridge = tmp_path / "c1"
    shutil.copytree(history.cartridge, cartridge)
    *_, older, newest = history.pages
    (cartridge / "catalog" / "recipes" / f"{newest}.tar.lz4").unlink()
    told = stranger.restore(cartridge, tmp_path / "out")
    assert f"newer snapshot, {newest}" in told.stderr
    assert_same_tree(history.pages[older], tmp_path / "out" / "source")


class HandDiary(Diary):
    """Checks what restore.sh makes of each snapshot."""

    def check(self) -> None:
        stranger = Stranger.with_tools(self.directory / "stranger")
        for snapshot, facts in self.pages.items():
            out = self.directory / f"out-{snapshot}"
            stranger.restore(self.directory / "c1", "--snapshot", snapshot, out)
            assert_same_tree(facts, out / "source")


@pytest.mark.night
@hypothesis.settings(max_examples=15, suppress_health_check=PATIENT)
@hypothesis.given(tree=strategies.trees(), rounds=strategies.change_sequences())
def test_every_snapshot_of_any_history_comes_back(tree: strategies.Tree, rounds: Rounds) -> None:
    with tempfile.TemporaryDirectory(prefix="diary-") as directory:
        diary = HandDiary(Path(directory))
        diary.begin(tree)
        past: strategies.Past = {}
        for changes in rounds:
            for change in changes:
                hypothesis.note(strategies.apply_change(diary.source, change, past))
            diary.back_up()
        diary.check()
