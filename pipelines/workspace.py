"""Finding the workspace and the profiles in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tasks.catalog.runs import Place
from tasks.media import durable
from tasks.media.patterns import check_patterns
from tasks.model.errors import ProfileInvalid, ProfileMissing
from tasks.model.profile import Profile, parse_profile

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
    path = profile_path(workspace, name)
    try:
        text = durable.read_whole(path).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProfileMissing(profile=name, folder=os.path.dirname(path)) from error
    profile = parse_profile(name, text, path)
    mistakes = list(_pattern_mistakes(profile, path))
    if mistakes:
        raise ProfileInvalid(file=path, count=len(mistakes), mistakes="\n".join(mistakes))
    return profile


def _pattern_mistakes(profile: Profile, file: str) -> Iterator[str]:
    """Name the patterns that can match nothing; blank lines and comments are gitignore syntax."""
    for number, source in enumerate(profile.source, 1):
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
    """Return the state of a profile, which has to exist."""
    load_profile(workspace, name)
    return Place(workspace, name)
