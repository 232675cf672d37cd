"""The benchmark goes through at a tiny size; how long things take is not looked at."""

import dataclasses
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.bench import corpora, growth, report
from tests.bench.__main__ import main
from tests.bench.corpora import CORPORA
from tests.bench.measure import Run
from tests.bench.works import WORKS, Sample
from tests.helpers.compare import assert_same_tree
from tests.helpers.program import REPOSITORY


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_the_same_whenever_it_is_made(name: str, tmp_path: Path) -> None:
    one, two = (corpora.make(name, str(tmp_path / where), 0.002) for where in "ab")
    assert (one.files, one.bytes, one.folder) == (two.files, two.bytes, two.folder)
    assert (Path(one.path) / one.folder).is_dir()
    assert corpora.change(one, seed=3) == corpora.change(two, seed=3) > 0
    assert_same_tree(Path(one.path), Path(two.path), ignore=("mtime_ns",))


@pytest.mark.night
@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_goes_through_all_works(name: str, tmp_path: Path) -> None:
    facts = bench(tmp_path, "--corpora", name)
    assert {sample["work"] for sample in facts["samples"]} == set(WORKS)


def test_the_program_and_its_peers_get_a_table_and_a_picture(tmp_path: Path) -> None:
    facts = bench(tmp_path, "--corpora", "small", "--works", "unchanged,verify", "--peers", "cp")
    rows = {row["work"]: row for row in facts["table"]}
    assert list(rows) == ["first", "unchanged", "verify"]
    for row in rows.values():
        assert row["seconds"] > 0 < row["peer_seconds"]
        assert row["lowest"] <= row["ratio"] <= row["highest"]
        assert row["holds"] == (row["ratio"] <= row["bar"])
        assert row["peak"] > 10_000_000
    assert set(rows["first"]["others"]) == {"cp", "tar listed"}

    lines = (tmp_path / "out" / "bench.md").read_text("utf-8").splitlines()
    assert lines[0].startswith("| corpus | work | seconds | peer |")
    assert len([line for line in lines if line.startswith("| small |")]) == 3
    picture = ElementTree.parse(tmp_path / "out" / "bench.svg").getroot()
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}line"))) == 3
    assert os.listdir(tmp_path / "on") == []


def bench(folder: Path, *args: str) -> dict[str, Any]:
    """Run the benchmark with one round at a tiny scale, and return its JSON."""
    (folder / "on").mkdir()
    places = ["--on", str(folder / "on"), "--out", str(folder / "out")]
    assert main(["--scale", "0.002", "--rounds", "1", *places, *args]) == 0
    found: dict[str, Any] = json.loads((folder / "out" / "bench.json").read_text("utf-8"))
    return found


def test_a_command_that_failed_is_shown_as_such_and_gives_no_ratio() -> None:
    def sample(contender: str, number: int, seconds: float, code: int = 0) -> Sample:
        run = Run(seconds=seconds, code=code, peak=0)
        return Sample(corpus="small", work="first", contender=contender, round=number, run=run)

    fine = [sample(who, n, s) for n in (1, 2, 3) for who, s in (("cartridge", n), ("tar", 2.0))]
    [row] = report.rows(fine)
    assert (row.seconds, row.peer_seconds, row.ratio, row.holds) == (2.0, 2.0, 1.0, True)
    [row] = report.rows([*fine, sample("cartridge", 4, 0.1, code=1)])
    assert (row.seconds, row.ratio, row.holds) == (None, None, None)
    assert "failed" in report.markdown([row], [])
    assert "first" not in report.picture([row])
    slow = dataclasses.replace(report.rows(fine)[0], ratio=1.3, holds=False)
    assert "**no**" in report.markdown([slow], [])


def test_the_readme_takes_the_newest_table() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    once = report.inserted(text, "| a table |\n")
    assert "| a table |" in once
    assert report.inserted(once, "") == report.inserted(text, "")


@pytest.mark.night
@pytest.mark.parametrize("name", growth.MEASURES)
def test_growth_is_measured(name: str, tmp_path: Path) -> None:
    places = ["--on", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*places, "--growth", name, "--scale", "0.001"]) == 0
    found = json.loads((tmp_path / "out" / "growth.json").read_text("utf-8"))["growth"]
    assert {one["measure"] for one in found} == {name}
    assert all(one["value"] >= 0 for one in found)
