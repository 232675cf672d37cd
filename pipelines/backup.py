"""`cartridge backup`: one snapshot, or going on with the unfinished one."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice, is_terminal, say
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.runs import Place, Request, Run
from tasks.media import locks
from tasks.media.spool import Spool
from tasks.model.errors import CartridgeError, CartridgeWanted, SpoolFull, UsageError
from tasks.model.profile import Profile
from tasks.model.units import format_size, iso, snapshot_id
from tasks.model.words import Outcome

_EXIT = {"complete": 0, "unchanged": 0, "partial": 3, "waiting": 4}


@app.command(epilog="Example: cartridge backup home --batch")
def backup(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    full: Annotated[bool, typer.Option("--full", help="Store everything again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be stored, and why.")
    ] = False,
    batch: Annotated[bool, typer.Option("--batch", help="Never ask anything.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Packers at once.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="URL", help="A luigid to report to.")
    ] = None,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Accept a source that lost most files.")
    ] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Back up a profile: one snapshot, or go on with the unfinished one."""
    voice = Voice(json)
    began = time.monotonic()
    place = Place(find_workspace(workspace), name)
    state: dict[str, Any] = {}

    def action() -> int:
        profile = load_profile(place.workspace, name)
        if dry_run:
            return _dry_run(place, profile, voice, allow_shrink=allow_shrink, full=full)
        os.makedirs(place.folder, exist_ok=True)
        with locks.held_by_this_run(place.lock, name):
            run = open_run(place, profile, full=full, allow_shrink=allow_shrink)
            state["run"] = run
            packers = workers or profile.run.workers or os.cpu_count() or 1
            url = scheduler or _url(profile)
            ask = is_terminal() and not batch and not json
            outcome = _run_until_done(run, packers, url, ask=ask)
            outcome = replace(outcome, seconds=round(time.monotonic() - began, 3))
            close_run(run)
        voice.result(asdict(outcome), lines(outcome, place, name))
        return _EXIT[outcome.status]

    def facts(error: CartridgeError) -> dict[str, Any]:
        run = state.get("run")
        waits = error.exit_code == CartridgeWanted.exit_code
        return waiting_facts(run, time.monotonic() - began) if run and waits else {}

    finish(voice, action, facts)


def open_run(place: Place, profile: Profile, *, full: bool, allow_shrink: bool) -> Run:
    """Return the unfinished run of a profile, or begin one; its snapshot's id is fixed here.

    Raises UsageError where the options would change what the unfinished run was to do.
    """
    unfinished = place.runs()
    for run in unfinished:
        if not run.has("request.json"):
            run.discard()
            continue
        if full and not run.request.full:
            raise UsageError(
                reason=f"The unfinished snapshot {run.snapshot} is not a full one; "
                "finish it first without --full."
            )
        _tidy(run)
        _look_where(run, profile.cartridges.search)
        return run
    now = datetime.now(UTC)
    known = place.store.snapshots()
    snapshot = snapshot_id(now)
    while known and snapshot <= known[-1]:
        time.sleep(0.05)  # ids are seconds, and every snapshot has its own
        now = datetime.now(UTC)
        snapshot = _after(known[-1]) if snapshot_id(now) < known[-1] else snapshot_id(now)
    run = Run(place, snapshot)
    run.create(
        Request(
            snapshot=snapshot,
            profile_name=place.profile_name,
            profile=profile,
            workspace=place.workspace,
            previous=known[-1] if known else None,
            full=full,
            allow_shrink=allow_shrink,
            started=iso(now),
        )
    )
    return run


def _look_where(run: Run, search: list[str]) -> None:
    """Take over where cartridges are looked for: that may change while a run waits for one."""
    request = run.request
    cartridges = request.profile.cartridges.model_copy(update={"search": search})
    profile = request.profile.model_copy(update={"cartridges": cartridges})
    if profile != request.profile:
        run.save("request.json", replace(request, profile=profile))


def close_run(run: Run) -> None:
    """Remove what a finished run has left in the workspace."""
    run.discard()


def _tidy(run: Run) -> None:
    """Take away what killed processes left: drafts in the spool, a torn claim."""
    from tasks.catalog.contents import trim

    os.makedirs(run.spool, exist_ok=True)
    Spool(run.spool, 0, 0).sweep()
    trim(run.path("claims"))


def _after(snapshot: str) -> str:
    """Return the id one second later: a clock that went back must not reorder history."""
    from datetime import timedelta

    from tasks.model.units import snapshot_time

    return snapshot_id(snapshot_time(snapshot) + timedelta(seconds=1))


def _url(profile: Profile) -> str | None:
    return None if profile.run.scheduler == "local" else profile.run.scheduler


