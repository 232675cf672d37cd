"""A profile: one backup job as its TOML file says it, checked whole before anything runs."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tasks.model.errors import ProfileInvalid
from tasks.model.units import parse_size

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Bytes; files of a run are called like sources, with something behind the name.
_LONGEST_SOURCE = 200


def _a_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("use up to 64 letters, digits, '.', '_' and '-', a letter or digit first")
    return text


def is_source_name(text: str) -> bool:
    """Whether a source may be called so: like almost any folder."""
    return (
        text.isprintable()
        and text == text.strip()
        and "/" not in text
        and not text.startswith("-")  # not an option to who restores by hand
        and text not in ("", ".", "..")
        and len(text.encode()) <= _LONGEST_SOURCE
    )


def _a_source_name(text: str) -> str:
    if not is_source_name(text):
        raise ValueError(
            "use a folder's name, up to 200 bytes, without a '-' first or a line break"
        )
    return text


def _a_size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _a_size_or_auto(value: object) -> object:
    return (
        None if value in ("auto", None) else _positive(_a_size(value), "a size like 25GB or 'auto'")
    )


def _a_count_or_auto(value: object) -> object:
    if value in ("auto", None):
        return None
    return _positive(value, "a whole number from 1, or 'auto'")


def _positive(value: object, wanted: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"should be {wanted}")
    return value


def _a_list(value: object) -> object:
    """Take one text for a list of one."""
    return [value] if isinstance(value, str) else value


def _not_supported(wanted: object) -> AfterValidator:
    """Refuse all but the default of a key whose feature is still to be built."""

    def check(value: Any) -> Any:
        if value != wanted:
            raise ValueError(f"not yet supported; leave it out (its value is {wanted!r})")
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_a_name)]
SourceName = Annotated[str, AfterValidator(_a_source_name)]
Size = Annotated[int, BeforeValidator(_a_size), Field(gt=0)]
AutoSize = Annotated[int | None, BeforeValidator(_a_size_or_auto)]
AutoCount = Annotated[int | None, BeforeValidator(_a_count_or_auto)]
Count = Annotated[int, Field(ge=1)]
Commands = Annotated[list[str], BeforeValidator(_a_list)]


class _Table(BaseModel):
    """Unknown keys are mistakes: a misspelt rule must not be silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Table):
    """A root directory to back up, and what is left out of it."""

    path: Annotated[str, Field(min_length=1)]
    name: SourceName = ""
    exclude: list[str] = []
    include: list[str] = []
    exclude_caches: bool = False
    exclude_if_present: list[str] = []
    one_file_system: bool = False
    must_be_mount: bool = False
    track: Annotated[list[str], _not_supported(["**"])] = ["**"]
    change_detection: Literal["strict", "mtime"] = "strict"


class Cartridges(_Table):
    """The set that is written to, and where its volumes are looked for."""

    set: Name = ""
    search: list[str] = []
    capacity: Size | None = None
    auto_label: bool = False
    parallel: Count = 1
    copies: Annotated[int, _not_supported(1)] = 1
    layout: Annotated[str, _not_supported("archive")] = "archive"


class Archive(_Table):
    """How content is packed. Sizes in bytes; `auto` is None."""

    archive_size: AutoSize = None
    split_size: Size = 64 << 20
    codec: Annotated[str, _not_supported("lz4")] = "lz4"
    parity: Annotated[str, _not_supported("0%")] = "0%"


class Retention(_Table):
    """Which snapshots are kept; none of these keeps everything."""

    keep_last: Count | None = None
    keep_daily: Count | None = None
    keep_weekly: Count | None = None
    keep_monthly: Count | None = None
    keep_yearly: Count | None = None


class Run(_Table):
    """How a run uses the machine; `auto` is None."""

    workers: AutoCount = None
    scheduler: str = "local"
    spool_size: AutoSize = None


class Hooks(_Table):
    """Commands for the shell, run in turn; `before` stops the run where one fails."""

    before: Commands = []
    after: Commands = []
    on_error: Commands = []
    waiting: Commands = []


