"""Labelling: an empty volume becomes a cartridge, and no other does."""

from __future__ import annotations

import os
import uuid

from tasks.formats.records import to_json
from tasks.media import durable
from tasks.media.cartridge import LABEL, NOT_FOREIGN
from tasks.model.errors import ForeignVolume, VolumeUnusable
from tasks.model.words import FORMAT_VERSION, Label


def foreign_names(path: str) -> list[str]:
    """Return what lies on a volume that is not empty; hidden litter of desktops is not counted."""
    names = sorted(os.listdir(path))
    return [n for n in names if n not in NOT_FOREIGN and not n.startswith(".Trash")]


def require_empty(path: str) -> None:
    """Raise ForeignVolume or VolumeUnusable where a volume must not be labelled."""
    try:
        found = foreign_names(path)
    except OSError as error:
        raise VolumeUnusable(path=path, reason=error.strerror) from error
    if LABEL in found:
        raise VolumeUnusable(path=path, reason="it is labelled already")
    if found:
        raise ForeignVolume(path=path, found=", ".join(found[:3]) + (", ..." * (len(found) > 3)))


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

    Raises ForeignVolume where something lies on it, VolumeUnusable where it cannot be written.
    """
    require_empty(path)
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
        durable.write_whole(os.path.join(path, LABEL), to_json(label, indent=2))
    except OSError as error:
        raise VolumeUnusable(path=path, reason=error.strerror) from error
    return label
