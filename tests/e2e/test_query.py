"""`query` answers SQL over the catalog as the other commands do, and can do nothing but read it."""

import csv
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.catalogs import add_numbered, add_snapshot, archive_name, make_profile, part
from tests.helpers.media import fill
from tests.helpers.program import REPOSITORY, Program
from tests.helpers.rows import WHEN, row
from tests.helpers.terminal import Terminal, end_of

MakeCartridges = Callable[[int], list[Path]]

FIRST, SECOND = "20260101T000000Z", "20260102T000000Z"
MIB = 1 << 20


def ask(program: Program, sql: str, code: int = 0) -> dict[str, Any]:
    return program.json("query", "home", sql, code=code)


def rows(program: Program, sql: str) -> list[list[Any]]:
    found: list[list[Any]] = ask(program, sql)["rows"]
    return found


def example(name: str) -> str:
    """Return a query as the README has it."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    found = re.search(rf"<!-- query: {name} -->\n```sql\n(.*?)```", text, re.DOTALL)
    assert found, f"the README has no query '{name}'"
    return found[1]


class Home(NamedTuple):
    program: Program
    first: str
    second: str


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Home:
    """Two snapshots on two cartridges: files grow, come and are copied."""
    fill(source / "big", files=6, size=300_000)
    (source / "grows").write_bytes(b"a" * 10)
    (source / "copy of 0").write_bytes((source / "big" / "000.bin").read_bytes())
    (source / "twin").hardlink_to(source / "grows")
    (source / "link").symlink_to("grows")
    program.init("home", [source], cartridges(2), capacity="3MB")
    first = program.backup("home")["snapshot"]
    (source / "grows").write_bytes(b"b" * 5000)
    fill(source / "more", files=5, size=300_000, seed=2)
    outcome = program.backup("home")
    assert outcome["cartridges"] == [1, 2]
    return Home(program, first, outcome["snapshot"])


# ---- it says what the other commands say


def test_entries_are_those_of_ls(home: Home) -> None:
    for snapshot in (home.first, home.second):
        listed = home.program.json("ls", "home", "--snapshot", snapshot)["entries"]
        sql = f"select path, source, type, size, mtime from entries where snapshot = '{snapshot}'"
        found = [tuple(values) for values in rows(home.program, sql)]
        expected = [tuple(e[name] for name in ("path", "source", "type", "size")) for e in listed]
        assert sorted(found) == sorted((*e, listed[i]["mtime"]) for i, e in enumerate(expected))


def test_parts_are_where_find_says_they_are(home: Home) -> None:
    matches = home.program.json("find", "home", "*")["matches"]
    expected = {
        (m["snapshot"], m["path"]): m["cartridges"]
        for m in matches
        if m["cartridges"] and m["path"] != "twin"
    }
    sql = (
        "select snapshot, path, list(distinct cartridge order by cartridge) from parts group by all"
    )
    assert {(s, p): held for s, p, held in rows(home.program, sql)} == expected
    versions = home.program.json("log", "home", "grows")["versions"]
    sql = "select sha256 from entries where path = 'grows' order by snapshot"
    assert rows(home.program, sql) == [[version["sha256"]] for version in versions]


def test_snapshots_and_cartridges_are_those_of_the_commands(home: Home) -> None:
    found = ask(home.program, "select * from snapshots order by id")
    said = home.program.json("snapshots", "home")["snapshots"]
    assert [dict(zip(found["columns"], r, strict=True)) for r in found["rows"]] == said
    found = ask(home.program, "select * from cartridges order by serial")
    said = home.program.json("cartridges", "home")["cartridges"]
    for cartridge in said:
        del cartridge["present"]  # that is for the shelf to say
    assert [dict(zip(found["columns"], r, strict=True)) for r in found["rows"]] == said
    counts = "select cartridge, count(*) from archives group by 1 order by 1"
    assert rows(home.program, counts) == [[c["serial"], c["archives"]] for c in said]


def test_odd_names_come_whole(program: Program) -> None:
    store = make_profile(program.workspace)
    names = (b"new\nline", b"esc\x1b[31m", b"caf\xe9", b'tab\t,"quote')
    added = [row(name, mtime=WHEN + 7) for name in names]
    added += [row("z", "symlink", link_target=b"to \xff"), row("old", mtime=-5)]
    add_snapshot(store, FIRST, added)
    found = rows(program, "select path, raw_path, link_target from entries order by path")
    shown = {path: (raw, target) for path, raw, target in found}
    assert shown["caf\ufffd"] == ("Y2Fm6Q==", None)
    assert shown["z"] == (None, "to \\xFF")
    assert "new\nline" in shown
    told = program.run("query", "home", "select path from entries").stdout
    assert len(told.splitlines()) == len(added) + 1
    assert "\x1b" not in told
    text = program.run("query", "home", "--csv", "select path, size from entries").stdout
    assert {line[0] for line in csv.reader(io.StringIO(text))} == {"path", *shown}


def test_a_catalog_without_a_snapshot_has_no_rows(program: Program) -> None:
    make_profile(program.workspace)
    assert rows(program, "select count(*) from entries") == [[0]]
    assert rows(program, "select * from parts") == []
    assert ask(program, "select * from cartridges")["rows"] == []


# ---- the examples of the README


def test_the_examples_of_the_readme(home: Home, source: Path) -> None:
    program = home.program
    grown = rows(program, example("growth"))
    assert grown[0][1:] == ["more/000.bin", 300_000]
    assert ["source", "grows", 4990] in grown
    twins = rows(program, example("duplicates"))
    assert twins == [[300_000, ["source/big/000.bin", "source/copy of 0"]]]
    only = {path for _, path in rows(program, example("only"))}
    sql = "select path from parts where cartridge = {} and snapshot = '{}'"
    on_the_first, on_the_second = (
        {path for [path] in rows(program, sql.format(serial, home.second))} for serial in (1, 2)
    )
    assert only == on_the_first  # nothing is stored twice
    assert on_the_second - only


# ---- it changes nothing and reads nothing else


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{out}'",
        "copy entries to '{manifest}' (format parquet)",
        "create table t as select 1",
        "drop view entries",
        "delete from archives",
        "attach '{out}'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '100GB'",
        "pragma database_list; select 1",
        "select 1; select 2",
        "explain analyze copy (select 1) to '{out}'",
        "export database '{out}'",
        "",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/etc/*')",
        "select * from read_parquet('{other}')",
        "select * from read_text('http://127.0.0.1:9/')",
        "select * from sql",
        "select getenv('HOME')",
    ],
)
def test_a_query_reads_the_catalog_and_does_nothing_else(
    program: Program, tmp_path: Path, sql: str
) -> None:
    store = make_profile(program.workspace)
    add_snapshot(store, FIRST, [row("a")])
    manifest, other, out = (
        Path(store.manifest_path(FIRST)),
        tmp_path / "o.parquet",
        tmp_path / "out",
    )
    other.write_bytes(manifest.read_bytes())
    before = manifest.read_bytes()
    error = ask(program, sql.format(out=out, manifest=manifest, other=other), code=2)
    assert error["error"] == "UsageError"
    assert "\n" not in error["message"]
    assert manifest.read_bytes() == before
    assert not out.exists()
    assert rows(program, "select path from entries") == [["a"]]


def test_a_mistake_is_told_in_a_sentence(program: Program) -> None:
    make_profile(program.workspace)
    for sql, what in (
        ("selec 1", "syntax error"),
        ("select nothing from entries", "nothing"),
        ("select * from tables", "tables"),
        ("select 'a'::int", "'a'"),
    ):
        done = program.run("query", "home", sql, code=2)
        assert done.stdout == ""
        assert done.stderr.startswith("cartridge: SQL: ")
        assert what in done.stderr.splitlines()[0]
    assert ask(program, "select 1", code=0)["rows"] == [[1]]
    assert program.run("query", "home", "select 1", "--csv", "--json", code=2).stderr == ""
    assert program.json("query", "nobody", "select 1", code=2)["error"] == "ProfileMissing"


def test_without_duckdb_it_says_what_to_install(program: Program, tmp_path: Path) -> None:
    make_profile(program.workspace)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    block = "import sys\nclass No:\n def find_spec(self, name, path=None, target=None):\n"
    block += (
        "  if name == 'duckdb': raise ModuleNotFoundError(name)\nsys.meta_path.insert(0, No())\n"
    )
    (hidden / "sitecustomize.py").write_text(block)
    program.env["PYTHONPATH"] = f"{hidden}{os.pathsep}{program.env['PYTHONPATH']}"
    done = program.run("query", "home", "select 1", code=2)
    assert "pip install 'cartridge-backup[query]'" in done.stderr
    assert program.run("ls", "home", code=1).stdout == ""  # it has no snapshot, and needs none


def test_a_damaged_manifest_is_named(program: Program) -> None:
    store = make_profile(program.workspace)
    for snapshot in (FIRST, SECOND):
        add_snapshot(store, snapshot, [row("a")])
    damaged = Path(store.manifest_path(SECOND))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    error = ask(program, "select * from entries", code=1)
    assert error["error"] == "FormatDamaged"
    assert SECOND in error["message"]


# ---- how the answer comes


def test_values_are_what_each_format_has(program: Program) -> None:
    store = make_profile(program.workspace)
    held = row("a", size=5, mtime=WHEN + 7000, parts=[part(archive_name(0))])
    add_snapshot(store, FIRST, [held])
    sql = """select sum(size) as s, 1.5::decimal(3, 1) as d, 'nan'::double as n, null as nothing,
        [1, 2] as l, {'a': mtime} as st, 'x'::blob as b, date '2026-01-02' as day, true as yes,
        max(mtime) as m, archives from entries group by all"""
    found = ask(program, sql)
    assert found["columns"] == [*"sdn", "nothing", "l", "st", "b", "day", "yes", "m", "archives"]
    when = "2023-11-14T22:13:20.000007000Z"
    assert found["rows"] == [
        [
            5,
            1.5,
            None,
            None,
            [1, 2],
            {"a": when},
            "eA==",
            "2026-01-02",
            True,
            when,
            [archive_name(0)],
        ]
    ]
    text = program.run("query", "home", "--csv", sql).stdout
    [heads, cells] = csv.reader(io.StringIO(text))
    assert heads == found["columns"]
    assert cells[:6] == ["5", "1.5", "", "", "[1, 2]", json.dumps({"a": when})]
    assert program.run("query", "home", "select 1 as one where false").stdout == (
        "There is no such row.\n"
    )
    assert (
        program.run("query", "home", "select 12 as one, 'b' as two").stdout == "one  two\n 12  b\n"
    )


def test_a_terminal_gets_a_table(program: Program, terminal: Terminal) -> None:
    make_profile(program.workspace)
    code, text = end_of(terminal("query", "home", "select 'value [red]' as head"))
    assert code == 0
    assert "value [red]" in text
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" in text


@pytest.mark.night
def test_large_answers_take_little_memory(program: Program) -> None:
    store = make_profile(program.workspace)
    add_numbered(store, FIRST, range(200_000))
    for day in range(2, 8):
        os.link(store.manifest_path(FIRST), store.manifest_path(f"202601{day:02}T000000Z"))
    few = program.measure("query", "home", "--csv", "select 1")
    done = program.measure("query", "home", "--csv", "select path, mtime from entries")
    assert (few.code, done.code) == (0, 0), done.err
    assert done.out.count("\n") == 7 * 200_000 + 1
    assert done.memory < few.memory + 300 * MIB


def test_whoever_stops_reading_sees_no_traceback(program: Program) -> None:
    store = make_profile(program.workspace)
    add_numbered(store, FIRST, range(100_000))
    for option in (["--csv"], ["--json"], []):
        process = program.start("query", "home", "select * from entries", *option)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(60)


def test_an_interrupt_ends_a_long_query(program: Program) -> None:
    make_profile(program.workspace)
    sql = (
        "select count(*) from range(100000000) a, range(1000000) b where a.range % 7 = b.range % 5"
    )
    process = program.start("query", "home", sql, "--json")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert json.loads(out)["error"] == "Interrupted"
    assert not list((program.directory / "tmp").iterdir())
