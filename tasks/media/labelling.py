"""Labelling: an empty volume becomes a cartridge, and no other does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator

from tasks.formats.records import to_json
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.media.layout import LABEL
from tasks.model.errors import CartridgeError, ForeignVolume, LabelledAlready, VolumeUnusable
from tasks.model.words import FORMAT_VERSION, Label

# What an empty volume may hold without being anybody's: file systems and desktops put it there.
_NOT_FOREIGN = {"lost+found", "System Volume Information", "$RECYCLE.BIN", ".fseventsd"}


def foreign_names(path: str) -> list[str]:
    """Return what lies on a volume that is not empty; hidden litter of desktops is not counted."""
    names = sorted(os.listdir(path))
    return [n for n in names if n not in _NOT_FOREIGN and not n.startswith(".Trash")]


def require_empty(path: str) -> None:
    """Raise an error where a volume must not be labelled.

    That is LabelledAlready, ForeignVolume, or VolumeUnusable where it cannot be listed.
    """
    try:
        found = foreign_names(path)
    except OSError as error:
        raise VolumeUnusable(path=path, reason=error.strerror) from error
    if LABEL in found:
        raise LabelledAlready(path=path, label=_title(path))
    if found:
        raise ForeignVolume(path=path, found=", ".join(found[:3]) + (", ..." * (len(found) > 3)))


def _title(path: str) -> str:
    try:
        return Cartridge.open(path).label.title
    except (OSError, CartridgeError):
        return "(its label cannot be read)"


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep others from labelling the volume meanwhile; what writes a cartridge locks it so too."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_label(
    path: str,
    *,
    set_name: str,
    serial: int,
    profile: str,
    capacity: int | None,
    created: str,
) -> Label:
    """Label an empty volume.

    Raises what `require_empty` does, and VolumeUnusable where it cannot be written.
    """
    label = Label(
        format_version=FORMAT_VERSION,
        set=set_name,
        serial=serial,
        uuid=str(uuid.uuid4()),
        profile=profile,
        capacity=capacity,
        created=created,
        codec="lz4",
        encryption="none",
    )
    try:
        with _alone(path):
            require_empty(path)
            durable.write_whole(os.path.join(path, LABEL), to_json(label, indent=2))
    except OSError as error:
        raise VolumeUnusable(path=path, reason=error.strerror) from error
    return label
