"""A source is called like its folder, whatever that is called, in everything that names it."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.byhand import Stranger
from tests.helpers.compare import assert_same_tree
from tests.helpers.program import Program
from tests.helpers.trees import small_tree

NAMES = [
    "Fotos \u00e4\u00f6",
    ".config",
    "a [b] *?",
    'quo\'te "s" \\ $HOME',
    "#1!",
    "na\u00efve \u65e5\u672c",
]


@pytest.fixture
def backed_up(program: Program, tmp_path: Path) -> Program:
    for seed, name in enumerate(NAMES):
        small_tree(tmp_path / "from" / name, files=6, seed=seed)
    (tmp_path / "cartridge").mkdir()
    program.init("home", [tmp_path / "from" / n for n in NAMES], [tmp_path / "cartridge"])
    program.backup("home")
    return program


def assert_all_there(out: Path, origin: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert_same_tree(origin / name, out / name)


def test_they_come_back_under_their_names(backed_up: Program, tmp_path: Path) -> None:
    assert backed_up.backup("home")["status"] == "unchanged"
    backed_up.restore("home", tmp_path / "out")
    assert_all_there(tmp_path / "out", tmp_path / "from")


def test_they_come_back_by_hand(backed_up: Program, tmp_path: Path) -> None:
    stranger = Stranger.with_tools(tmp_path / "stranger")
    stranger.restore(tmp_path / "cartridge", tmp_path / "out", tmp_path / "cartridge")
    assert_all_there(tmp_path / "out", tmp_path / "from")


def test_they_come_back_after_the_workspace_was_lost(backed_up: Program, tmp_path: Path) -> None:
    for part in ("profiles", "state"):
        shutil.rmtree(backed_up.workspace / part)
    backed_up.run("recover", tmp_path / "cartridge")
    backed_up.restore("home", tmp_path / "out")
    assert_all_there(tmp_path / "out", tmp_path / "from")
    assert backed_up.backup("home")["status"] == "unchanged"


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_looked_up(backed_up: Program, tmp_path: Path, name: str) -> None:
    listed = backed_up.json("ls", "home", name)["entries"]
    assert listed
    assert {entry["source"] for entry in listed} == {name}
    pattern = "".join(f"\\{c}" if c in "\\*?[]!#" else c for c in name)
    backed_up.restore("home", tmp_path / "out", f"/{pattern}/")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert_same_tree(tmp_path / "from" / name, tmp_path / "out" / name)
