"""The wrong cartridge is refused by name, before anything on it is touched."""

import dataclasses
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tasks.catalog import guards, members
from tasks.catalog.request import Request
from tasks.catalog.runs import Place, Run
from tasks.catalog.setback import take_back
from tasks.media.cartridge import Cartridge
from tasks.media.labelling import write_label
from tasks.model.errors import WrongCartridge
from tasks.model.profile import parse_profile
from tasks.model.words import ArchiveRow, JournalLine, PackedArchive
from tests.conftest import MakeVolume
from tests.helpers.compare import snapshot_of

NOW, EARLIER = "20260102T000000Z", "20260101T000000Z"


def begun(folder: Path, source: Path) -> Run:
    """A run of a profile that looks for its cartridges in `media`."""
    search = f'[cartridges]\nsearch = ["{folder}/media/*"]\n'
    profile = parse_profile("home", f'[[source]]\npath = "{source}"\n{search}', "home.toml")
    run = Run(Place(str(folder / "workspace"), "home"), NOW)
    os.makedirs(run.place.folder)
    run.create(
        Request(
            snapshot=NOW,
            profile_name="home",
            profile=profile,
            workspace=str(folder / "workspace"),
            previous=None,
            full=False,
            allow_shrink=False,
            started="2026-01-02T00:00:00Z",
        )
    )
    return run


def labelled(folder: Path) -> Cartridge:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"set_name": "home", "profile": "home", "created": "2026-01-01T00:00:00Z"}
    label = write_label(str(folder), serial=1, capacity=None, **facts)
    return Cartridge(str(folder), label)


def place(cartridge: Cartridge, snapshot: str, number: int = 10_000) -> JournalLine:
    data = f"{snapshot} {number}".encode()
    spooled = Path(cartridge.path).parent.parent / "spooled"
    spooled.write_bytes(data)
    line = JournalLine(
        archive=f"archives/{snapshot}/{number:08}.tar.lz4",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        snapshot=snapshot,
    )
    cartridge.place(line, str(spooled))
    spooled.unlink()
    return line


def know(run: Run, line: JournalLine, state: str = "stored") -> None:
    """Enter an archive in the catalog."""
    row = ArchiveRow(
        archive=line.archive,
        snapshot=line.snapshot,
        bytes=line.bytes,
        sha256=line.sha256,
        content_bytes=1,
        members=1,
        contents=1,
        cartridge=1,
        state=state,
    )
    run.store.update_archives(lambda rows: [*rows, row])


def packed(run: Run, line: JournalLine, number: str) -> None:
    record = PackedArchive(
        number=number,
        archive=line.archive,
        bytes=line.bytes,
        sha256=line.sha256,
        content_bytes=1,
        members=1,
        contents=1,
    )
    run.save(os.path.join("packed", f"{number}.json"), record)


@pytest.fixture
def run(tmp_path: Path, source: Path) -> Run:
    return begun(tmp_path, source)


@pytest.fixture
def cartridge(tmp_path: Path) -> Cartridge:
    return labelled(tmp_path / "media" / "c1")


def test_a_cartridge_that_is_as_it_was_left_may_be_written(run: Run, cartridge: Cartridge) -> None:
    guards.check(cartridge, run)
    know(run, place(cartridge, EARLIER))
    packed(run, place(cartridge, NOW, 20_000), "00020000")
    before = snapshot_of(Path(cartridge.path))
    guards.check(cartridge, run)
    assert snapshot_of(Path(cartridge.path)) == before


def test_a_cartridge_inside_a_source_is_refused(run: Run, source: Path) -> None:
    with pytest.raises(WrongCartridge, match="inside the source 'source'"):
        guards.check(labelled(source / "deep" / "c1"), run)


def test_a_cartridge_beside_a_source_of_a_like_name_is_not_inside(run: Run, source: Path) -> None:
    guards.check(labelled(source.with_name("source 2") / "c1"), run)


def test_a_cartridge_that_lost_an_archive_is_refused(run: Run, cartridge: Cartridge) -> None:
    line = place(cartridge, EARLIER)
    know(run, line)
    cartridge.drop({line.archive})
    with pytest.raises(WrongCartridge, match=line.archive):
        guards.check(cartridge, run)


