"""Lists of jobs: each row of a CSV file becomes a profile and a labelled cartridge."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

from pipelines.init import make_volume, profile_text, quoted
from pipelines.workspace import load_profile, profile_path, profiles
from tasks.catalog import members
from tasks.catalog.runs import Place
from tasks.media import durable, locks
from tasks.media.layout import LABEL
from tasks.model.errors import CartridgeError, StageFailed, UsageError
from tasks.model.jobs import Job, parse_jobs
from tasks.model.profile import free_name, parse_profile

# The first line of a profile that may be rewritten; all others are somebody's own.
MARK = "# Written by 'cartridge batch --jobs'"
_HEAD = f"{MARK} and rewritten from it: edit the CSV file instead.\n"


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that was taken into the workspace as a profile, or the error that kept it out."""

    profile: str
    error: CartridgeError | None


def take_in(workspace: str, file: str) -> list[Taken]:
    """Write the profiles of all rows, and make and label their cartridges where these are new.

    A row that fails does not stop the others. Raises UsageError, before anything is written, where
    the file has mistakes.
    """
    file = os.path.abspath(os.path.expanduser(file))
    jobs = parse_jobs(_text(file), file)
    with durable.in_workspace():
        folder = os.path.dirname(profile_path(workspace, ""))
        os.makedirs(folder, exist_ok=True)
        with locks.exclusive(os.path.join(folder, "jobs.lock")):
            names = _names(workspace, jobs)
            pairs = zip(jobs, names, strict=True)
            return [Taken(name, _try(workspace, job, name, file)) for job, name in pairs]


def _text(file: str) -> str:
    try:
        return durable.read_whole(file).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(reason=f"--jobs: {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(reason=f"--jobs: {file} is not UTF-8; save it as UTF-8.") from error


def _names(workspace: str, jobs: list[Job]) -> list[str]:
    """Name the rows: as they say, as the profile that they became before, or as their source."""
    chosen = {job.name for job in jobs if job.name}
    marked = [name for name in profiles(workspace) if _is_marked(profile_path(workspace, name))]
    before = [(_ends(workspace, name), name) for name in marked if name not in chosen]
    taken = chosen | set(marked)
    names = []
    for job in jobs:
        ends = (job.source, [glob.escape(job.destination)])
        known = next((name for was, name in before if was == ends), "")
        name = job.name or known or free_name(os.path.basename(job.source), taken)
        taken.add(name)
        names.append(name)
    return names


def _ends(workspace: str, name: str) -> tuple[str, list[str]] | None:
    """Return the source of a marked profile and where its cartridge is looked for, if readable."""
    try:
        profile = load_profile(workspace, name)
    except (CartridgeError, OSError):
        return None
    return profile.source[0].path, profile.cartridges.search


def _is_marked(path: str) -> bool:
    try:
        return durable.read_whole(path).startswith(MARK.encode())
    except OSError:
        return False


def _try(workspace: str, job: Job, name: str, file: str) -> CartridgeError | None:
    try:
        _take_in(workspace, job, name, f"{file}: line {job.line}")
    except CartridgeError as error:
        return error
    except OSError as error:
        return StageFailed(stage=f"{file}: line {job.line}", reason=str(error))
    return None


def _take_in(workspace: str, job: Job, name: str, row: str) -> None:
    path = profile_path(workspace, name)
    if os.path.lexists(path) and not _is_marked(path):
        raise UsageError(
            reason=f"{row}: the profile '{name}' is not one that 'cartridge batch --jobs' wrote, "
            f"and is not overwritten ({path}); give the row another name."
        )
    text = _profile(job, name)
    parse_profile(name, text, row)
    _label(workspace, name, job.destination)
    if not os.path.lexists(path) or durable.read_whole(path) != text.encode():
        durable.write_whole(path, text.encode())


def _profile(job: Job, name: str) -> str:
    """Write the profile of a row as TOML."""
    text = _HEAD + profile_text(name, [job.source], [job.destination], None, name)
    text += f"\n[archive]\ncodec = {quoted(job.codec)}\n" if job.codec else ""
    text += f"\n[retention]\nkeep_last = {job.keep}\n" if job.keep else ""
    return text


def _label(workspace: str, name: str, volume: str) -> None:
    """Make the destination a cartridge, once: one that is known and away is waited for instead."""
    rows = Place(workspace, name).store.cartridges()
    if os.path.realpath(volume) in {os.path.realpath(row.location) for row in rows}:
        return
    if not os.path.exists(os.path.join(volume, LABEL)):
        make_volume(volume)
        store = Place(workspace, name).store
        members.label(store, volume, set_name=name, profile=name, capacity=None)
