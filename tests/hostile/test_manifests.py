"""A catalog made to attack: nothing is written outside of the destination."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.catalog.store import ARCHIVES, CARTRIDGES, Store, write_rows
from tasks.formats import tar
from tasks.formats.archive import ArchiveWriter
from tasks.media.cartridge import Cartridge
from tasks.media.labelling import write_label
from tasks.model.words import ArchiveRow, CartridgeRow, JournalLine
from tests.helpers import forked
from tests.helpers.catalogs import add_snapshot, make_profile
from tests.helpers.compare import snapshot_of
from tests.helpers.program import Measured, Program
from tests.helpers.rows import Row, row

SNAPSHOT = "20260101T000000Z"
ARCHIVE = f"archives/{SNAPSHOT}/0001000000.tar.lz4"
EVIL = b"evil"
MEMORY, STOP = 900 * 10**6, 8000 * 10**6


class Forged:
    """A workspace whose catalog says what an attacker wants, over a cartridge that is sound."""

    def __init__(self, folder: Path) -> None:
        self.program = Program(folder / "program")
        self.media = folder / "media" / "c1"
        self.media.mkdir(parents=True)
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_bytes(b"precious")
        self.out = folder / "out"
        self.store: Store = make_profile(self.program.workspace)
        self.place = self._cartridge(folder)

    def _cartridge(self, folder: Path) -> tuple[int, int]:
        facts = {"set_name": "home", "profile": "home", "created": ""}
        label = write_label(str(self.media), serial=1, capacity=None, **facts)
        with (folder / "spooled").open("wb") as file:
            writer = ArchiveWriter(file)
            header = tar.file_header(b"s/x", len(EVIL), 0o644, 0, 0, "", "", 0)
            place = writer.add(header, EVIL, len(EVIL))
            digest = writer.finish()
        line = JournalLine(archive=ARCHIVE, bytes=writer.bytes, sha256=digest, snapshot=SNAPSHOT)
        Cartridge(str(self.media), label).place(line, str(folder / "spooled"))
        archive = ArchiveRow(
            archive=ARCHIVE,
            snapshot=SNAPSHOT,
            bytes=line.bytes,
            sha256=digest,
            content_bytes=4,
            members=1,
            contents=1,
            cartridge=1,
            state="stored",
        )
        known = CartridgeRow(
            serial=1,
            set="home",
            label="home 1",
            uuid=label.uuid,
            capacity=None,
            state="open",
            used=1,
            location=str(self.media),
            created="",
        )
        write_rows(self.store.archives_path, ARCHIVES, [archive])
        write_rows(self.store.cartridges_path, CARTRIDGES, [known])
        return place

    def evil(self, path: str | bytes, **facts: object) -> Row:
        """A file of that name whose content is on the cartridge."""
        digest = hashlib.sha256(EVIL).digest()
        part = {"archive": ARCHIVE, "member": None, "frame": 0, "skip": self.place[1]}
        parts = [{**part, "length": len(EVIL), "sha256": digest}]
        return row(path, **{"size": len(EVIL), "sha256": digest, "parts": parts, **facts})

    def restore(self, *rows: Row, limit: int = 0, timeout: float = 60) -> Measured:
        """Restore a snapshot of these rows; nothing outside may change."""
        add_snapshot(self.store, SNAPSHOT, rows)
        before = snapshot_of(self.outside)
        ended = forked.run(
            self.program, "restore", "--json", "home", self.out, limit=limit, timeout=timeout
        )
        assert snapshot_of(self.outside) == before
        assert "Error:" not in ended.out, ended.out
        assert ended.memory < MEMORY, f"{ended.memory:,} bytes of memory"
        return ended


@pytest.fixture
def forged(tmp_path: Path) -> Iterator[Forged]:
    yield Forged(tmp_path)


def test_a_forged_catalog_of_honest_rows_is_restored(forged: Forged) -> None:
    """Or the tests below would prove nothing."""
    ended = forged.restore(forged.evil("honest"))
    assert ended.code == 0, ended.out
    assert (forged.out / "s" / "honest").read_bytes() == EVIL


@pytest.fixture
def torn(forged: Forged) -> list[Row]:
    """Rows of files that their parts do not make up."""
    other = hashlib.sha256(b"good").digest()
    whole = forged.evil("")["parts"][0]
    return [
        forged.evil("another content", sha256=other),
        forged.evil("no parts", parts=[]),
        forged.evil("too long", size=5),
        forged.evil("too long, of unknown digest", size=5, sha256=None),
        forged.evil("too short", size=3),
        forged.evil("twice", parts=[whole, whole]),
    ]


def test_a_file_that_its_parts_do_not_make_up_is_damaged_and_does_not_appear(
    forged: Forged, torn: list[Row]
) -> None:
    ended = forged.restore(*torn, forged.evil("honest"))
    assert ended.code == 5, ended.out
    assert json.loads(ended.out)["damaged"] == sorted("s/" + r["path"] for r in torn)
    assert os.listdir(forged.out / "s") == ["honest"]


def test_nothing_is_written_out_of_a_file_that_its_parts_do_not_make_up(
    forged: Forged, torn: list[Row]
) -> None:
    add_snapshot(forged.store, SNAPSHOT, torn)
    for one in torn:
        done = forged.program.run("cat", "home", "s/" + one["path"], code=5)
        assert (done.stdout, one["path"] in done.stderr) == ("", True), done.stderr


def test_a_file_that_its_parts_do_not_make_up_is_not_exported(
    forged: Forged, torn: list[Row]
) -> None:
    add_snapshot(forged.store, SNAPSHOT, [*torn, forged.evil("honest")])
    done = forged.program.run("export", "--json", "home", "-o", forged.out, code=5)
    assert json.loads(done.stdout)["damaged"] == sorted("s/" + r["path"] for r in torn)
    with tarfile.open(forged.out) as tar_file:
        assert [m.name for m in tar_file if m.isfile()] == ["s/honest"]


BAD_NAMES = {
    "above": "../../outside/file",
    "above, below": "a/../../../outside/new",
    "absolute": "/tmp/cartridge-was-here",
    "nul": "a\0b",
    "itself": "",
    "here": ".",
    "two slashes": "a//b",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=list(BAD_NAMES))
@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "fifo", "hardlink"])
def test_names_that_lead_out_are_refused(forged: Forged, name: str, kind: str) -> None:
    if kind == "file":
        rows = [forged.evil(name)]
    else:
        target = {"symlink": b"x", "hardlink": b"honest"}.get(kind)
        rows = [forged.evil("honest"), row(name, kind, link_target=target)]
    ended = forged.restore(*rows)
    assert ended.code in (1, 5), ended.out
    assert not os.path.lexists("/tmp/cartridge-was-here")


def test_a_name_with_a_newline_is_a_name(forged: Forged) -> None:
    assert forged.restore(forged.evil("two\nlines")).code == 0
    assert (forged.out / "s" / "two\nlines").read_bytes() == EVIL


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("target", ["../../outside", "/"])
def test_a_link_planted_before_a_file_is_not_followed(
    forged: Forged, first: bool, target: str
) -> None:
    """The manifest has a link where it also has a folder with files."""
    target = str(forged.outside) if target == "/" else target
    rows = [row("d", "symlink", link_target=target.encode()), forged.evil("d/file")]
    ended = forged.restore(*(rows if first else rows[::-1]))
    assert ended.code in (0, 1, 5), ended.out


@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "fifo"])
def test_a_link_planted_in_the_destination_is_not_followed(forged: Forged, kind: str) -> None:
    (forged.out / "s").mkdir(parents=True)
    (forged.out / "s" / "d").symlink_to(forged.outside)
    (forged.out / "s" / "file").symlink_to(forged.outside / "file")
    other = forged.evil("d/file") if kind == "file" else row("d/new", kind, link_target=b"x")
    ended = forged.restore(row("d", "dir"), other, forged.evil("file"))
    assert ended.code in (0, 1), ended.out


def test_a_source_name_that_leads_out_is_refused(forged: Forged) -> None:
    for source in ("..", "../outside", "/tmp", "."):
        ended = forged.restore(forged.evil("file", source=source))
        assert ended.code in (1, 5), ended.out


def test_a_hard_link_to_what_is_outside_is_not_made(forged: Forged) -> None:
    rows = [row("link", "hardlink", link_target=b"../../outside/file")]
    ended = forged.restore(*rows)
    assert ended.code in (1, 5), ended.out


@pytest.mark.parametrize(
    "facts",
    [
        {"frame": -1},
        {"frame": 1 << 62},
        {"skip": -5},
        {"skip": 1 << 62},
        {"length": -4},
        {"length": 1 << 62},
        {"length": 0},
        {"sha256": b"\1" * 32},
        {"archive": "../outside/file"},
        {"archive": "archives/../../outside/file"},
        {"archive": "/dev/zero"},
    ],
    ids=str,
)
def test_parts_that_lie_are_damage(forged: Forged, facts: dict[str, object]) -> None:
    entry = forged.evil("file")
    [part] = entry["parts"]
    for size in {len(EVIL), facts.get("length", len(EVIL))}:
        ended = forged.restore({**entry, "parts": [{**part, **facts}], "size": size}, limit=STOP)
        assert ended.code in (1, 5), ended.out
        assert not (forged.out / "s" / "file").exists()


@pytest.mark.parametrize("size", [-1, 1 << 62, (1 << 63) - 1])
def test_absurd_sizes_are_damage(forged: Forged, size: int) -> None:
    hole = {"archive": None, "member": None, "frame": None, "skip": None, "sha256": None}
    for parts in ([], None, [{**hole, "length": size}]):
        ended = forged.restore(forged.evil("file", size=size, parts=parts), limit=STOP)
        assert ended.code in (1, 5), ended.out


@pytest.mark.parametrize("rdev", [0, (1 << 64) - 1])
def test_devices_of_absurd_numbers_do_no_harm(forged: Forged, rdev: int) -> None:
    ended = forged.restore(row("null", "char", rdev=rdev))
    assert ended.code in (0, 1, 5), ended.out


def test_a_kind_that_nobody_knows_is_told(forged: Forged) -> None:
    ended = forged.restore(row("what", "portal"), forged.evil("file"))
    assert ended.code in (0, 1, 5), ended.out
    assert not (forged.out / "s" / "what").exists()


@pytest.mark.night
def test_folders_thousands_deep_come_back(forged: Forged) -> None:
    deep = [row("/".join(["d"] * depth), "dir") for depth in range(1, 2500)]
    ended = forged.restore(*deep, limit=STOP, timeout=300)
    assert ended.code in (0, 1), ended.out


# ---- the file itself


COMMANDS = (["restore", "--json", "home", "out"], ["ls", "--json", "home"], ["snapshots", "home"])


def forge(forged: Forged, content: bytes) -> list[Measured]:
    Path(forged.store.manifest_path(SNAPSHOT)).write_bytes(content)
    return [forged_run(forged, command) for command in COMMANDS]


def forged_run(home: Forged, command: list[str]) -> Measured:
    return forked.run(home.program, *command, limit=STOP)


def sound(home: Forged) -> bytes:
    add_snapshot(home.store, SNAPSHOT, [home.evil("a"), home.evil("b")])
    return Path(home.store.manifest_path(SNAPSHOT)).read_bytes()


@pytest.mark.parametrize("length", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_footer_that_lies_of_its_length_is_damage(forged: Forged, length: int) -> None:
    whole = sound(forged)
    for ended in forge(forged, whole[:-8] + length.to_bytes(4, "little") + whole[-4:]):
        assert ended.code in (1, 5), ended.out
        assert "damaged" in ended.out + ended.err


def test_a_manifest_of_a_newer_version_is_refused_by_every_command(forged: Forged) -> None:
    sound(forged)
    path = forged.store.manifest_path(SNAPSHOT)
    table = pq.read_table(path, use_threads=False)
    metadata = {**(table.schema.metadata or {}), b"cartridge.format_version": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    for command in COMMANDS:
        ended = forked.run(forged.program, *command)
        assert ended.code == 1, ended.out
        assert "99" in ended.out + ended.err


def test_a_manifest_of_other_columns_is_damage(forged: Forged) -> None:
    sound(forged)
    path = forged.store.manifest_path(SNAPSHOT)
    metadata = pq.read_schema(path).metadata
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(metadata), path)
    ended = forked.run(forged.program, "restore", "--json", "home", forged.out)
    assert ended.code in (1, 5), ended.out
    assert '"StageFailed"' not in ended.out, ended.out
