"""Notices: what a waiting run tells others, and what they tell it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.catalog.runs import Place
from tasks.formats.records import from_json, to_json
from tasks.media import durable
from tasks.model.errors import CartridgeError, FormatDamaged
from tasks.model.units import iso_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a run waits for, and since when; `status` shows it."""

    message: str
    since: str
    process: int


@contextlib.contextmanager
def announced(place: Place, error: CartridgeError) -> Iterator[None]:
    """Let others see what a run waits for; what a killed one left is overwritten."""
    durable.remove(_call(place))
    notice = Waiting(message=str(error), since=iso_now(), process=os.getpid())
    durable.write_whole(_notice(place), to_json(notice))
    try:
        yield
    finally:
        durable.remove(_notice(place))
        durable.remove(_call(place))


def waiting(place: Place) -> Waiting | None:
    """Return what the run of a profile waits for at this moment."""
    try:
        return from_json(Waiting, durable.read_whole(_notice(place)), _notice(place))
    except (OSError, FormatDamaged):
        return None


def is_told(place: Place) -> bool:
    """Whether somebody has had the waiting run look again."""
    return os.path.exists(_call(place))


def tell(place: Place) -> None:
    """Have the waiting run of a profile look again."""
    durable.write_whole(_call(place), b"")


def forget(place: Place) -> None:
    """Take away what a killed run had announced."""
    durable.remove(_notice(place))
    durable.remove(_call(place))


def _notice(place: Place) -> str:
    return os.path.join(place.folder, "waiting.json")


def _call(place: Place) -> str:
    return os.path.join(place.folder, "continue")