def test_a_cartridge_with_another_archive_of_that_name_is_refused(
    run: Run, cartridge: Cartridge
) -> None:
    line = place(cartridge, EARLIER)
    know(run, JournalLine(archive=line.archive, bytes=1, sha256="0" * 64, snapshot=EARLIER))
    with pytest.raises(WrongCartridge, match="not as it was written"):
        guards.check(cartridge, run)


def test_a_dead_archive_may_be_gone(run: Run, cartridge: Cartridge) -> None:
    line = place(cartridge, EARLIER)
    know(run, line, state="dead")
    guards.check(cartridge, run)
    cartridge.drop({line.archive})
    guards.check(cartridge, run)


def test_archives_of_another_workspace_are_refused(run: Run, cartridge: Cartridge) -> None:
    place(cartridge, EARLIER)
    with pytest.raises(WrongCartridge, match="another workspace"):
        guards.check(cartridge, run)


def test_another_workspace_is_told_apart_that_began_in_the_same_second(
    run: Run, cartridge: Cartridge
) -> None:
    line = place(cartridge, NOW)
    packed(run, dataclasses.replace(line, sha256="0" * 64), "00010000")
    with pytest.raises(WrongCartridge, match="another workspace"):
        guards.check(cartridge, run)


def test_what_a_run_took_back_may_still_lie_there(run: Run, cartridge: Cartridge) -> None:
    packed(run, place(cartridge, NOW), "00010000")
    take_back(run, ["00010000"])
    guards.check(cartridge, run)


def test_a_read_only_volume_is_refused(run: Run, loop_volume: MakeVolume) -> None:
    volume = loop_volume(4)
    cartridge = labelled(volume)
    subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
    with pytest.raises(WrongCartridge, match="read-only"):
        guards.check(cartridge, run)


def test_only_an_empty_cartridge_enters_the_catalog_by_itself(
    run: Run, cartridge: Cartridge
) -> None:
    line = place(cartridge, EARLIER)
    members.survey(run.request, run.store)
    assert run.store.cartridges() == []
    cartridge.drop({line.archive})
    members.survey(run.request, run.store)
    (row,) = run.store.cartridges()
    assert (row.uuid, row.state) == (cartridge.label.uuid, "blank")


@pytest.mark.parametrize("left", [None, b"", b'{"archive": "torn'])
def test_a_cartridge_that_lost_its_journal_is_not_taken_for_empty(
    run: Run, cartridge: Cartridge, left: bytes | None
) -> None:
    line = place(cartridge, EARLIER)
    cartridge.write_sums()
    journal = Path(cartridge.file("journal.jsonl"))
    if left is None:
        journal.unlink()
    else:
        journal.write_bytes(left)
    members.survey(run.request, run.store)
    if run.store.cartridges():
        with pytest.raises(WrongCartridge):
            guards.check(cartridge, run)
    assert Path(cartridge.file(line.archive)).exists()


def test_what_an_interrupted_writer_had_placed_is_noted_and_leaves_the_spool(
    run: Run, cartridge: Cartridge
) -> None:
    line = place(cartridge, NOW)
    packed(run, line, "00010000")
    Path(run.spooled("00010000")).write_bytes(b"still here")
    for _ in range(2):
        guards.reconcile(cartridge, run)
        assert run.placed() == {"00010000": 1}
        assert os.listdir(run.spool) == []


def test_what_was_placed_and_is_gone_is_refused(run: Run, cartridge: Cartridge) -> None:
    line = place(cartridge, NOW)
    packed(run, line, "00010000")
    run.note_placed("00010000", 1)
    cartridge.drop({line.archive})
    with pytest.raises(WrongCartridge, match="written and is gone"):
        guards.reconcile(cartridge, run)


def test_what_still_waits_in_the_spool_stays_there(run: Run, cartridge: Cartridge) -> None:
    line = JournalLine(archive=f"archives/{NOW}/x", bytes=1, sha256="0" * 64, snapshot=NOW)
    packed(run, line, "00020000")
    Path(run.spooled("00020000")).write_bytes(b"x")
    guards.reconcile(cartridge, run)
    assert run.placed() == {}
    assert len(os.listdir(run.spool)) == 1
