"""A lost workspace comes back from cartridges alone, and says what does not come with it."""

import json
import os
import random
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.catalog.contents import CONTENTS
from tasks.catalog.relisted import stored_by
from tasks.catalog.store import Store
from tasks.recover import recover
from tests.helpers import forked, processes
from tests.helpers.compare import Facts, assert_same_tree, snapshot_of
from tests.helpers.damage import delete, flip_a_bit, truncate
from tests.helpers.media import check_cartridge, fill
from tests.helpers.program import Medium, Program

MakeCartridges = Callable[[int], list[Path]]
CAPACITY = "1100kB"
DAMAGES = {"bit": flip_a_bit, "cut": truncate, "gone": delete}
SECRETS = ("s3cret", "hunter2", "pa55")


class Home:
    """Three snapshots on three cartridges, and a program whose workspace is empty."""

    def __init__(self, folder: Path, made: "Home | None" = None) -> None:
        self.program = Program(folder / "program")
        self.media = [folder / f"c{number}" for number in (1, 2, 3)]
        self.source = made.source if made else folder / "source"
        self.trees: dict[str, dict[bytes, Facts]] = made.trees if made else {}
        self.stored: dict[str, set[tuple[str, ...]]] = made.stored if made else {}
        if made:
            for mine, theirs in zip(self.media, made.media, strict=True):
                subprocess.run(["cp", "-a", theirs, mine], check=True)

    @classmethod
    def made(cls, folder: Path) -> "Home":
        """Back up three times: data on two cartridges, a file's mode alone, data again."""
        home = cls(folder)
        fill(home.source, files=5, size=240_000)
        (home.source / "z twin").write_bytes((home.source / "000.bin").read_bytes())
        (home.source / "link").symlink_to("000.bin")
        (home.source / "empty").mkdir()
        with (home.source / "sparse").open("wb") as file:
            file.truncate(1_000_000)
            file.write(b"data")
        home.program.init("home", [home.source], home.media, capacity=CAPACITY)
        home.program.edit_profile("home", {"archive": {"split_size": "64KiB"}})
        for change in (lambda: None, home.change_mode, home.add):
            change()
            snapshot = home.program.backup("home")["snapshot"]
            home.trees[snapshot] = snapshot_of(home.source)
        home.stored = home.contents()
        kept = folder / "kept"  # nothing lies any more where the profile looks for cartridges
        kept.mkdir()
        home.media = [media.rename(kept / media.name) for media in home.media]
        shutil.rmtree(home.program.workspace)
        home.program.workspace.mkdir()
        return home

    def change_mode(self) -> None:
        (self.source / "001.bin").chmod(0o600)

    def add(self) -> None:
        fill(self.source / "later", files=3, size=240_000, seed=2)

    @property
    def snapshots(self) -> list[str]:
        return sorted(self.trees)

    def recover(self, *media: Path, code: int = 0) -> dict[str, Any]:
        return self.json("recover", *(media or self.media), code=code)

    def json(self, command: str, *args: Any, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = forked.json_of(self.program, command, *args, code=[code])
        return found

    def contents(self) -> dict[str, set[tuple[str, ...]]]:
        """Return what the workspace knows of the contents that each snapshot stored."""
        store = Store(str(self.program.catalog("home")))
        return {snapshot: _stored_by(store, snapshot) for snapshot in store.stored_snapshots()}

    def knows_all_contents(self) -> bool:
        """Whether the workspace knows where each content lies that it knew of before."""
        found = self.contents()
        return found.keys() == self.stored.keys() and all(
            found[snapshot] <= known and _digests(found[snapshot]) == _digests(known)
            for snapshot, known in self.stored.items()
        )

    def restores(self, snapshot: str, out: Path) -> None:
        self.json("restore", "home", out, "--snapshot", snapshot)
        assert_same_tree(self.trees[snapshot], out / "source")


def _digests(contents: set[tuple[str, ...]]) -> set[str]:
    return {digest for digest, *_ in contents}


def _stored_by(store: Store, snapshot: str) -> set[tuple[str, ...]]:
    found = stored_by(store, snapshot, CONTENTS.names)
    return {tuple(map(repr, row.values())) for batch in found for row in batch.to_pylist()}


@pytest.fixture(scope="module")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.made(tmp_path_factory.mktemp("recover"))


@pytest.fixture
def home(home_of_all: Home, tmp_path: Path) -> Home:
    return Home(tmp_path, home_of_all)


# ---- from all cartridges


def test_everything_comes_back_and_nothing_has_changed(home: Home, tmp_path: Path) -> None:
    told = home.recover()
    assert told["profile"] == "home"
    assert told["snapshots"] == home.snapshots == home.program.snapshots("home")
    assert told["missing"] == {"snapshots": [], "cartridges": []}
    assert told["damaged"] == []
    assert home.knows_all_contents()
    for number, snapshot in enumerate(home.snapshots):
        home.restores(snapshot, tmp_path / f"out-{number}")
    assert home.program.backup("home")["status"] == "unchanged"
    assert not list(home.program.workspace.rglob("recovering"))


def test_the_next_backup_goes_on_with_the_newest_cartridge_and_stores_nothing_twice(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    media = cartridges(3)
    fill(source, files=5, size=240_000)
    program.init("home", [source], media, capacity=CAPACITY)
    program.backup("home")
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    assert program.run("recover", *media).stderr == ""
    shutil.copy(source / "000.bin", source / "copy.bin")
    os.utime(source / "001.bin", (1, 1))
    (source / "new.txt").write_text("new")
    told = program.backup("home")
    assert (told["status"], told["cartridges"]) == ("complete", [2])
    assert (told["added"], told["metadata"]) == (2, 1)
    assert told["bytes_stored"] < 5000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")
    for folder in media[:2]:
        check_cartridge(folder)


def test_a_snapshot_of_metadata_alone_stays_on_cartridges(home: Home) -> None:
    """It has no archive anywhere; the next snapshot must not take its manifest away."""
    _, middle, _ = home.snapshots
    assert any(Medium(path=folder).manifest(middle).exists() for folder in home.media)


# ---- from some of them


def test_what_is_not_given_is_named_and_stays_known(home: Home, tmp_path: Path) -> None:
    told = home.recover(*home.media[1:])
    assert told["snapshots"] == home.snapshots
    assert told["missing"] == {"snapshots": [], "cartridges": ["home 1"]}
    first, *others = home.json("cartridges", "home")["cartridges"]
    assert (first["present"], [row["present"] for row in others]) == (False, [True, True])
    lacking = home.json("restore", "home", tmp_path / "out", code=4)
    assert "home 1" in lacking["message"]
    assert lacking["files"] > 0
    assert home.program.backup("home")["status"] == "unchanged"


def test_the_oldest_cartridge_alone_has_what_it_had_then(home: Home) -> None:
    told = home.recover(home.media[0])
    assert set(told["snapshots"]) <= set(home.snapshots)
    assert told["missing"]["cartridges"] == ["home 2"]


# ---- damage


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["archives", "cartridges", "manifests", "profile", "all"])
def test_a_damaged_catalog_gives_way_to_another_copy(
    home: Home, damage: str, name: str, tmp_path: Path
) -> None:
    newest = home.media[2]
    files = [p for p in sorted(newest.rglob("catalog/**/*")) if p.is_file()]
    hit = [p for p in files if name == "all" or name in str(p.relative_to(newest))]
    for file in hit:
        DAMAGES[damage](file, random.Random(7))
    told = home.recover(code=5)
    named = {f"home 3: {file.relative_to(newest)}" for file in hit}
    assert named <= {*told["damaged"]}
    assert told["error"] == "DamageFound"
    assert told["snapshots"] == home.snapshots
    assert home.knows_all_contents()
    home.restores(home.snapshots[-1], tmp_path / "out")


def test_a_damaged_label_is_made_again_from_the_catalog(home: Home, tmp_path: Path) -> None:
    (home.media[2] / "CARTRIDGE.json").write_text("{}")
    told = home.recover(code=5)
    assert told["damaged"] == ["home 3: CARTRIDGE.json"]
    assert told["snapshots"] == home.snapshots
    home.restores(home.snapshots[-1], tmp_path / "out")


def test_a_damaged_journal_does_not_hide_archives(home: Home, tmp_path: Path) -> None:
    (home.media[0] / "journal.jsonl").write_text("nonsense\n")
    told = home.recover(code=5)
    assert "home 1: journal.jsonl" in told["damaged"]
    home.restores(home.snapshots[-1], tmp_path / "out")


@pytest.mark.parametrize("left", ["tables", "nothing"])
def test_without_any_manifest_the_archives_are_read(home: Home, left: str, tmp_path: Path) -> None:
    for folder in home.media:
        shutil.rmtree(folder / "catalog" / ("manifests" if left == "tables" else ""))
    told = home.recover(code=5)
    assert told["from_archives"]
    assert told["snapshots"] == home.snapshots[-1:]
    home.program.restore("home", tmp_path / "out")
    found, wanted = (_files(folder) for folder in (tmp_path / "out" / "source", home.source))
    assert found.items() <= wanted.items()
    assert wanted.keys() - found.keys() == {"z twin"}  # its content lies under another name
    if left == "nothing":
        assert told["fill_in"] == {"source": "/path/of/source"}
        path = str(home.source)
        home.program.edit_profile(
            "home", {"source": [{"path": path}], "archive": {"split_size": "64KiB"}}
        )
    again = home.program.backup("home")
    assert again["bytes_stored"] < 5000, "what lies on the cartridges was stored again"
    home.program.restore("home", tmp_path / "out again")
    assert_same_tree(home.source, tmp_path / "out again" / "source")


def _files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ---- what older versions wrote, and what was unfinished


def test_cartridges_of_older_versions_give_a_profile_to_fill_in(home: Home) -> None:
    for folder in home.media:
        for name in ("profile.toml", "snapshots.json"):
            (folder / "catalog" / name).unlink()
        lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
        kept = [x for x in lines if "profile.toml" not in x and "snapshots.json" not in x]
        (folder / "SHA256SUMS").write_text("".join(kept))
    done = home.program.run("recover", *home.media)
    assert "Fill in the folder of the source 'source'" in done.stdout
    assert home.program.snapshots("home") == home.snapshots
    told = home.program.backup("home", code=1)
    assert told["error"] == "SourceMissing"
    home.program.edit_profile("home", {"source": [{"path": str(home.source)}]})
    assert home.program.backup("home")["status"] == "unchanged"


@pytest.mark.slow
def test_an_unfinished_run_is_no_snapshot_and_is_not_stored_again(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    [first] = cartridges(1)
    fill(source, files=2, size=200_000)
    program.init("home", [source], [first], capacity=CAPACITY)
    whole = program.backup("home")["snapshot"]
    fill(source / "more", files=6, size=200_000, seed=2)
    unfinished = program.backup("home", code=4)["snapshot"]
    written = sum(path.stat().st_size for path in Medium(path=first).archives)
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    told = program.json("recover", first)
    assert told["snapshots"] == [whole]
    assert told["missing"]["snapshots"] == [unfinished]
    [second] = cartridges(1)
    program.run("label", second, "--set", "home")
    program.edit_profile("home", {"cartridges": {"capacity": "3MB"}})
    stored = program.backup("home")["bytes_stored"]
    assert stored < 1_600_000 - written + 50_000
    program.restore("home", tmp_path / "out")
    assert_same_tree(source, tmp_path / "out" / "source")


def test_a_part_of_the_only_run_is_better_than_nothing(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    [first] = cartridges(1)
    fill(source, files=8, size=200_000)
    program.init("home", [source], [first], capacity=CAPACITY)
    snapshot = program.backup("home", code=4)["snapshot"]
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    assert program.json("recover", first)["snapshots"] == [snapshot]
    lacking = program.restore("home", tmp_path / "out", code=None)  # 0 where no more was packed
    assert not lacking["complete"]
    found = {
        name: content
        for name, content in _files(tmp_path / "out" / "source").items()
        if not name.startswith(".cartridge-part-")
    }
    assert len(lacking.get("missing", [])) + len(found) < 8
    assert len(found) > 0
    assert found.items() <= _files(source).items()


@pytest.mark.slow
def test_what_was_pruned_does_not_come_back(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    """The first cartridge was away when its snapshot was pruned, and still has its manifest."""
    media = cartridges(2)
    fill(source, files=3, size=240_000)
    program.init("home", [source], media, capacity=CAPACITY)
    program.edit_profile("home", {"retention": {"keep_last": 1}})
    old = program.backup("home")["snapshot"]
    away = media[0].parent.with_name("away")
    shutil.move(media[0], away)
    program.json("lost", "home", "1")
    (source / "000.bin").unlink()
    program.backup("home")
    (source / "new.txt").write_text("new")
    new = program.backup("home")["snapshot"]
    shutil.move(away, media[0])
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    told = program.json("recover", *media)
    assert (told["snapshots"], told["missing"]["snapshots"]) == ([new], [])
    assert Medium(path=media[0]).manifest(old).exists()


# ---- refusals


def test_cartridges_of_two_sets_are_refused_by_name(home: Home, tmp_path: Path) -> None:
    other = Program(tmp_path / "other")
    other.init("office", [home.source], [tmp_path / "o1"])
    told = home.recover(home.media[0], tmp_path / "o1", code=1)
    assert told["error"] == "WrongCartridge"
    assert all(word in told["message"] for word in ("office 1", "home 1", "'home'", "'office'"))
    assert not list(home.program.workspace.rglob("*.toml"))


def test_a_clone_is_refused(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.media[0], tmp_path / "clone")
    told = home.recover(home.media[0], tmp_path / "clone", code=1)
    assert (told["error"], "same UUID" in told["message"]) == ("WrongCartridge", True)
    assert home.recover(*home.media, home.media[0])["snapshots"] == home.snapshots


def test_another_cartridge_of_the_same_number_is_refused(home: Home, tmp_path: Path) -> None:
    other = Program(tmp_path / "other")
    other.init("home", [home.source], [tmp_path / "o1"])
    told = home.recover(home.media[0], tmp_path / "o1", code=1)
    assert told["error"] == "WrongCartridge"


def test_what_is_no_cartridge_is_refused(home: Home, tmp_path: Path) -> None:
    assert home.recover(home.source, code=1)["error"] == "NoCartridge"
    assert home.recover(tmp_path / "nowhere", code=1)["error"] == "VolumeUnusable"


@pytest.mark.parametrize("kind", ["profile", "catalog"])
def test_nothing_is_overwritten(home: Home, kind: str) -> None:
    home.recover()
    if kind == "catalog":
        home.program.profile("home").unlink()
    before = snapshot_of(home.program.workspace / "state" / "home" / "catalog")
    told = home.recover(code=2)
    assert told["error"] == f"{kind.title()}Exists"
    assert snapshot_of(home.program.workspace / "state" / "home" / "catalog") == before


# ---- killed


class _KilledError(BaseException):
    """Ends a recover at once, as far as a test inside of one process can."""


def test_cut_short_at_any_rename_it_runs_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, left = os.rename, 0

    def cut_short(old: Any, new: Any, **places: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _KilledError
        rename(old, new, **places)

    monkeypatch.setattr(os, "rename", cut_short)
    for number in range(100):
        workspace = home.program.workspace / str(number)
        left = number
        try:
            _recovered(home, workspace)
        except _KilledError:
            left = 1000
            assert _recovered(home, workspace) == home.snapshots, number
        else:
            break
    assert 8 < number < 99


def _recovered(home: Home, workspace: Path) -> list[str]:
    def profile(name: str) -> str:
        return str(workspace / f"{name}.toml")

    volumes = [str(folder) for folder in home.media]
    found = recover(str(workspace), volumes, profile, print)
    assert (workspace / "home.toml").exists()
    assert not list(workspace.rglob("recovering"))
    return found.snapshots


def test_killed_it_runs_again(home: Home) -> None:
    for pause in (0.3, 0.6, 0.9, 1.2):
        process = home.program.start("recover", *home.media)
        time.sleep(pause)
        processes.kill_all(process)
        if home.program.profile("home").exists():
            break
    else:
        home.recover()
    assert home.program.snapshots("home") == home.snapshots
    assert home.program.backup("home")["status"] == "unchanged"


# ---- without a workspace


def test_a_restore_from_cartridges_needs_no_workspace(home: Home, tmp_path: Path) -> None:
    given = [word for folder in home.media for word in ("--from", folder)]
    before = snapshot_of(home.program.directory)
    told = home.json("restore", *given, tmp_path / "out")
    assert told["snapshot"] == home.snapshots[-1]
    assert_same_tree(home.source, tmp_path / "out" / "source")
    first = home.snapshots[0]
    home.json("restore", *given, "--snapshot", first, tmp_path / "first")
    assert_same_tree(home.trees[first], tmp_path / "first" / "source")
    home.json("restore", *given, tmp_path / "one", "z twin")
    assert list(_files(tmp_path / "one")) == ["source/z twin"]
    plan = home.json("restore", *given, "--plan", tmp_path / "none")
    assert [one["serial"] for one in plan["cartridges"]] == [1, 2, 3]
    assert snapshot_of(home.program.directory).keys() == before.keys()


def test_a_restore_from_too_few_cartridges_says_which_one_lacks(home: Home, tmp_path: Path) -> None:
    """Though it lies where the catalog knows it: only those given count."""
    told = home.json("restore", "--from", home.media[1], tmp_path / "out", code=4)
    assert "home 1" in told["message"]
    assert told["files"] > 0


def test_a_restore_past_damage_ends_with_5(home: Home, tmp_path: Path) -> None:
    given = [word for folder in home.media for word in ("--from", folder)]
    flip_a_bit(Medium(path=home.media[1]).manifest(home.snapshots[-1]), random.Random(3))
    told = home.json("restore", *given, tmp_path / "out", code=5)
    assert_same_tree(home.source, tmp_path / "out" / "source")
    assert told["recovered"]["damaged"]


def test_a_restore_needs_a_destination(home: Home) -> None:
    assert "DEST" in home.json("restore", "home", code=2)["message"]


# ---- secrets and attacks


def test_secrets_do_not_go_onto_cartridges(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    media = cartridges(1)
    fill(source, files=1, size=1000)
    program.init("home", [source], media)
    program.edit_profile(
        "home",
        {
            "source": [{"exclude": ['"quoted" *.tmp', "caf\u00e9"]}],
            "retention": {"keep_last": 5},
            "run": {"workers": 2},
            "hooks": {"after": "echo s3cret >/dev/null"},
            "notify": {"urls": ["json://me:hunter2@localhost:1"], "events": ["stale"]},
        },
    )
    before = tomllib.loads(program.profile("home").read_text("utf-8"))
    program.backup("home")
    for path in media[0].rglob("catalog/*"):
        assert path.is_dir() or not any(s.encode() in path.read_bytes() for s in SECRETS), path
    shutil.rmtree(program.workspace)
    program.workspace.mkdir()
    said = program.run("recover", *media).stdout
    assert "[hooks]" in said
    assert "[notify]" in said
    after = tomllib.loads(program.profile("home").read_text("utf-8"))
    assert after == {key: before[key] for key in before if key not in ("hooks", "notify")}


def test_hooks_on_a_cartridge_are_not_taken_over(home: Home) -> None:
    for folder in home.media:
        profile = folder / "catalog" / "profile.toml"
        profile.write_text(profile.read_text() + '\n[hooks]\nbefore = "touch /tmp/owned"\n')
        (folder / "SHA256SUMS").unlink()
    home.recover()
    assert "owned" not in home.program.profile("home").read_text()


@pytest.fixture
def forged(home: Home) -> Iterator[Home]:
    """Cartridges without sums, so that anything may be put on them."""
    for folder in home.media:
        (folder / "SHA256SUMS").unlink()
    return home  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["../../evil", "", "a/b", "x" * 100])
def test_names_that_lead_out_are_refused(forged: Home, name: str) -> None:
    label = forged.media[0] / "CARTRIDGE.json"
    label.write_text(json.dumps(json.loads(label.read_text()) | {"profile": name}))
    assert forged.recover(forged.media[0], code=1)["error"] == "FormatDamaged"


def test_a_manifest_that_is_a_link_is_damage(forged: Home, tmp_path: Path) -> None:
    for folder in forged.media:
        for manifest in folder.glob("catalog/manifests/*"):
            secret = tmp_path / f"secret-{manifest.name}"
            shutil.move(manifest, secret)
            manifest.symlink_to(secret)
    assert forged.recover(code=5)["from_archives"]


@pytest.mark.night
def test_a_manifest_that_expands_without_end_takes_no_memory_without_bounds(forged: Home) -> None:
    """One value a million times, over and over: kilobytes that become gigabytes."""
    import pyarrow as pa

    for folder in forged.media:
        for path in folder.glob("catalog/manifests/*"):
            schema = pq.read_schema(path)
            rows = 130_000
            columns = {f.name: pa.nulls(rows, f.type) for f in schema}
            text = pa.array(["x" * 8000])
            columns["path"] = text.take(pa.array([0] * rows, pa.int32()))
            table = pa.table(columns, schema=schema)
            pq.write_table(table, path, row_group_size=rows, compression="zstd")
    ended = forked.run(forged.program, "recover", "--json", *forged.media)
    assert ended.code in (1, 5), ended.out
    assert ended.memory < 9 << 30
