"""A profile as TOML again: the copy that lies on every cartridge, without what may be secret."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tasks.model.profile import Profile

# All that is copied: what a later version adds is left out until somebody has thought about it.
_COPIED = ("source", "cartridges", "archive", "retention", "run")
_LEFT_OUT = ("encryption", "hooks", "notify")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def quoted(text: str) -> str:
    """Write a text as a string of TOML; JSON's strings are TOML's too, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def public_text(name: str, profile: Profile, left_out: Collection[str] = ()) -> str:
    """Write a profile as TOML without `[hooks]`, `[notify]` and passwords in addresses.

    Where a section was left out, now or before (`left_out`), a comment says so.
    """
    facts = profile.model_dump(include=set(_COPIED), exclude_defaults=True)
    if "scheduler" in facts.get("run", {}):
        facts["run"]["scheduler"] = _without_password(profile.run.scheduler)
    lines = [f"# The profile '{name}' of cartridge, as it was on the cartridges."]
    lines += [
        f"# [{section}] was left out: it may hold secrets. Write it again."
        for section in _LEFT_OUT
        if section in left_out
        or getattr(profile, section) != type(profile).model_fields[section].default
    ]
    for section in _COPIED:
        lines += _section(section, facts.get(section))
    return "\n".join(lines) + "\n"


def sections_left_out(text: str) -> list[str]:
    """Return the sections that `public_text` says it has left out."""
    return [name for name in _LEFT_OUT if f"\n# [{name}] was left out" in text]


def sketched_text(name: str, set_name: str, sources: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Write a profile of which only the names are known; return it and the paths to fill in."""
    paths = {source: f"/path/of/{source}" for source in [*sources] or [name]}
    lines = [f"# The profile '{name}' of cartridge, made again: fill in the paths of the sources."]
    for source, path in paths.items():
        lines += _section("source", [{"name": source, "path": path}])
    lines += _section("cartridges", {"set": set_name})
    return "\n".join(lines) + "\n", paths


def _section(name: str, facts: Any) -> Iterator[str]:
    tables = facts if isinstance(facts, list) else [facts] if facts else []
    for table in tables:
        yield ""
        yield f"[[{name}]]" if isinstance(facts, list) else f"[{name}]"
        yield from _pairs(table)


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        if value is not None:
            yield f"{key if _BARE.fullmatch(key) else quoted(key)} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
