"""Waiting for a cartridge, until it is there or somebody says what to do.

The answer may come from the terminal, from `cartridge continue` in another one, from a hook, or
from the cartridge itself, by being mounted. Nothing on any volume is held open meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pipelines.report import complain, say
from tasks.catalog.runs import Place, Run
from tasks.formats.records import from_json, to_json
from tasks.media import durable
from tasks.model.errors import CartridgeError, FormatDamaged
from tasks.model.units import iso_now
from tasks.write import is_at_hand

# Seconds between two looks at the shelf.
_PERIOD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a run waits for, and since when; `status` shows it."""

    message: str
    since: str
    process: int


def wait_for_cartridge(run: Run, error: CartridgeError, *, ask: bool) -> bool:
    """Return True when the run may go on, False where somebody at the terminal stops it."""
    say(str(error)) if ask else complain(str(error))
    with _announced(run.place, error):
        if ask:
            print("Insert it and press Enter, or type q to stop: ", end="", flush=True)
        else:
            name = run.place.profile_name
            complain(f"It is noticed when it is there; or: cartridge continue {name}")
        while True:
            if ask and _is_typed():
                return _answer()
            if not ask:
                time.sleep(_PERIOD)
            if _is_told(run.place) or is_there(run):
                if ask:
                    print()
                return True


def waiting(place: Place) -> Waiting | None:
    """Return what the run of a profile waits for at this moment."""
    try:
        return from_json(Waiting, durable.read_whole(_notice(place)), _notice(place))
    except (OSError, FormatDamaged):
        return None


def forget(place: Place) -> None:
    """Take away what a killed run had announced."""
    durable.remove(_notice(place))
    durable.remove(_call(place))


def tell(place: Place) -> None:
    """Have the waiting run of a profile look again."""
    durable.write_whole(_call(place), to_json(asdict(Waiting(message="", since="", process=0))))


@contextlib.contextmanager
def _announced(place: Place, error: CartridgeError) -> Iterator[None]:
    """Let others see what is waited for; what a killed run left is overwritten."""
    durable.remove(_call(place))
    notice = Waiting(message=str(error), since=iso_now(), process=os.getpid())
    durable.write_whole(_notice(place), to_json(notice))
    try:
        yield
    finally:
        durable.remove(_notice(place))
        durable.remove(_call(place))


def _is_typed() -> bool:
    return bool(select.select([sys.stdin], [], [], _PERIOD)[0])


def _answer() -> bool:
    """Read the answer: nothing but Enter goes on, the end of input stops."""
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in ("q", "quit", "stop")


def _is_told(place: Place) -> bool:
    return os.path.exists(_call(place))


def is_there(run: Run) -> bool:
    """Whether the cartridge that is to be written next has appeared."""
    try:
        return is_at_hand(run, len(os.listdir(run.path("verified"))) + 1)
    except (CartridgeError, OSError):
        return False  # two volumes claim to be it, or one is being unmounted: look again


def _notice(place: Place) -> str:
    return os.path.join(place.folder, "waiting.json")


def _call(place: Place) -> str:
    return os.path.join(place.folder, "continue")
