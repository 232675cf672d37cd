"""Lines of a .gitignore, each as git reads it.

pathspec turns the shape of a pattern (``/``, ``*``, ``**``, ``?``) into a regular expression; this
module corrects it where git 2.39 judges otherwise (``dir.c``, ``wildmatch.c``):

- git compares bytes, and ``?`` stands for one byte; only trailing spaces are cut, not tabs;
- a name may hold newlines;
- bracket expressions have escapes, ``[:alpha:]`` classes and ranges that may run backwards;
- three stars or more count as two, and ``**`` after a literal start (``a**/b``) crosses folders.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["names", "suffixes", "paths", "name_regex", "path_regex"]

# Bytes are handled as text of latin-1, so everything above it is free to stand for something.
_STAND_IN: Final = 0x10000
_STAND_INS: Final = re.compile("[\U00010000-\U0010ffff]")

_ATOM: Final = r"(?:\\.|[^\\])"
_ITEM: Final = rf"(?:\[:[^\]]*:\]|{_ATOM}-(?:\\.|[^\]\\])|{_ATOM})"
# Possessive: where git's reading of a bracket fails, no second reading may succeed.
_BRACKET: Final = rf"\[[!^]?+(?>{_ITEM})(?>(?!\]){_ITEM})*+\]"
_OPAQUE: Final = re.compile(rf"\\.|{_BRACKET}|\s|[\\\[]", re.DOTALL)
_BRACKET_ITEM: Final = re.compile(
    rf"\[:(?P<cls>[^\]]*):\]|(?P<low>{_ATOM})-(?P<high>\\.|[^\]\\])|(?P<one>{_ATOM})", re.DOTALL
)
_CLASSES: Final = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}

_KEPT: Final = re.compile(r"(?: *(?:\\.|[^ \\]))*", re.DOTALL)
_SPECIAL: Final = re.compile(r"[*?\[\\]")
_FULL_STARS: Final = re.compile(r"(?<![^/])\*\*+(?![^/])")
_OTHER_STARS: Final = re.compile(r"(?<=[^/*])\*\*+|\*\*+(?=[^/*])")
_GLUED: Final = re.compile(r"([^*?\[\\]*[^*?\[\\/])\*\*+(?:(\\?/)(.*))?\Z", re.DOTALL)
_WHOLE_FOLDERS: Final = re.compile(r"\*\*+(?:\\?/|\Z)")
# In pathspec's output: a star with something after it, before the next star of the same segment.
_INNER_STAR: Final = re.compile(
    r"\[\^/\]\*((?:\[\^/\](?!\*)|\\.|[^/\[(\\])+)(?=\[\^/\]\*)", re.DOTALL
)


class PointlessPatternError(ValueError):
    """A pattern which git passes over or which can't match any name; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One pattern, ready to be judged: ``values`` are texts or regular expressions, by kind."""

    negated: bool
    dir_only: bool
    kind: Kind
    values: tuple[bytes, ...]


def check_patterns(patterns: Iterable[str]) -> list[str]:
    """Tell what is wrong with patterns of a profile: a sentence for each which can't work."""
    found = ((pattern, _fault(pattern)) for pattern in patterns)
    return [f"Pattern {pattern!r} {fault}." for pattern, fault in found if fault]


def _fault(pattern: str) -> str | None:
    if "\0" in pattern:
        return "holds a NUL character, which no name can"
    if "\n" in pattern:
        return "runs over several lines: write each pattern as an item of its own"
    try:
        _parse(pattern)
    except PointlessPatternError as error:
        return str(error)
    if "//" in pattern:
        return "has two slashes in a row, so it matches nothing"
    if not {".", ".."}.isdisjoint(pattern.removeprefix("!").split("/")):
        return "has '.' or '..' for a folder, so it matches nothing: paths begin at the source"
    return None


def rule_or_none(pattern: str) -> Rule | None:
    """Read a line, None where git passes it over or it can match no name."""
    try:
        return _parse(pattern)
    except PointlessPatternError:
        return None


def _parse(pattern: str) -> Rule:
    line = _trimmed(_bytes_of(pattern).decode("latin-1").removesuffix("\r"))
    if not line:
        raise PointlessPatternError("is blank")
    if line.startswith("#"):
        raise PointlessPatternError("is a comment: write '\\#' to match names that begin with '#'")
    core = line.removeprefix("!")
    negated = core != line
    whole = core
    core = core.removesuffix("/")
    by_name = "/" not in core
    kind, values = _compile(core.removeprefix("/"), by_name)
    return Rule(negated=negated, dir_only=core != whole, kind=kind, values=values)


