"""The entry point: a signal ends a command, at whatever moment it comes."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from pipelines.cli import finish
from pipelines.report import Voice
from tasks.model.errors import DestinationUnusable
from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.program import REPOSITORY, Program

WAIT = "time.sleep(20); sys.exit('nobody heard it')"
STOP = "os.kill(os.getpid(), signal.SIGTERM)"
MOMENTS = {
    "at any time": f"{STOP}; {WAIT}",
    "just behind a fork": (
        f"os.register_at_fork(after_in_parent=lambda: {STOP}); os.fork() or os._exit(0); {WAIT}"
    ),
    "while an object is forgotten": (
        f"type('Lost', (), {{'__del__': lambda self: {STOP}}})(); {WAIT}"
    ),
    "in the middle of an import": f"import stopping; {WAIT}",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_is_heard(moment: str, tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(f"import os, signal\n{STOP}\n")
    code = (
        "import os, signal, sys, time\n"
        "from pipelines import __main__ as entry\n"
        f"def run():\n    {MOMENTS[moment]}\n"
        "entry._run = run\n"
        "entry.main()\n"
    )
    env = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "cartridge: Interrupted. Run the same command again.\n"


def test_an_error_that_comes_of_stopping_is_no_error_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            try:
                raise OSError("a folder that was half closed")
            except OSError as error:
                raise DestinationUnusable(path="/there", reason="it is half closed") from error

    with pytest.raises(typer.Exit) as end:
        finish(Voice(), stopped)
    assert end.value.exit_code == 130
    assert "Interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["cartridges", "home"], ["--help"], ["backup", "--help"]])
def test_what_cannot_be_said_is_no_success(
    program: Program, source: Path, cartridges: MakeCartridges, words: list[str]
) -> None:
    program.init("home", [source], cartridges(1))
    with Path("/dev/full").open("wb") as full:
        process = program.start(*words, stdout=full)
        code, _, told = processes.end_of(process)
    assert code == 1
    assert told == "cartridge: cannot write what it had to say: No space left on device.\n"


def test_the_version_is_the_one_that_is_installed(program: Program) -> None:
    assert program.run("--version").stdout == f"cartridge {version('cartridge-backup')}\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_matter(
    program: Program, source: Path, cartridges: MakeCartridges, closed: str
) -> None:
    [cartridge] = cartridges(1)
    (source / "file").write_text("new")
    program.init("home", [source], [cartridge])
    command = f"'{sys.executable}' -m pipelines backup home {closed}"
    done = subprocess.run(
        ["sh", "-c", command], env=program.env, cwd=program.workspace, check=False
    )
    assert done.returncode == 0
    assert len(program.snapshots("home")) == 1


@pytest.mark.parametrize("name", ["../profiles/home", "./home"])
def test_a_profile_is_no_path(program: Program, source: Path, name: str) -> None:
    program.run("init", "home", "--source", source)
    assert program.backup(name, code=2)["error"] == "ProfileMissing"


def loaded(code: str) -> str:
    """Run a program that has `sparingly` at hand, and return what it printed."""
    code = f"import os, sys\nfrom pipelines.imports import sparingly\n{code}"
    others = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=others | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_numpy_starts_no_threads_and_commands_of_the_user_do_not_know() -> None:
    told = loaded(
        "with sparingly():\n    import numpy\n"
        "print(len(os.listdir('/proc/self/task')), 'OPENBLAS_NUM_THREADS' in os.environ)\n"
    )
    assert told == "1 False"


def test_nothing_is_loaded_that_is_not_made_use_of() -> None:
    told = loaded(
        "with sparingly():\n    import numpy as np\n    import pyarrow.compute as pc\n"
        "array = pc.pa.array(np.unique([2, 1, 1]))\n"
        "print(array.to_pylist(), pc.sum(array), 'pydoc' in sys.modules)\n"
        "print('numpy.ma.core' in sys.modules)\n"
    )
    assert told == "[1, 2] 3 False\nFalse"


def test_what_was_hollowed_out_is_whole_when_somebody_asks_for_more() -> None:
    told = loaded(
        "with sparingly():\n    import numpy as np\n    import pyarrow as pa\n"
        "pa.array(np.zeros(1))\n"
        "array = np.ma.masked_array([1, 2], mask=[True, False])\n"
        "print(np.nanmedian([1.0, 3.0]), pa.array(array).to_pylist())\n"
    )
    assert told == "2.0 [None, 2]"


@pytest.mark.parametrize(
    "words",
    [["backup"], ["backup", "home", "--nope"], ["nope"], ["backup", "home", "--workers", "x"]],
    ids=["no name", "an option", "a command", "a number"],
)
def test_machines_are_told_of_wrong_words_in_json(program: Program, words: list[str]) -> None:
    done = program.run(*words, "--json", code=2)
    told = json.loads(done.stdout)
    assert (told["error"], told["exit_code"]) == ("UsageError", 2)
    assert told["message"]
    assert done.stderr == ""


def test_content_is_not_mixed_with_what_machines_are_told(program: Program) -> None:
    done = program.run("cat", "--json", code=2)
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"] == "UsageError"
