"""`cartridge continue`: have a run that waits for a cartridge look again."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.notices import tell, waiting
from pipelines.report import Voice
from pipelines.workspace import find_workspace, open_place
from tasks.media import locks
from tasks.model.errors import UsageError


@app.command("continue", epilog="Example: cartridge continue home")
def go_on(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Have a run that waits for a cartridge look for it now."""
    voice = Voice(json)

    def action() -> None:
        place = open_place(find_workspace(workspace), name)
        notice = waiting(place)
        if notice is None or not locks.is_held(place.lock):
            raise UsageError(reason=f"No run of '{name}' waits for a cartridge at this moment.")
        tell(place)
        facts = {"profile": name, "waits_for": notice.message, "since": notice.since}
        voice.result(facts, [f"Told it to look again. It said: {notice.message}"])

    finish(voice, action)
