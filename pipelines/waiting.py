"""Waiting for a cartridge, until it is there or somebody says what to do.

The answer may come from the terminal, from `cartridge continue` in another one, from a hook, or
from the cartridge itself, by being mounted. Nothing on any volume is held open meanwhile.
"""

from __future__ import annotations

import select
import sys
import time

from pipelines.notices import announced, is_told
from pipelines.report import complain, say
from tasks.catalog.chosen import due, is_at_hand
from tasks.catalog.runs import Run
from tasks.model.errors import CartridgeError

# Seconds between two looks at the shelf.
_PERIOD = 1.0


def wait_for_cartridge(run: Run, error: CartridgeError, *, ask: bool) -> bool:
    """Return True when the run may go on, False where somebody at the terminal stops it."""
    say(str(error)) if ask else complain(str(error))
    with announced(run.place, error):
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
            if is_told(run.place) or is_there(run):
                if ask:
                    print()
                return True


def _is_typed() -> bool:
    return bool(select.select([sys.stdin], [], [], _PERIOD)[0])


def _answer() -> bool:
    """Read the answer: nothing but Enter goes on, the end of input stops."""
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in ("q", "quit", "stop")


def is_there(run: Run) -> bool:
    """Whether the cartridge that is to be written next has appeared."""
    try:
        return any(is_at_hand(run, sequence) for sequence in due(run))
    except (CartridgeError, OSError):
        return False  # two volumes claim to be it, or one is being unmounted: look again
