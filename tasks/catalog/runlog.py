"""The log of a run in the workspace: one JSON object per line, from all its processes."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from typing import Any

from tasks.catalog.runs import Place

_KEPT = 50


def log(place: Place, snapshot: str, event: str, **facts: object) -> None:
    """Append an event; a line is written at once, so that processes do not mix theirs."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"time": moment, "event": event, **facts}, ensure_ascii=True) + "\n"
    with contextlib.suppress(OSError):  # a log is not worth a backup
        fd = os.open(path(place, snapshot), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def path(place: Place, snapshot: str) -> str:
    """Name the log of a run."""
    return os.path.join(_folder(place), f"{snapshot}.jsonl")


def since(place: Place, snapshot: str, process: int) -> list[dict[str, Any]]:
    """Return what the log of a run tells since a process last began to work on it."""
    with open(path(place, snapshot), encoding="ascii") as file:
        events = [json.loads(line) for line in file]
    begun = [n for n, event in enumerate(events) if event.get("process") == process]
    return events[begun[-1] :] if begun else []


def begin(place: Place) -> None:
    """Make the folder of the logs, and remove the oldest of many."""
    os.makedirs(_folder(place), mode=0o700, exist_ok=True)
    for name in sorted(os.listdir(_folder(place)))[:-_KEPT]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(_folder(place), name))


def _folder(place: Place) -> str:
    return os.path.join(place.folder, "logs")
