"""Whatever damage a cartridge takes is found and named, and what is not damaged comes back."""

import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers import forked
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.damage import (
    DAMAGES,
    Damage,
    delete,
    empty,
    flip_a_bit,
    put_back,
    swap,
    truncate,
    truncate_to_lines,
    zero_a_block,
)
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import small_tree

LABEL = "CARTRIDGE.json"
SUMS = "SHA256SUMS"
LISTS = ("journal.jsonl", "README.txt", "catalog/archives.parquet", "catalog/cartridges.parquet")


class Home(NamedTuple):
    """Two snapshots on two cartridges; the first cartridge has archives of both."""

    program: Program
    source: Path
    first: Path
    second: Path
    expected: dict[bytes, Facts]
    snapshots: list[str]

    def archives(self, snapshot: int) -> list[Path]:
        return sorted((self.first / "archives" / self.snapshots[snapshot]).iterdir())

    def verify(self, what: str | Path, *codes: int) -> dict[str, list[str]]:
        """Return the damaged files by cartridge; at least one of the exit codes has to come."""
        found = forked.json_of(self.program, "verify", str(what), code=codes or (0, 5))
        return {str(c["serial"]): c["damaged"] for c in found.get("cartridges", ())}

    def restore(self, out: Path, *codes: int) -> dict[str, Any]:
        found: dict[str, Any] = forked.json_of(self.program, "restore", "home", out, code=codes)
        return found


def make_home(folder: Path) -> Home:
    program, source = Program(folder / "program"), folder / "source"
    source.mkdir()
    small_tree(source, files=40)
    fill(source / "early", files=4, size=300_000)
    cartridges = [folder / "c1", folder / "c2"]
    program.init("home", [source], cartridges, capacity="4500kB")
    snapshots = [program.backup("home")["snapshot"]]
    fill(source / "late", files=14, size=250_000, seed=2)
    outcome = program.backup("home")
    assert outcome["cartridges"] == [1, 2]
    snapshots.append(outcome["snapshot"])
    home = Home(program, source, *cartridges, snapshot_of(source), snapshots)
    assert home.verify("home", 0) == {"1": [], "2": []}
    return home


@pytest.fixture(scope="module")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("damage"))


@pytest.fixture
def home(home_of_all: Home) -> Iterator[Home]:
    """The same for all tests of this module; cartridges are put back after each."""
    with put_back(home_of_all.first, home_of_all.second):
        yield home_of_all


def files_of(home: Home) -> dict[str, Path]:
    """One file of each kind on the first cartridge."""
    newest = sorted((home.first / "catalog" / "manifests").iterdir())[-1]
    return {
        **{name: home.first / name for name in (LABEL, SUMS, *LISTS)},
        "manifest": newest,
        "an old archive": home.archives(0)[-1],
        "a new archive": home.archives(1)[0],
    }


def luck(*words: object) -> random.Random:
    """Chance that is the same in every run of the tests."""
    return random.Random(zlib.crc32(repr(words).encode()))


def every(kinds: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds)


each_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))


def names(home: Home, files: list[Path]) -> set[str]:
    return {str(file.relative_to(home.first)) for file in files}


# ---- found and named


@each_damage
@every(("README.txt", *LISTS[2:], "manifest", "an old archive", "a new archive"))
def test_verify_finds_every_damage_and_names_the_file(
    home: Home, kind: str, damage: Damage
) -> None:
    hit = damage(files_of(home)[kind], luck(kind, damage.__name__))
    by_name = home.verify("home", 5)
    assert names(home, hit) <= {*by_name["1"]}
    assert by_name["2"] == []
    assert names(home, hit) <= {*home.verify(home.first, 5)["1"]}


@pytest.mark.parametrize(
    "damage",
    [pytest.param(damage, id=name) for name, damage in DAMAGES.items()],
)
def test_verify_finds_a_damaged_journal(home: Home, damage: Damage) -> None:
    hit = damage(home.first / "journal.jsonl", luck("journal", damage.__name__))
    for what in ("home", home.first):
        assert names(home, hit) <= {*home.verify(what, 5)["1"]}


@pytest.mark.night
@pytest.mark.parametrize("seed", range(60))
@every((*LISTS, "manifest", "an old archive"))
def test_verify_finds_damage_wherever_it_is(home: Home, kind: str, seed: int) -> None:
    chance = luck(kind, seed)
    damage = chance.choice([flip_a_bit, zero_a_block, DAMAGES["cut"]])
    hit = damage(files_of(home)[kind], chance)
    assert names(home, hit) <= {*home.verify("home", 5)["1"]}
    assert names(home, hit) <= {*home.verify(home.first, 5)["1"]}


