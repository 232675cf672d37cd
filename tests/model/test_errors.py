"""Every error is a sentence, a help and an exit code, and three places say the same of them."""

import pickle
import re
import string
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.model import errors
from tasks.model.errors import CartridgeError, every_error, rebuild

README = Path(__file__).resolve().parents[2] / "README.md"
CODES = {1, 2, 3, 4, 5, 6, 130}  # the design's list, but for 0
CLASSES = sorted(every_error().values(), key=lambda cls: cls.__name__)

each_error = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def sample(cls: type[CartridgeError]) -> CartridgeError:
    wanted = fields(cls.template) | fields(cls.help)
    return cls(**{name: f"<{name}>" for name in wanted})


def codes() -> dict[str, int]:
    return {cls.__name__: cls.exit_code for cls in CLASSES}


@each_error
def test_an_error_says_what_and_what_to_do(cls: type[CartridgeError]) -> None:
    error = sample(cls)
    assert all(f"<{name}>" in str(error) for name in fields(cls.template))
    assert error.help.strip()
    assert "{" not in str(error) + error.help
    assert cls.__doc__


@each_error
def test_an_exit_code_is_one_of_the_design(cls: type[CartridgeError]) -> None:
    assert cls.exit_code in CODES


@each_error
def test_an_error_crosses_a_process_border_unharmed(cls: type[CartridgeError]) -> None:
    error = sample(cls)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls
    assert (str(back), back.exit_code, back.help) == (str(error), error.exit_code, error.help)
    assert back.facts == error.facts


@each_error
def test_an_error_is_made_again_from_what_a_task_recorded(cls: type[CartridgeError]) -> None:
    error = sample(cls)
    back = rebuild(error.name, error.facts)
    assert (type(back), str(back)) == (cls, str(error))


def test_braces_in_a_fact_do_no_harm() -> None:
    error = errors.CartridgeFailed(label="home 1", path="/media/{disk}", reason="{0} {x}")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "/media/{disk}" in str(error)


@pytest.mark.parametrize("error", [MemoryError(), pa.ArrowMemoryError("malloc of size 64 failed")])
def test_a_lack_of_memory_is_told_in_words(error: MemoryError) -> None:
    told = str(errors.StageFailed.from_error("restore", error))
    assert told == "restore failed: there was not enough memory for it"


def test_what_nobody_foresaw_is_told_with_its_kind() -> None:
    told = str(errors.StageFailed.from_error("restore", KeyError("x")))
    assert told == "restore failed: KeyError: 'x'"


def test_errors_have_no_deeper_branches() -> None:
    assert not [cls for cls in CLASSES if cls.__subclasses__()]


def test_the_tree_in_the_docstring_is_the_code() -> None:
    lines = re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__ or "")
    assert {name: int(code) for name, code in lines} == codes()
    assert len(lines) == len(CLASSES)


def test_the_table_in_the_readme_is_the_code() -> None:
    found = re.search(r"<!-- errors -->(.*)<!-- /errors -->", README.read_text("utf-8"), re.DOTALL)
    assert found, "the README has no table of errors between its markers"
    rows = re.findall(r"^\| *`?(\w+)`? *\| *(\d+) *\|", found[1], re.MULTILINE)
    assert {name: int(code) for name, code in rows} == codes()
    assert len(rows) == len(CLASSES)
