"""A run that begins gets a name that nothing else has."""

from pathlib import Path

from tasks.catalog.opening import Options, open_run
from tasks.catalog.runs import Place
from tasks.catalog.store import DEAD
from tasks.model.profile import parse_profile
from tasks.model.words import ArchiveRow


def archive_of(snapshot: str) -> ArchiveRow:
    """An archive of a snapshot that was given up, on a cartridge that is away."""
    return ArchiveRow(
        archive=f"archives/{snapshot}/0001000000.tar.lz4",
        snapshot=snapshot,
        bytes=1,
        sha256="0" * 64,
        content_bytes=1,
        members=1,
        contents=1,
        cartridge=1,
        state=DEAD,
    )


def test_a_run_is_not_called_as_one_whose_archives_are_still_on_a_cartridge(tmp_path: Path) -> None:
    """It may begin in the same second, or when the clock was set back: the ids are seconds."""
    place = Place(str(tmp_path), "home")
    place.store.update_archives(lambda _: [archive_of("20990101T000000Z")])
    profile = parse_profile("home", f'[[source]]\npath = "{tmp_path}"\n', "home.toml")
    run = open_run(place, profile, Options(), is_alone=True)
    assert run.snapshot == "20990101T000001Z"
