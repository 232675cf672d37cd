"""`cartridge report` writes a page that tells what is where, as the other commands do."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import Home, MakeCartridges
from tests.helpers.media import fill
from tests.helpers.program import Program

_VOID = {"meta", "rect", "circle"}


class Page(HTMLParser):
    """A page read as a browser would: its text, its tables cell by cell, and all its tags."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(file.read_text("utf-8"))
        assert not self._open, f"these are not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data


def page_of(program: Program, file: Path) -> Page:
    program.run("report", "home", "-o", file)
    return Page(file)


@pytest.fixture
def spread(program: Program, source: Path, cartridges: MakeCartridges) -> Program:
    """Three snapshots over several cartridges."""
    program.init("home", [source], cartridges(3), capacity="3MB")
    for seed in (1, 2, 3):
        fill(source / f"{seed}", files=6, size=200_000, seed=seed)
        program.backup("home")
    return program


def test_it_says_of_each_snapshot_on_which_cartridges_it_lies(
    spread: Program, tmp_path: Path
) -> None:
    page = page_of(spread, tmp_path / "home.html")
    heads, *rows = page.tables[2]
    assert [row[0] for row in rows] == spread.snapshots("home")[::-1]
    for row in rows:
        plan = spread.restore("home", tmp_path / "out", "--plan", "--snapshot", row[0])
        here = {f"home {cartridge['serial']}" for cartridge in plan["cartridges"]}
        assert {head for head, cell in zip(heads[1:], row[1:], strict=True) if cell} == here


def test_it_says_how_full_cartridges_are_and_where(spread: Program, tmp_path: Path) -> None:
    [_, *rows] = page_of(spread, tmp_path / "home.html").tables[0]
    known = spread.json("cartridges", "home")["cartridges"]
    assert [row[0] for row in rows] == [one["label"] for one in known]
    for row, one in zip(rows, known, strict=True):
        assert row[2].endswith("of 3.0 MB")
        assert row[3:6] == [str(one["archives"]), one["verified"] or "no", one["state"]]
        assert row[6] == one["location"]


def test_it_says_what_is_away_and_what_is_lost(spread: Program, tmp_path: Path) -> None:
    [first, *_] = spread.json("cartridges", "home")["cartridges"]
    Path(first["location"]).rename(tmp_path / "in the safe")
    page = page_of(spread, tmp_path / "home.html")
    assert page.tables[0][1][6] == f"not here, last at {first['location']}"
    spread.run("lost", "home", "1")
    page = page_of(spread, tmp_path / "home.html")
    assert page.tables[0][1][5] == "lost"
    assert "on no cartridge" in page.tables[2][-1][-1]


def test_it_is_one_file_that_asks_nobody_for_anything(spread: Program, tmp_path: Path) -> None:
    page = page_of(spread, tmp_path / "home.html")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "a"})
    assert "http" not in (tmp_path / "home.html").read_text("utf-8")
    assert sum(tag == "svg" for tag, _ in page.tags) >= 9


def test_what_names_say_is_text(program: Program, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)</script>" / "a & b"
    folder.mkdir(parents=True)
    program.init("home", [source], [folder])
    (source / "file").touch()
    program.backup("home")
    page = page_of(program, tmp_path / "home.html")
    assert page.tables[0][1][6] == str(folder)
    assert "script" not in {tag for tag, _ in page.tags}


def test_before_the_first_run_there_is_nothing_to_show(
    program: Program, source: Path, tmp_path: Path
) -> None:
    program.init("home", [source], [])
    text = page_of(program, tmp_path / "home.html").text
    assert "No cartridge is labelled yet." in text
    assert "There is no snapshot yet." in text


def test_a_page_that_cannot_be_written_is_told(home: Home, tmp_path: Path) -> None:
    program, _, _ = home
    told = program.json("report", "home", "-o", tmp_path / "nowhere" / "page", code=1)
    assert told["error"] == "DestinationUnusable"
    told = program.json("report", "home", "-o", tmp_path / "page")
    assert (told["cartridges"], told["snapshots"]) == (1, 1)
