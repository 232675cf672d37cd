"""Finding the workspace, and profiles and snapshots in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.catalog.runs import Place
from tasks.catalog.store import Store
from tasks.media import durable
from tasks.model.errors import ProfileInvalid, ProfileMissing, SnapshotMissing, UsageError
from tasks.model.units import parse_moment, snapshot_time

if TYPE_CHECKING:
    from tasks.model.profile import Profile, Source

VARIABLE = "CARTRIDGE_WORKSPACE"


def find_workspace(option: str | None) -> str:
    """Return the workspace: the option, the variable, ./workspace, or the user's data folder."""
    for choice in (option, os.environ.get(VARIABLE)):
        if choice:
            return os.path.abspath(os.path.expanduser(choice))
    if os.path.isdir("workspace"):
        return os.path.abspath("workspace")
    from platformdirs import user_data_dir

    return user_data_dir("cartridge", appauthor=False)


def profile_path(workspace: str, name: str) -> str:
    """Name the file of a profile."""
    return os.path.join(workspace, "profiles", f"{name}.toml")


def load_profile(workspace: str, name: str) -> Profile:
    """Read and check a profile; raises ProfileMissing and ProfileInvalid."""
    from tasks.model.profile import parse_profile

    path = profile_path(workspace, name)
    try:
        text = _profile_bytes(workspace, name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mistake = f"byte {error.start + 1} is not UTF-8: save the file as UTF-8"
        raise ProfileInvalid(file=path, count=1, mistakes=mistake) from error
    profile = parse_profile(name, text, path)
    mistakes = list(_pattern_mistakes(profile.source, path))
    if mistakes:
        raise ProfileInvalid(file=path, count=len(mistakes), mistakes="\n".join(mistakes))
    return profile


def _profile_bytes(workspace: str, name: str) -> bytes:
    path = profile_path(workspace, name)
    if os.path.basename(name) != name:  # its state would lie elsewhere
        raise ProfileMissing(profile=name, folder=os.path.join(workspace, "profiles"))
    try:
        return durable.read_whole(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProfileMissing(profile=name, folder=os.path.dirname(path)) from error


def _pattern_mistakes(sources: list[Source], file: str) -> Iterator[str]:
    """Name the patterns that can match nothing; blank lines and comments are gitignore syntax."""
    from tasks.media.gitignore import check_patterns

    for number, source in enumerate(sources, 1):
        for key, patterns in (("exclude", source.exclude), ("include", source.include)):
            meant = [p for p in patterns if p.strip() and not p.startswith("#")]
            for mistake in check_patterns(meant):
                yield f"{file}: source[{number}].{key}: {mistake}"


def profiles(workspace: str) -> list[str]:
    """Return the names of all profiles, sorted."""
    folder = os.path.join(workspace, "profiles")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def open_place(workspace: str, name: str) -> Place:
    """Return the state of a profile, which has to exist; mistakes in it are no matter here."""
    _profile_bytes(workspace, name)
    return Place(workspace, name)


def lenient_sources(workspace: str, name: str) -> list[str]:
    """Name the sources of a profile that are judged by size and mtime alone.

    Few profiles have one, and to check a profile takes longer than to compare 100,000 entries.
    """
    if b"change_detection" not in _profile_bytes(workspace, name):
        return []
    sources = load_profile(workspace, name).source
    return [source.name for source in sources if source.change_detection == "mtime"]


def choose_snapshot(store: Store, profile: str, snapshot: str | None, at: str | None) -> str:
    """Return the snapshot that is meant: an id, a time, or the newest; else SnapshotMissing."""
    if at is None:
        return store.require(profile, snapshot)
    if snapshot is not None:
        raise UsageError(reason="--snapshot and --at exclude each other.")
    try:
        moment = parse_moment(at)
    except ValueError as error:
        raise UsageError(reason=f"--at: '{at}' is not a time like '2026-11-01 12:00'.") from error
    earlier = [s for s in store.snapshots() if snapshot_time(s) <= moment]
    if not earlier:
        raise SnapshotMissing(profile=profile, wanted=f"from {at} or earlier")
    return earlier[-1]