class Notify(_Table):
    """Which news goes where: addresses of Apprise, those with a password from outside."""

    urls: Commands = []
    urls_env: str = ""
    urls_file: str = ""
    urls_command: str = ""
    events: list[Literal["done", "trouble", "waiting", "stale"]] = ["trouble", "waiting", "stale"]
    stale_days: Count | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no news is wanted."""
        return not (self.urls or self.urls_env or self.urls_file or self.urls_command)


class Profile(_Table):
    """One backup job. Unset names and sets are filled in by `parse_profile`."""

    source: Annotated[list[Source], Field(min_length=1)]
    cartridges: Cartridges = Cartridges()
    archive: Archive = Archive()
    encryption: Annotated[dict[str, object], _not_supported({})] = {}
    retention: Retention = Retention()
    run: Run = Run()
    hooks: Hooks = Hooks()
    notify: Notify = Notify()

    @model_validator(mode="before")
    @classmethod
    def _name_everything(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("source"), list):
            data = {**data, "source": list(_named(data["source"]))}
        return data


def parse_profile(name: str, text: str, file: str) -> Profile:
    """Check a profile's text and return it with every default filled in.

    Raises ProfileInvalid with all mistakes at once, each with file, key and what would be right.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(file, [f"{file}: not TOML: {error}"]) from error
    cartridges = data.setdefault("cartridges", {})
    if isinstance(cartridges, dict):
        cartridges.setdefault("set", name)
    mistakes = [f"{file}: {twice}" for twice in _named_twice(data)]
    try:
        profile = Profile.model_validate(data)
    except ValidationError as error:
        mistakes[:0] = [_sentence(file, item) for item in error.errors()]
        raise _invalid(file, mistakes) from error
    if mistakes:
        raise _invalid(file, mistakes)
    return profile


def _named_twice(data: dict[str, Any]) -> Iterator[str]:
    """Tell which names two sources share; a file without other mistakes is not needed for that."""
    sources = data.get("source")
    tables = [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []
    counts = Counter(s["name"] for s in tables if isinstance(s.get("name"), str))
    for name, count in counts.items():
        if count > 1:
            yield f"source: {count} sources are named '{name}'; give each its own name"


def free_name(wanted: str, taken: set[str]) -> str:
    """Return `wanted`, made a valid name of a source, with a number behind it where it is taken."""
    seen = "".join(c if c.isprintable() and c != "/" else "_" for c in wanted).lstrip("- ")
    cut = seen.encode()[: _LONGEST_SOURCE - 10].decode("utf-8", "ignore").strip()
    stem = cut if is_source_name(cut) else "source"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _named(sources: list[Any]) -> Iterator[Any]:
    """Give every source without a name that of its folder."""
    taken = {s["name"] for s in sources if isinstance(s, dict) and isinstance(s.get("name"), str)}
    for source in sources:
        if not isinstance(source, dict) or "name" in source:
            yield source
            continue
        path = source.get("path")
        folder = os.path.basename(os.path.abspath(path)) if isinstance(path, str) else ""
        name = free_name(folder, taken)
        taken.add(name)
        yield {**source, "name": name}


def _invalid(file: str, mistakes: list[str]) -> ProfileInvalid:
    return ProfileInvalid(file=file, count=len(mistakes), mistakes="\n".join(mistakes))


def _sentence(file: str, item: Any) -> str:
    """Turn one pydantic error into a line for people: file, key, what would be right."""
    key = ""
    for part in item["loc"]:
        if isinstance(part, int):
            key += f"[{part + 1}]"
        else:
            key += f".{part}" if key else str(part)
    says = _SAYINGS.get(item["type"], item["msg"].removeprefix("Value error, "))
    return f"{file}: {key or 'profile'}: {says}"


_SAYINGS = {
    "extra_forbidden": "unknown key; see the README for those that exist",
    "missing": "this key is needed",
    "bool_type": "should be true or false",
    "string_type": "should be a text in quotes",
    "int_type": "should be a whole number",
    "list_type": "should be a list in [brackets]",
}