def _bytes_of(pattern: str) -> bytes:
    try:
        return os.fsencode(pattern)
    except UnicodeEncodeError as error:
        raise PointlessPatternError("holds characters that no name can") from error


def _trimmed(line: str) -> str:
    """Cut trailing spaces, but not an escaped one nor those before a lone backslash."""
    kept = _KEPT.match(line)
    end = kept.end() if kept else 0
    return line if line[end:].strip(" ") else line[:end]


def _compile(core: str, by_name: bool) -> tuple[Kind, tuple[bytes, ...]]:
    if not core:
        raise PointlessPatternError("names nothing")
    if not _SPECIAL.search(core):
        return "names" if by_name else "paths", (core.encode("latin-1"),)
    if by_name and core[0] == "*" and not _SPECIAL.search(core, 1):
        return "suffixes", (core[1:].encode("latin-1"),)
    if by_name:
        return "name_regex", (_regex(core),)
    return "path_regex", tuple(map(_regex, _unglued(core)))


def _unglued(core: str) -> list[str]:
    """Spell out ``**`` behind a literal start.

    git compares the literal start first and sees only the remainder as a glob, so such a ``**``
    is at the start of that, and crosses folders as if it stood alone.
    """
    glued = _GLUED.match(core)
    if glued is None:
        return [core]
    start, slash, rest = glued.groups()
    if slash is None:
        return [f"{start}*", f"{start}*/**"]
    spelled = [f"{start}*/**/{rest}"]
    if slash == "/":
        again = _WHOLE_FOLDERS.match(rest)
        spelled += _unglued(start + rest) if again else [start + rest]
    return spelled


def _regex(glob: str) -> bytes:
    """Translate by pathspec, which sees characters that stand for what it reads otherwise."""
    hidden: list[str] = []

    def hide(found: re.Match[str]) -> str:
        if found[0] == "\\/":
            # Unlike '**/', git's '**\/' wants at least one folder.
            return "/*/" if re.search(r"(?:^|/)\*\*+$", glob[: found.start()]) else "/"
        hidden.append(_one_byte(found[0]))
        return chr(_STAND_IN + len(hidden) - 1)

    shape = _FULL_STARS.sub("**", _OTHER_STARS.sub("*", _OPAQUE.sub(hide, glob)))
    if f"/{shape}".endswith("/**"):
        shape += "/*"  # as a folder's pattern, pathspec would drop the '**'
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # only where there are rules

    # As a folder's pattern its expression ends in a named group for the slash: cut there.
    regex = GitIgnoreSpecPattern.pattern_to_regex(f"/{shape}/")[0] or ""
    body = regex[: regex.rindex("(?P<")] or ".+"
    # A star gives its first find for good: else many stars take exponential time.
    body = _INNER_STAR.sub(r"(?>[^/]*?\1)", body)
    return _STAND_INS.sub(lambda at: hidden[ord(at[0]) - _STAND_IN], body).encode("latin-1")


def _one_byte(token: str) -> str:
    """Translate an escaped character, a bracket expression or white space."""
    if token == "\\":
        raise PointlessPatternError("ends in a backslash that escapes nothing")
    if token == "[":
        raise PointlessPatternError("has a '[' without its ']': write '\\[' for the character")
    if token[0] != "[":
        return re.escape(token[-1])
    negated = token[1] in "!^"
    listed = _listed(token[1 + negated : -1])
    # A slash is never matched by a bracket, not even by one that excludes something else.
    allowed = (set(range(1, 256)) - listed if negated else listed) - {ord("/")}
    return "[" + "".join(f"\\x{byte:02x}" for byte in sorted(allowed)) + "]" if allowed else "(?!)"


def _listed(items: str) -> set[int]:
    listed: set[int] = set()
    for item in _BRACKET_ITEM.finditer(items):
        if item["cls"] is not None:
            if item["cls"] not in _CLASSES:
                raise PointlessPatternError(f"has an unknown class [:{item['cls']}:]")
            listed.update(map(ord, _CLASSES[item["cls"]]))
        elif item["one"]:
            listed.add(ord(item["one"][-1]))
        else:
            low = ord(item["low"][-1])
            # The first is matched even where the range runs backwards.
            listed.update([low], range(low, ord(item["high"][-1]) + 1))
    return listed


def to_the_letter(patterns: Iterable[str]) -> Iterator[bytes]:
    """Yield the patterns which, read as a name, mean other than read as a pattern."""
    for pattern in patterns:
        odd = pattern.startswith(("!", "#")) or pattern.endswith((" ", "\r"))
        if odd or _SPECIAL.search(pattern):
            with suppress(PointlessPatternError):
                yield _bytes_of(pattern)
