"""The house keeps its shape: imports run one way, modules are short and say what they are for."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path for folder in ("tasks", "pipelines") for path in (REPOSITORY / folder).rglob("*.py")
)
LONGEST = 400  # lines

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def test_imports_run_one_way() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 40


@each_module
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < LONGEST


@each_module
def test_a_module_says_in_a_sentence_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring
    assert docstring.split("\n")[0].rstrip().endswith((".", ":")), docstring


def test_luigi_builds_in_one_place_only() -> None:
    builders = [path.name for path in MODULES if "luigi.build(" in path.read_text("utf-8")]
    assert builders == ["engine.py"]


@pytest.mark.parametrize("command", ["status", "find", "diff", "ls", "log", "snapshots"])
def test_a_lookup_loads_nothing_that_only_runs_need(command: str) -> None:
    script = f"import sys, pipelines.{command}; print({{*sys.modules}} & {{'luigi', 'pydantic'}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
