"""`cartridge prune`: apply retention now."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.request import Request
from tasks.catalog.runs import Place
from tasks.media import durable, locks
from tasks.model.errors import RunUnfinished
from tasks.model.units import format_size, iso

if TYPE_CHECKING:
    from tasks.prune import PrunePlan


@app.command(epilog="Example: cartridge prune home --dry-run")
def prune(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Forget snapshots that no rule keeps, and remove their archives from cartridges here."""
    voice = Voice(json)

    def action() -> None:
        from tasks.prune import execute, plan_prune

        folder = find_workspace(workspace)
        profile = load_profile(folder, name)
        place = Place(folder, name)
        if dry_run:
            plan = plan_prune(place.store, profile.retention)
            size = format_size(sum(row.bytes for row in plan.dead))
            told = [*_told(plan), f"{len(plan.dead)} archives, {size}, would be removed."]
            facts = {**asdict(plan), "dead": [row.archive for row in plan.dead]}
            voice.result(facts, told)
            return
        durable.make_folders(place.folder)
        with locks.ProfileLock(place.lock, name).alone():
            run = place.unfinished()
            if run is not None:
                raise RunUnfinished(snapshot=run.snapshot, profile=name)
            # Not before: a run that has just ended may need what was dead until then.
            plan = plan_prune(place.store, profile.retention)
            result = execute(plan, request_of(place, profile), place.store)
        end = (
            f"Freed {format_size(result.freed)}; {format_size(result.waiting)} lie on cartridges "
            "that are not here and go when they next appear."
        )
        voice.result(asdict(result), [*_told(plan), end])

    finish(voice, action)


def _told(plan: PrunePlan) -> list[str]:
    kept = [f"keep   {snapshot}  ({', '.join(why)})" for snapshot, why in plan.kept.items()]
    return kept + [f"forget {snapshot}" for snapshot in plan.forgotten]


def request_of(place: Place, profile: object) -> Request:
    """Describe the profile as a run would, for stages that need no snapshot."""
    return Request(
        snapshot="",
        profile_name=place.profile_name,
        profile=profile,  # type: ignore[arg-type]
        workspace=place.workspace,
        previous=None,
        full=False,
        allow_shrink=False,
        started=iso(datetime.now(UTC)),
    )