@each_damage
def test_a_damaged_label_is_damage_and_not_a_cartridge_that_is_away(
    home: Home, damage: Damage
) -> None:
    """The cartridge is at its known place; who it is, or was, the catalog knows."""
    damage(home.first / LABEL, luck("label", damage.__name__))
    for what in ("home", home.first):
        found = forked.run(home.program, "verify", "--json", str(what))
        assert found.code == 5, found.out
        assert LABEL in found.out


@pytest.mark.night
def test_a_bit_anywhere_in_a_label_is_found(home: Home) -> None:
    sound = (home.first / LABEL).read_bytes()
    for seed in range(60):
        (home.first / LABEL).write_bytes(sound)
        flip_a_bit(home.first / LABEL, luck("label", seed))
        for what in ("home", home.first):
            found = forked.run(home.program, "verify", "--json", str(what))
            assert found.code == 5, found.out
            assert LABEL in found.out


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip_a_bit, id="bit"),
        pytest.param(zero_a_block, id="block"),
        pytest.param(truncate, id="cut"),
        pytest.param(swap, id="swapped"),
        pytest.param(empty, id="empty"),
        pytest.param(delete, id="gone"),
        pytest.param(truncate_to_lines, id="cut to lines"),
    ],
)
def test_a_damaged_list_of_sums_is_found(home: Home, damage: Damage) -> None:
    """Which of a line and its file is wrong cannot always be told: either name will do."""
    damage(home.first / SUMS, luck("sums", damage.__name__))
    for what in ("home", home.first):
        assert home.verify(what, 5)["1"]


@pytest.mark.night
def test_a_bit_anywhere_in_the_list_of_sums_is_found(home: Home) -> None:
    sound = (home.first / SUMS).read_bytes()
    for seed in range(60):
        (home.first / SUMS).write_bytes(sound)
        flip_a_bit(home.first / SUMS, luck("sums", seed))
        for what in ("home", home.first):
            assert home.verify(what, 5)["1"]


def test_several_damages_are_all_named(home: Home) -> None:
    """A list that is broken hides nothing of what else is."""
    files = files_of(home)
    hit = [files[kind] for kind in ("an old archive", "a new archive", "README.txt", "manifest")]
    for file in hit:
        flip_a_bit(file, luck(file.name))
    assert names(home, hit) == {*home.verify("home", 5)["1"]}


@pytest.mark.parametrize("broken", ["journal.jsonl", SUMS])
def test_a_list_that_is_broken_hides_no_damaged_archive(home: Home, broken: str) -> None:
    archive = files_of(home)["an old archive"]
    flip_a_bit(archive, luck("archive"))
    (home.first / broken).write_bytes(b"nonsense\n")
    for what in ("home", home.first):
        assert names(home, [archive]) <= {*home.verify(what, 5)["1"]}


def test_an_archive_that_is_read_again_is_read_from_the_medium(home: Home) -> None:
    """A sound verify before does not make the next one sound."""
    assert home.verify("home", 0)["1"] == []
    hit = flip_a_bit(home.archives(0)[0], luck("again"))
    assert names(home, hit) <= {*home.verify("home", 5)["1"]}


# ---- restored


def assert_all_else_is_right(home: Home, out: Path, damaged: list[str]) -> None:
    """What is listed is not there; all else is, exactly."""
    listed = {path.removeprefix("source/").encode() for path in damaged}
    assert listed <= home.expected.keys()
    left = {path: facts for path, facts in home.expected.items() if path not in listed}
    assert_same_tree(left, out / "source")


@each_damage
@every(("an old archive", "a new archive"))
def test_a_restore_brings_back_all_that_is_not_damaged(
    home: Home, tmp_path: Path, kind: str, damage: Damage
) -> None:
    damage(files_of(home)[kind], luck(kind, damage.__name__))
    found = home.restore(tmp_path / "out", 5)
    assert found["damaged"]
    assert found["error"] == "DamageFound"
    assert_all_else_is_right(home, tmp_path / "out", found["damaged"])


