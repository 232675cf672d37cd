"""`cartridge remind`: say, and send news, where nothing was backed up for too long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines import notify
from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, complain
from pipelines.status import last_looked
from pipelines.workspace import find_workspace, load_profile, profiles
from tasks.catalog.runs import Place
from tasks.model.errors import CartridgeError


@app.command(epilog="Example: cartridge remind")
def remind(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Profiles; all by default.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Send news for every profile that has backed up nothing for its `stale_days`."""
    voice = Voice(json)

    def action() -> int:
        folder = find_workspace(workspace)
        found, wrong = [], []
        for each in name or profiles(folder):
            try:
                found.append(_facts(folder, each))
            except CartridgeError as error:
                wrong.append(error)
                complain(str(error))
        late = [facts for facts in found if facts["stale"]]
        told = [f"{f['profile']}: {_sentence(f)}" for f in found]
        voice.result({"profiles": found}, told or ["There is no profile."])
        return wrong[0].exit_code if wrong else 1 if late else 0

    finish(voice, action)


def _facts(folder: str, name: str) -> dict[str, Any]:
    profile = load_profile(folder, name)
    last = last_looked(Place(folder, name))
    days = (datetime.now(UTC) - last).days if last else None
    limit = profile.notify.stale_days
    facts = {
        "profile": name,
        "last": last.strftime("%Y-%m-%dT%H:%M:%SZ") if last else None,
        "days": days,
        "stale_days": limit,
        "stale": limit is not None and (days is None or days >= limit),
    }
    if facts["stale"]:
        notify.check(profile.notify)
        notify.send(profile.notify, "stale", f"cartridge: {name}", _sentence(facts))
    return facts


def _sentence(facts: dict[str, Any]) -> str:
    if facts["last"] is None:
        return "nothing was ever backed up."
    late = f", more than its {facts['stale_days']} days" if facts["stale"] else ""
    return f"last looked at {facts['last']}, {facts['days']} days ago{late}."
