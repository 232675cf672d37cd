"""What a run was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.profile import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a run does; a rerun reads it again, so that it cannot mean something else."""

    snapshot: str
    profile_name: str
    profile: Profile
    workspace: str
    previous: str | None
    full: bool
    allow_shrink: bool
    started: str
    # Tells runs apart that began in the same second on several machines with one luigid.
    token: str = ""


def sorted_sources(request: Request) -> list[str]:
    """Return the names of the sources in the order of their rows."""
    return sorted((s.name for s in request.profile.source), key=lambda name: f"{name}/".encode())