@pytest.mark.night
@pytest.mark.parametrize("seed", range(100))
def test_no_damage_gets_a_wrong_byte_into_a_restore(home: Home, tmp_path: Path, seed: int) -> None:
    """One to three archives of any cartridge take any damage."""
    chance = luck("restore", seed)
    archives = Medium(path=home.first).archives + Medium(path=home.second).archives
    for file in chance.sample(archives, chance.randrange(1, 4)):
        if file.exists() and file.stat().st_size:
            chance.choice(list(DAMAGES.values()))(file, chance)
    found = home.restore(tmp_path / "out", 0, 5)
    assert bool(found["damaged"]) == ("error" in found)
    assert_all_else_is_right(home, tmp_path / "out", found["damaged"])


@each_damage
@every((SUMS, *LISTS, "manifest"))
def test_lists_that_are_damaged_keep_nothing_from_being_restored(
    home: Home, tmp_path: Path, kind: str, damage: Damage
) -> None:
    """The workspace knows what lies where; an archive proves itself by its contents' sums."""
    hit = damage(files_of(home)[kind], luck(kind, damage.__name__))
    codes = (0, 5) if any(".tar" in file.name or file.name == LABEL for file in hit) else (0,)
    found = home.restore(tmp_path / "out", *codes)
    assert_all_else_is_right(home, tmp_path / "out", found["damaged"])


@each_damage
def test_a_damaged_label_does_not_make_its_files_missing(
    home: Home, tmp_path: Path, damage: Damage
) -> None:
    """The archives are there: they come back, or are called damaged, but not asked for."""
    damage(home.first / LABEL, luck("label", damage.__name__))
    found = home.restore(tmp_path / "out", 0, 5)
    assert_all_else_is_right(home, tmp_path / "out", found["damaged"])


def test_a_part_of_a_large_file_that_is_damaged_takes_only_that_file(
    program: Program, source: Path, cartridges: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    chance = random.Random(1)
    (source / "disk.img").write_bytes(chance.randbytes(6_000_000))
    (source / "link.img").hardlink_to(source / "disk.img")
    (source / "copy.img").write_bytes((source / "disk.img").read_bytes())
    fill(source / "small", files=10, size=20_000)
    folders = cartridges(3)
    program.init("home", [source], folders, capacity="4MB")
    program.backup("home")
    first = Medium(path=folders[0]).archives[0]
    first.write_bytes(bytes(first.stat().st_size))
    found = program.restore("home", tmp_path / "out", code=5)
    expected = snapshot_of(source)
    lost = {path.removeprefix("source/").encode() for path in found["damaged"]}
    assert {b"disk.img", b"link.img", b"copy.img"} <= lost
    left = {path: facts for path, facts in expected.items() if path not in lost}
    assert_same_tree(left, tmp_path / "out" / "source")


# ---- a medium that lies


def test_an_old_archive_that_a_new_run_overwrote_is_found(
    program: Program, source: Path, cartridges: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    """As sticks of a false size do: what is written last is right, what lay there before is not.

    The next run reads old archives back too: it sets the cartridge aside, and wants another.
    """
    small_tree(source, files=20)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    program.backup("home")
    [old] = Medium(path=cartridge).archives
    zero_a_block(old, luck("lies"))
    fill(source / "new", files=3, size=100_000)
    told = program.run("backup", "home", code=4).stderr
    assert old.name in told
    (row,) = program.json("cartridges", "home")["cartridges"]
    assert row["state"] == "suspect"
    found = program.json("verify", "home", code=5)
    [report] = found["cartridges"]
    assert report["damaged"] == [str(old.relative_to(cartridge))]
    restored = program.restore("home", tmp_path / "out", code=5)
    for path in restored["damaged"]:
        assert not (tmp_path / "out" / path).exists()


def test_a_cartridge_that_was_never_sealed_is_verified_all_the_same(home: Home) -> None:
    """A run that was stopped while it wrote has left archives, and sums that are older."""
    (home.first / SUMS).unlink()
    hit = flip_a_bit(home.archives(1)[0], luck("unsealed"))
    assert names(home, hit) <= {*home.verify(home.first, 5)["1"]}


def test_an_empty_file_is_no_archive(home: Home, tmp_path: Path) -> None:
    for archive in Medium(path=home.first).archives:
        empty(archive, luck())
    found = home.restore(tmp_path / "out", 5)
    assert_all_else_is_right(home, tmp_path / "out", found["damaged"])
    assert found["cartridges"] == [1, 2]
