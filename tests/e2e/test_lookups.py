"""Lookups answer offline, for people and for machines: find, ls, diff, log."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.catalogs import (
    FOLDER,
    add_archives,
    add_numbered,
    add_snapshot,
    archive_name,
    make_profile,
    part,
)
from tests.helpers.program import Program
from tests.helpers.rows import WHEN, row

MakeCartridges = Callable[[int], list[Path]]

FIRST, SECOND, THIRD = (f"2026010{day}T000000Z" for day in (1, 2, 3))
MILLION = 1_000_000
MOST_MEMORY = 300_000  # kB
METER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
ENTRY = {"path", "source", "type", "size", "mtime"}


def paths_of(found: dict[str, Any]) -> set[str]:
    return {f"{match['source']}/{match['path']}" for match in found["matches"]}


def test_find_says_where_every_version_of_a_file_lies(
    program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (source / "Folder").mkdir()
    (source / "Folder" / "a.jpg").write_bytes(b"one")
    (other / "b.JPG").write_bytes(b"two")
    os.utime(source / "Folder" / "a.jpg", ns=(WHEN + 7, WHEN + 7))
    os.link(source / "Folder" / "a.jpg", source / "z twin.jpg")
    program.init("home", [source, other], cartridges(1))
    first = program.backup("home")["snapshot"]
    (source / "Folder" / "a.jpg").write_bytes(b"longer")
    second = program.backup("home")["snapshot"]
    found = program.json("find", "home", "*.jpg")["matches"]
    assert [(m["snapshot"], m["path"], m["size"]) for m in found] == [
        (first, "Folder/a.jpg", 3),
        (first, "z twin.jpg", 3),
        (second, "Folder/a.jpg", 6),
        (second, "z twin.jpg", 6),
    ]
    assert all(set(m) == ENTRY | {"snapshot", "cartridges"} for m in found)
    assert {tuple(m["cartridges"]) for m in found} == {(1,)}
    assert found[0]["mtime"] == "2023-11-14T22:13:20.000000007Z"
    for masks, expected in (
        (["other/*"], {"other/b.JPG"}),
        (["[!a]*"], {"other/b.JPG", "source/Folder", "source/z twin.jpg", "source/Folder/a.jpg"}),
        (["Folder", "b.*"], {"source/Folder", "other/b.JPG"}),
        (["*.zip"], set()),
    ):
        assert paths_of(program.json("find", "home", *masks)) == expected
    told = program.run("find", "home", "a.jpg", "--snapshot", second).stdout.split()
    assert told == [second, "6", "[1]", "source/Folder/a.jpg"]
    assert program.run("find", "home", "*.zip").stdout == "Nothing matches.\n"


def test_find_keeps_to_sizes_times_and_what_is_deleted(program: Program) -> None:
    store = make_profile(program.workspace)
    day = 86_400 * 10**9
    old = [
        row("folder", "dir"),
        row("folder/large", size=5_000_000),
        row("folder/lost", size=1500, mtime=WHEN + day),
        row("small", size=10, mtime=WHEN + 2 * day),
    ]
    add_snapshot(store, FIRST, old)
    add_snapshot(store, SECOND, [r for r in old if r["path"] != "folder/lost"])

    def found(*options: str) -> set[str]:
        return paths_of(program.json("find", "home", "*", "--snapshot", FIRST, *options))

    assert found("--larger", "1.5kB") == {"s/folder/large"}
    assert found("--larger", "1KiB", "--smaller", "5MB") == {"s/folder/lost"}
    assert found("--smaller", "11") == {"s/small"}
    assert found("--newer", "2023-11-14T22:13:20Z") == {"s/folder/lost", "s/small"}
    assert found("--older", "2023-11-15") == {"s/folder", "s/folder/large"}
    assert found("--newer", "2023-11-15", "--older", "2023-11-16T22:13:20+00:00") == {
        "s/folder/lost"
    }
    assert found("--deleted") == {"s/folder/lost"}
    assert found("--deleted", "--larger", "1GB") == set()
    assert paths_of(program.json("find", "home", "*", "--deleted")) == {"s/folder/lost"}
    for option, value in (("--larger", "big"), ("--smaller", "-1"), ("--newer", "soon")):
        error = program.json("find", "home", "*", f"{option}={value}", code=2)
        assert error["error"] == "UsageError"
        assert option in error["message"]
        assert value in error["message"]


def test_log_tells_the_versions_of_a_file_and_when_it_went(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    path = source / "folder" / "a.txt"
    path.parent.mkdir()
    path.write_bytes(b"one")
    (source / "other").write_bytes(b"0")
    program.init("home", [source], cartridges(1))
    snapshots = [program.backup("home")["snapshot"]]

    def back_up() -> None:
        outcome = program.backup("home")
        assert outcome["status"] == "complete"
        snapshots.append(outcome["snapshot"])

    (source / "other").write_bytes(b"1")
    back_up()
    path.write_bytes(b"second")
    back_up()
    path.chmod(0o600)
    back_up()
    path.unlink()
    back_up()
    (source / "other").write_bytes(b"22")
    back_up()

    found = program.json("log", "home", "source/folder/a.txt")
    assert found["deleted"] == snapshots[4]
    versions = found["versions"]
    assert [(v["change"], v["snapshot"], v["last"], v["size"]) for v in versions] == [
        ("added", snapshots[0], snapshots[1], 3),
        ("modified", snapshots[2], snapshots[2], 6),
        ("metadata", snapshots[3], snapshots[3], 6),
    ]
    contents = (b"one", b"second", b"second")
    assert [v["sha256"] for v in versions] == [hashlib.sha256(c).hexdigest() for c in contents]
    known = {s["id"]: s["time"] for s in program.json("snapshots", "home")["snapshots"]}
    for version in versions:
        assert set(version) == {
            *("snapshot", "last", "time", "path", "source", "size", "mtime"),
            *("sha256", "cartridges", "change"),
        }
        assert (version["source"], version["path"]) == ("source", "folder/a.txt")
        assert version["time"] == known[version["snapshot"]]
        assert version["cartridges"] == [1]
    assert program.json("log", "home", "folder/a.txt") == found
    assert program.json("log", "home", "other")["deleted"] is None
    told = program.run("log", "home", "folder/a.txt").stdout.splitlines()
    assert told[0] == "source/folder/a.txt"
    assert [line.split()[:3] for line in told[2:5]] == [
        [v["snapshot"], v["last"], v["change"]] for v in versions
    ]
    assert snapshots[4] in told[-1]


def test_log_of_what_was_never_backed_up_is_an_error(program: Program) -> None:
    store = make_profile(program.workspace)
    assert program.json("log", "home", "a", code=1)["error"] == "SnapshotMissing"
    add_snapshot(store, FIRST, [row("a")])
    error = program.json("log", "home", "b", code=1)
    assert error["error"] == "NothingSelected"
    assert FIRST in error["message"]
    assert "b" in error["message"]
    assert program.run("log", "home", "b", code=1).stdout == ""
    assert program.json("log", "nobody", "b", code=2)["error"] == "ProfileMissing"


def test_ls_lists_a_snapshot_or_what_is_below_a_path(program: Program) -> None:
    store = make_profile(program.workspace)
    rows = [row("a", "dir"), row("a-b"), row("a/b", size=7), row("b", "symlink", size=1)]
    add_snapshot(store, FIRST, rows)
    add_snapshot(store, SECOND, [])
    assert program.json("ls", "home") == {"snapshot": SECOND, "entries": []}
    whole = program.json("ls", "home", "--snapshot", FIRST)
    assert [e["path"] for e in whole["entries"]] == ["a-b", "a", "a/b", "b"]
    assert all(set(entry) == ENTRY for entry in whole["entries"])
    for path in ("a", "s/a", "/s/a/"):
        below = program.json("ls", "home", path, "--at", "2026-01-01T12:00:00Z")
        assert [(e["path"], e["size"]) for e in below["entries"]] == [("a", 0), ("a/b", 7)]
    told = program.run("ls", "home", "a/b", "--snapshot", FIRST).stdout
    assert told.split() == ["7", "2023-11-14T22:13:20Z", "file", "s/a/b"]
    assert "nothing" in program.run("ls", "home").stdout
    assert program.json("ls", "home", "--snapshot", "x", code=1)["error"] == "SnapshotMissing"


def test_odd_names_take_one_line_and_come_whole_in_json(program: Program) -> None:
    store = make_profile(program.workspace)
    names = [b"new\nline", b"esc\x1b[31m", b"caf\xe9", "caf\u00e9 \u2028".encode()]
    add_snapshot(store, FIRST, [])
    add_snapshot(store, SECOND, [row(name) for name in names])
    commands = (("ls", "home"), ("find", "home", "*"), ("diff", "home"))
    for command in commands:
        told = program.run(*command).stdout
        assert len(told.split("\n")) == len(names) + 1
        assert "\x1b" not in told
        assert "caf\ufffd" in told
    entries = program.json("ls", "home")["entries"]
    assert {e["path"] for e in entries} == {n.decode("utf-8", "replace") for n in names}
    assert [e.get("raw_path") for e in entries if "\ufffd" in e["path"]] == ["Y2Fm6Q=="]
    matches = program.json("find", "home", os.fsdecode(b"*f\xe9"))["matches"]
    assert [m["raw_path"] for m in matches] == ["Y2Fm6Q=="]
    [version] = program.json("log", "home", os.fsdecode(b"s/caf\xe9"))["versions"]
    assert version["raw_path"] == "Y2Fm6Q=="


def test_diff_lists_what_changed_between_two_snapshots(
    program: Program, source: Path, cartridges: MakeCartridges
) -> None:
    for name in ("gone", "stays", "changes", "moves", "mode"):
        (source / name).write_bytes(name.encode())
    program.init("home", [source], cartridges(1))
    first = program.backup("home")["snapshot"]
    assert program.json("diff", "home", code=1)["error"] == "SnapshotMissing"
    (source / "gone").unlink()
    (source / "changes").write_bytes(b"other content")
    (source / "moves").rename(source / "moved")
    (source / "new").mkdir()
    (source / "mode").chmod(0o600)
    second = program.backup("home")["snapshot"]
    found = program.json("diff", "home")
    assert found == {
        "older": first,
        "newer": second,
        "added": ["source/new"],
        "modified": ["source/changes"],
        "moved": ["source/moved"],
        "metadata": ["source/mode"],
        "deleted": ["source/gone"],
    }
    assert program.json("diff", "home", first, second) == found
    told = [line.split() for line in program.run("diff", "home").stdout.splitlines()]
    assert [line[0] for line in told] == [*("modified", "deleted", "metadata", "moved", "added")]
    back = program.json("diff", "home", second, first)
    assert (back["added"], back["deleted"]) == (["source/gone"], ["source/new"])
    assert program.run("diff", "home", second, second).stdout.startswith("Nothing changed")


def test_diff_judges_a_lenient_source_as_its_backup_does(program: Program) -> None:
    text = '[[source]]\nname = "s"\npath = "/nowhere"\n'
    store = make_profile(program.workspace, text=text + 'change_detection = "mtime"\n')
    add_snapshot(store, FIRST, [row("a", inode=1, ctime=1), row("b", inode=7)])
    add_snapshot(store, SECOND, [row("a", inode=2, ctime=2), row("c", inode=7)])
    found = program.json("diff", "home")
    assert (found["modified"], found["moved"]) == ([], [])
    assert (found["added"], found["deleted"]) == (["s/c"], ["s/b"])
    make_profile(program.workspace, text=text)
    found = program.json("diff", "home")
    assert (found["modified"], found["moved"], found["deleted"]) == (["s/a"], ["s/c"], [])


def test_an_error_half_way_still_leaves_one_json_object(program: Program) -> None:
    store = make_profile(program.workspace)
    for snapshot in (FIRST, SECOND, THIRD):
        add_snapshot(store, snapshot, [row(f"{n:04}", sha256=os.urandom(32)) for n in range(500)])
    damaged = Path(store.manifest_path(SECOND))
    data = bytearray(damaged.read_bytes())
    data[4:200] = bytes(196)
    damaged.write_bytes(data)
    found = program.json("find", "home", "00*", code=1)
    assert found["error"] == "FormatDamaged"
    assert SECOND in found["message"]
    assert found["exit_code"] == 1
    assert [m["snapshot"] for m in found["matches"]] == [FIRST] * 100
    told = program.run("find", "home", "00*", code=1)
    assert len(told.stdout.splitlines()) == 100
    assert SECOND in told.stderr
    error = program.json("log", "home", "0001", code=1)
    assert (error["error"], "versions" in error) == ("FormatDamaged", False)


def test_whoever_stops_reading_sees_no_traceback(program: Program) -> None:
    store = make_profile(program.workspace)
    add_numbered(store, FIRST, range(30_000))
    for command in (["ls", "home"], ["find", "home", "*"], ["ls", "home", "--json"]):
        process = program.start(*command)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(60)


def test_an_interrupt_half_way_still_leaves_one_json_object(program: Program) -> None:
    store = make_profile(program.workspace)
    add_snapshot(store, FIRST, [row("wanted")])
    add_numbered(store, SECOND, range(200_000))
    for day in range(3, 29):
        later = f"202601{day:02}T000000Z"
        os.link(store.manifest_path(SECOND), store.manifest_path(later))
    process = program.start("find", "home", "wanted", "--json")
    assert process.stdout is not None
    begin = process.stdout.read(len('{"matches": [{'))  # now it goes through what has no match
    process.send_signal(signal.SIGINT)
    found = json.loads(begin + process.stdout.read())
    assert process.wait(60) == found["exit_code"] == 130
    assert found["error"] == "Interrupted"
    assert len(found["matches"]) == 1


def test_lookups_need_neither_the_sources_nor_a_cartridge(program: Program) -> None:
    store = make_profile(program.workspace)
    add_archives(store, 10, cartridges=1)
    held = row("a", parts=[part(archive_name(0))])
    add_snapshot(store, FIRST, [held])
    add_snapshot(store, SECOND, [held, row("b")])
    assert [m["cartridges"] for m in program.json("find", "home", "a")["matches"]] == [[1], [1]]
    assert program.json("log", "home", "a")["versions"][0]["cartridges"] == [1]
    assert program.json("diff", "home")["added"] == ["s/b"]


def measured(program: Program, *command: str) -> tuple[int, int]:
    """Run a command to its end; return how many lines it printed, and its memory in kB.

    A small process in between starts it: what starts a process counts as its first memory.
    """
    metered = Program(program.directory, (sys.executable, "-c", METER))
    process = metered.start(*command, encoding=None, errors=None)
    assert process.stdout is not None
    assert process.stderr is not None
    blocks: Any = iter(lambda: process.stdout and os.read(process.stdout.fileno(), 1 << 20), b"")
    lines = sum(block.count(b"\n") for block in blocks)
    memory = int(process.stderr.read())
    assert process.wait() == 0
    return lines, memory


@pytest.mark.night
def test_a_million_entries_in_many_snapshots_take_little_memory(program: Program) -> None:
    store = make_profile(program.workspace)
    add_archives(store, MILLION, cartridges=5)
    older = np.setdiff1d(np.arange(MILLION), np.arange(7, MILLION, 400))
    newer = np.setdiff1d(np.arange(MILLION), np.arange(9, MILLION, 400))
    changed = newer[newer % 200 == 1]
    days = [f"202601{day:02}T000000Z" for day in range(1, 11)]
    add_numbered(store, days[0], older)
    add_numbered(store, days[5], newer, changed)
    for number, snapshot in enumerate(days):
        same = days[number // 5 * 5]
        if snapshot != same:
            os.link(store.manifest_path(same), store.manifest_path(snapshot))
    gone = len(np.setdiff1d(older, newer))
    for command, lines in (
        (["ls", "home"], len(newer)),
        (["ls", "home", "--json"], 1),
        (["ls", "home", "folder 00500"], int((newer // FOLDER == 500).sum())),
        (["find", "home", "*", "--snapshot", days[0]], len(older)),
        (["find", "home", "*", "--snapshot", days[0], "--json"], 1),
        (["find", "home", "picture*", "--deleted"], 5 * gone),
        (["find", "home", "no such*"], 1),
        (["diff", "home", days[0]], 2 * gone + len(np.intersect1d(changed, older))),
        (["log", "home", "folder 00500/picture 00500001.mov"], 4),
        (["restore", "home", "nowhere", "--plan"], 1 + 5),
    ):
        printed, memory = measured(program, *command)
        assert memory < MOST_MEMORY, command
        assert printed == lines, command
