"""Beginning a run, going on with the unfinished one, and giving it up."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tasks.catalog import export
from tasks.catalog.contents import trim
from tasks.catalog.request import Request
from tasks.catalog.runs import Place, Run
from tasks.catalog.store import DEAD
from tasks.media import durable
from tasks.media.spool import Spool
from tasks.model.errors import UsageError
from tasks.model.profile import Profile
from tasks.model.profile_text import public_text
from tasks.model.units import iso, snapshot_id, snapshot_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a command line asks of a run besides its profile."""

    full: bool = False
    allow_shrink: bool = False


def open_run(place: Place, profile: Profile, options: Options, *, is_alone: bool) -> Run:
    """Return the unfinished run of a profile, or begin one; its snapshot's id is fixed here.

    Where nobody else works on it, what killed processes left is taken away. Raises UsageError where
    the options would change what the unfinished run was to do.
    """
    if is_alone:
        _discard_rests(place)
    place.store.keep_profile(public_text(place.profile_name, profile))
    run = place.unfinished()
    if run is None:
        return _begin(place, profile, options)
    if options.full and not run.request.full:
        raise UsageError(
            reason=f"The unfinished snapshot {run.snapshot} is not a full one; "
            "finish it first without --full, or give it up with --abandon."
        )
    if is_alone:
        _tidy(run)
    _look_where(run, profile.cartridges.search)
    return run


def request_for(place: Place, profile: Profile, options: Options, now: datetime) -> Request:
    """Describe a run that begins now; the secrets of `[notify]` stay out of its record."""
    known = place.store.snapshots()
    return Request(
        snapshot=snapshot_id(now),
        profile_name=place.profile_name,
        profile=profile.model_copy(update={"notify": Profile.model_fields["notify"].default}),
        workspace=place.workspace,
        previous=known[-1] if known else None,
        full=options.full,
        allow_shrink=options.allow_shrink,
        started=iso(now),
        token=secrets.token_hex(4),
    )


def abandon(place: Place) -> str | None:
    """Give the unfinished snapshot up; return its id, None where there is none.

    What it has put on cartridges is dead from now on, wherever they are; the next prune removes it.
    """
    _discard_rests(place)
    run = place.unfinished()
    if run is None:
        return None
    if run.snapshot in place.store.snapshots():
        run.discard()  # it is complete; only its tidying up was cut short
        return None
    place.store.forget([run.snapshot])
    dead = [replace(row, state=DEAD) for row in export.rows_of(run, run.taken())]
    if dead:
        place.store.update_archives(lambda rows: export.merged(rows, dead))
    run.discard()
    return run.snapshot


def _discard_rests(place: Place) -> None:
    """Remove what is left of runs that ended together, or were not removed to the end."""
    for run in place.runs():
        if run.is_over:
            run.discard()


def _begin(place: Place, profile: Profile, options: Options) -> Run:
    now = datetime.now(UTC)
    newest = place.store.newest_id()
    while snapshot_id(now) == newest:
        time.sleep(0.05)  # ids are seconds, and every snapshot has its own
        now = datetime.now(UTC)
    request = request_for(place, profile, options, now)
    if newest is not None and request.snapshot < newest:
        # A clock that went back must not reorder history.
        after = snapshot_id(snapshot_time(newest) + timedelta(seconds=1))
        request = replace(request, snapshot=after)
    run = Run(place, request.snapshot)
    run.create(request)
    return run


def _look_where(run: Run, search: list[str]) -> None:
    """Take over where cartridges are looked for: that may change while a run waits for one."""
    request = run.request
    cartridges = request.profile.cartridges.model_copy(update={"search": search})
    profile = request.profile.model_copy(update={"cartridges": cartridges})
    if profile != request.profile:
        run.save("request.json", replace(request, profile=profile))


def _tidy(run: Run) -> None:
    """Take away what killed processes left: drafts in the spool, a torn claim."""
    durable.make_folders(run.spool)
    Spool(run.spool, 0, 0).sweep()
    trim(run.path("claims"))
