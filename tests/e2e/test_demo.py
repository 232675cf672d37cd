"""The demo that the README begins with: bundled files, three small cartridges, and back again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.compare import assert_same_tree
from tests.helpers.program import REPOSITORY, Medium, Program

BUNDLED = REPOSITORY / "workspace"


@pytest.fixture
def demo(program: Program) -> Program:
    """The bundled files as git has them, whatever was tried out beside them."""
    command = ["git", "-C", BUNDLED, "ls-files", "-z", "."]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("this is no clone")
    for name in filter(None, done.stdout.decode().split("\0")):
        (program.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(BUNDLED / name, program.workspace / name)
    return program


def test_the_demo_spans_three_cartridges_and_comes_back(demo: Program, tmp_path: Path) -> None:
    done = demo.backup("demo")
    assert (done["status"], done["cartridges"]) == ("complete", [1, 2, 3])
    demo.restore("demo", tmp_path / "out")
    source = demo.workspace / "demo" / "source"
    assert_same_tree(source, tmp_path / "out" / "keepsakes")
    assert demo.backup("demo")["status"] == "unchanged"


@pytest.mark.skipif(shutil.which("lz4") is None, reason="lz4 is not installed")
def test_the_demo_comes_back_by_hand(demo: Program, tmp_path: Path) -> None:
    demo.backup("demo")
    *others, last = sorted((demo.workspace / "demo").glob("cartridge-*"))
    assert len(Medium(path=last).archives) > 0
    subprocess.run(["sh", last / "restore.sh", tmp_path / "out", *others], check=True)
    source = demo.workspace / "demo" / "source"
    assert_same_tree(source, tmp_path / "out" / "keepsakes")