def _run_until_done(run: Run, packers: int, url: str | None, *, ask: bool) -> Outcome:
    """Run the stages; where somebody can be asked, wait for cartridges and go on."""
    from pipelines.engine import run_stages
    from tasks.prune import PruneBackups

    identity = {
        "workspace": run.place.workspace,
        "profile": run.place.profile_name,
        "snapshot": run.snapshot,
    }
    while True:
        try:
            run_stages(PruneBackups(**identity), packers, url)
            return run.load("outcome.json", Outcome)
        except (CartridgeWanted, SpoolFull) as error:
            if not ask or not _insert(run, error):
                raise
        except CartridgeError:
            if not run.has("plan.json"):
                run.discard()  # nothing is stored yet: the next run looks at the sources again
            raise


def _insert(run: Run, error: CartridgeError) -> bool:
    """Ask for a cartridge; False where the answer is to stop."""
    say(str(error))
    try:
        answer = input("Insert it and press Enter, or type q to stop: ")
    except EOFError:
        return False
    return answer.strip().lower() not in ("q", "quit", "stop")


def waiting_facts(run: Run, seconds: float) -> dict[str, Any]:
    """Describe a run that has ended before its snapshot was complete."""
    if not os.path.isdir(run.folder):
        return {}
    placed = run.placed()
    packed = {p.number: p for p in run.packed()}
    return {
        "snapshot": run.snapshot,
        "status": "waiting",
        "archives": len(placed),
        "bytes_stored": sum(packed[number].bytes for number in placed),
        "cartridges": sorted(set(placed.values())),
        "unreadable": [trouble.path for trouble in run.troubles()],
        "seconds": round(seconds, 3),
    }


def lines(outcome: Outcome, place: Place, name: str) -> list[str]:
    """Tell people how a run ended, and what comes next."""
    if outcome.snapshot is None:
        told = [f"Nothing has changed since the last snapshot ({outcome.entries} entries)."]
        return told + _remarks(outcome)
    by_serial = {row.serial: row for row in place.store.cartridges()}
    told = [
        f"Snapshot {outcome.snapshot}: {outcome.entries} entries; {outcome.added} added, "
        f"{outcome.modified} modified, {outcome.moved} moved, {outcome.metadata} with new "
        f"metadata, {outcome.deleted} deleted.",
        f"Read {format_size(outcome.bytes_read)}, stored {format_size(outcome.bytes_stored)} in "
        f"{outcome.archives} archives, in {outcome.seconds:.1f} s.",
    ]
    for serial in outcome.cartridges:
        row = by_serial[serial]
        room = f" of {format_size(row.capacity)}" if row.capacity else ""
        told.append(f"  {row.label}: {format_size(row.used)}{room} used, at {row.location}")
    told += _remarks(outcome)
    told.append(f"To restore it: cartridge restore {name} DEST")
    return told


def _remarks(outcome: Outcome) -> list[str]:
    told = _named(outcome.unreadable, "could not be read and will be tried again next time")
    told += _named(outcome.skipped, "sockets were skipped")
    if outcome.clamped:
        told.append(f"{outcome.clamped} times lie outside 1677 to 2262 and were clamped.")
    return told


def _named(paths: list[str], what: str) -> list[str]:
    if not paths:
        return []
    more = [f"  and {len(paths) - 20} more"] if len(paths) > 20 else []
    return [f"{len(paths)} {what}:", *(f"  {path}" for path in paths[:20]), *more]


def _dry_run(
    place: Place, profile: Profile, voice: Voice, *, allow_shrink: bool, full: bool
) -> int:
    """Scan and compare, in a folder that is thrown away; list every change with its reason."""
    import tempfile

    from tasks.catalog.changes import listed
    from tasks.diff import diff
    from tasks.scan import scan

    known = place.store.snapshots()
    with tempfile.TemporaryDirectory(prefix="cartridge-") as folder:
        run = Run(Place(folder, place.profile_name), "dry-run")
        run.create(
            Request(
                snapshot="dry-run",
                profile_name=place.profile_name,
                profile=profile,
                workspace=place.workspace,
                previous=known[-1] if known else None,
                full=full,
                allow_shrink=allow_shrink,
                started=iso(datetime.now(UTC)),
            )
        )
        if known:
            os.symlink(place.store.manifest_path(known[-1]), run.store.manifest_path(known[-1]))
        for source in profile.source:
            scan(source, place.workspace, run.scan_path(source.name))
        summary = diff(run)
        changes = list(listed(run.path("changes.parquet")))
    size = sum(c.size for c in changes if c.change in ("added", "modified"))
    told = [f"{c.change:9} {c.reason:7} {c.path}" for c in changes]
    told.append(f"At most {format_size(size)} would be read and stored. Nothing was written.")
    voice.result({**asdict(summary), "changes": [asdict(c) for c in changes]}, told)
    return 0
