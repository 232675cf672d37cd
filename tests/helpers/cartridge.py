"""Cartridges by themselves: labelled, and written to archive by archive."""

import hashlib
from pathlib import Path

from tasks.media.cartridge import Cartridge
from tasks.media.labelling import write_label
from tasks.model.words import JournalLine

SNAPSHOT = "20260101T000000Z"


def labelled(folder: Path, capacity: int | None = None) -> Cartridge:
    """Label a folder as the first cartridge of a set."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"set_name": "home", "profile": "home", "created": "2026-01-01T00:00:00Z"}
    write_label(str(folder), serial=1, capacity=capacity, **facts)
    return Cartridge.open(str(folder))


def line(number: int, data: bytes) -> JournalLine:
    """Return what a journal says of an archive."""
    return JournalLine(
        archive=f"archives/{SNAPSHOT}/{number:08}.tar.lz4",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        snapshot=SNAPSHOT,
    )


def place(cartridge: Cartridge, number: int, data: bytes) -> JournalLine:
    """Place an archive, which was spooled beside the cartridge."""
    spooled = Path(cartridge.path).parent / "spooled"
    spooled.write_bytes(data)
    placed = line(number, data)
    cartridge.place(placed, str(spooled))
    spooled.unlink()
    return placed
