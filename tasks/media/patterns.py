"""Which entries of a source are taken, and which entries of a snapshot a restore pattern names.

Patterns are lines of a .gitignore. pathspec turns the shape of a pattern (``/``, ``*``, ``**``,
``?``) into a regular expression; this module corrects it where git 2.39 judges otherwise
(``dir.c``, ``wildmatch.c``):

- git compares bytes, and ``?`` stands for one byte; only trailing spaces are cut, not tabs;
- a name may hold newlines;
- bracket expressions have escapes, ``[:alpha:]`` classes and ranges that may run backwards;
- three stars or more count as two, and ``**`` after a literal start (``a**/b``) crosses folders;
- the last pattern which matches the entry *itself* decides; what lies below is left to the walk.
"""

import os
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, Literal

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_Kind = Literal["names", "suffixes", "paths", "name_regex", "path_regex"]

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

_MOST_FOLDERS: Final = 50_000  # remembered at a time; more would cost memory and help no walk


class _PointlessPatternError(ValueError):
    """A pattern which git passes over or which can't match any name; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One pattern, ready to be judged: ``values`` are texts or regular expressions, by kind."""

    negated: bool
    dir_only: bool
    kind: _Kind
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Neighbouring rules with the same outcome, whose order among themselves is of no account."""

    negated: bool
    names: frozenset[bytes]
    suffixes: tuple[bytes, ...]
    paths: frozenset[bytes]
    name_regex: re.Pattern[bytes] | None
    path_regex: re.Pattern[bytes] | None

    def hits(self, name: bytes, paths: Iterable[bytes]) -> bool:
        if name in self.names or name.endswith(self.suffixes):
            return True
        if self.name_regex is not None and self.name_regex.match(name):
            return True
        if self.paths and not self.paths.isdisjoint(paths):
            return True
        regex = self.path_regex
        return regex is not None and any(map(regex.match, paths))


class _Matcher:
    """A list of patterns; the last one which matches an entry decides on it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        rules = [rule for rule in map(_rule_or_none, patterns) if rule is not None]
        self._for_dirs = _tables(rules)
        self._for_files = _tables([rule for rule in rules if not rule.dir_only])
        self.empty = not self._for_dirs

    def matches(self, paths: tuple[bytes, ...], is_dir: bool) -> bool:
        """Judge an entry known by each of ``paths`` (same last name), not the folders above it."""
        name = paths[0][paths[0].rfind(b"/") + 1 :]
        for table in self._for_dirs if is_dir else self._for_files:
            if table.hits(name, paths):
                return not table.negated
        return False


class _Folders:
    """Remembers of each folder whether it, or one above it, matches."""

    def __init__(self, judge: Callable[[bytes], bool], top: bool) -> None:
        self._judge = judge
        self._top = top
        self._known = {b"": top}

    def above(self, rel: bytes) -> bool:
        """Say whether a folder above ``rel`` matches."""
        folder = rel[: max(rel.rfind(b"/"), 0)]
        known = self._known.get(folder)
        return self._climb(folder) if known is None else known

    def _climb(self, folder: bytes) -> bool:
        if len(self._known) > _MOST_FOLDERS:
            self._known = {b"": self._top}
        unknown = []
        while (verdict := self._known.get(folder)) is None:
            unknown.append(folder)
            folder = folder[: max(folder.rfind(b"/"), 0)]
        for below in reversed(unknown):
            verdict = verdict or self._judge(below)
            self._known[below] = verdict
        return verdict


class Rules:
    """What of a source is taken: all but ``exclude``, and of that only ``include`` where given.

    Both are .gitignore lines relative to the source. A walk asks from the top down and does not
    enter a folder that is not taken: each answer relies on the folders above having been taken.
    Pointless patterns are passed over as git does; ``check_patterns`` names them.
    """

    def __init__(self, exclude: Sequence[str], include: Sequence[str]) -> None:
        self._exclude = _Matcher(exclude)
        self._include = _Matcher(include) if include else None
        self._included = _Folders(self._includes_dir, top=False)

    @property
    def empty(self) -> bool:
        """Say that everything is taken, so there is no need to ask."""
        return self._exclude.empty and self._include is None

    def takes_dir(self, rel: bytes) -> bool:
        """Say whether a walk keeps and enters the folder ``rel`` (relative to the source)."""
        return not self._exclude.matches((rel,), is_dir=True)

    def takes_file(self, rel: bytes) -> bool:
        """Say whether an entry that is not a folder is taken (``rel`` relative to the source)."""
        if self._exclude.matches((rel,), is_dir=False):
            return False
        include = self._include
        return include is None or self._included.above(rel) or include.matches((rel,), False)

    def _includes_dir(self, rel: bytes) -> bool:
        return self._include is not None and self._include.matches((rel,), is_dir=True)


class Selection:
    """The entries which any of some patterns names, with all that lies below them.

    A pattern is a .gitignore line, held against both ``<source>/<path>`` and ``<path>``. Beyond
    that, one which is to the letter an entry's ``<source>/<path>``, path or name selects it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._matcher = _Matcher(patterns)
        self._exact = frozenset(_to_the_letter(patterns))
        self._folders: dict[str, tuple[bytes, _Folders]] = {}

    def selects(self, source: str, rel: bytes, is_dir: bool) -> bool:
        """Say whether the entry at ``rel`` below ``source`` is selected.

        An empty ``rel`` is the source itself.
        """
        known = self._folders.get(source)
        top, folders = self._enter(source) if known is None else known
        return folders.above(rel) or (bool(rel) and self._names(top, rel, is_dir))

    def _enter(self, source: str) -> tuple[bytes, _Folders]:
        name = os.fsencode(source)
        judge = partial(self._names, name + b"/", is_dir=True)
        entered = (name + b"/", _Folders(judge, top=self._matches((name,), is_dir=True)))
        self._folders[source] = entered
        return entered

    def _names(self, top: bytes, rel: bytes, is_dir: bool) -> bool:
        return self._matches((top + rel, rel), is_dir)

    def _matches(self, paths: tuple[bytes, ...], is_dir: bool) -> bool:
        if self._exact and not self._exact.isdisjoint((*paths, paths[0].rpartition(b"/")[2])):
            return True
        return self._matcher.matches(paths, is_dir)


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
    except _PointlessPatternError as error:
        return str(error)
    if "//" in pattern:
        return "has two slashes in a row, so it matches nothing"
    if not {".", ".."}.isdisjoint(pattern.removeprefix("!").split("/")):
        return "has '.' or '..' for a folder, so it matches nothing: paths begin at the source"
    return None


def _rule_or_none(pattern: str) -> _Rule | None:
    try:
        return _parse(pattern)
    except _PointlessPatternError:
        return None


def _parse(pattern: str) -> _Rule:
    line = _trimmed(_bytes_of(pattern).decode("latin-1").removesuffix("\r"))
    if not line:
        raise _PointlessPatternError("is blank")
    if line.startswith("#"):
        raise _PointlessPatternError("is a comment: write '\\#' to match names that begin with '#'")
    core = line.removeprefix("!")
    negated = core != line
    whole = core
    core = core.removesuffix("/")
    by_name = "/" not in core
    kind, values = _compile(core.removeprefix("/"), by_name)
    return _Rule(negated=negated, dir_only=core != whole, kind=kind, values=values)


def _bytes_of(pattern: str) -> bytes:
    try:
        return os.fsencode(pattern)
    except UnicodeEncodeError as error:
        raise _PointlessPatternError("holds characters that no name can") from error


def _trimmed(line: str) -> str:
    """Cut trailing spaces, but not an escaped one nor those before a lone backslash."""
    kept = _KEPT.match(line)
    end = kept.end() if kept else 0
    return line if line[end:].strip(" ") else line[:end]


def _compile(core: str, by_name: bool) -> tuple[_Kind, tuple[bytes, ...]]:
    if not core:
        raise _PointlessPatternError("names nothing")
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
    # As a folder's pattern its expression ends in a named group for the slash: cut there.
    regex = GitIgnoreSpecPattern.pattern_to_regex(f"/{shape}/")[0] or ""
    body = regex[: regex.rindex("(?P<")] or ".+"
    # A star gives its first find for good: else many stars take exponential time.
    body = _INNER_STAR.sub(r"(?>[^/]*?\1)", body)
    return _STAND_INS.sub(lambda at: hidden[ord(at[0]) - _STAND_IN], body).encode("latin-1")


def _one_byte(token: str) -> str:
    """Translate an escaped character, a bracket expression or white space."""
    if token == "\\":
        raise _PointlessPatternError("ends in a backslash that escapes nothing")
    if token == "[":
        raise _PointlessPatternError("has a '[' without its ']': write '\\[' for the character")
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
                raise _PointlessPatternError(f"has an unknown class [:{item['cls']}:]")
            listed.update(map(ord, _CLASSES[item["cls"]]))
        elif item["one"]:
            listed.add(ord(item["one"][-1]))
        else:
            low = ord(item["low"][-1])
            # The first is matched even where the range runs backwards.
            listed.update([low], range(low, ord(item["high"][-1]) + 1))
    return listed


def _tables(rules: Sequence[_Rule]) -> list[_Table]:
    """Group rules, the last first; what negates nothing is left out."""
    tables = [
        _table(negated, list(group))
        for negated, group in groupby(reversed(rules), key=lambda rule: rule.negated)
    ]
    return tables[:-1] if tables and tables[-1].negated else tables


def _table(negated: bool, rules: list[_Rule]) -> _Table:
    def values(kind: _Kind) -> list[bytes]:
        return [value for rule in rules if rule.kind == kind for value in rule.values]

    return _Table(
        negated=negated,
        names=frozenset(values("names")),
        suffixes=tuple(values("suffixes")),
        paths=frozenset(values("paths")),
        name_regex=_any_of(values("name_regex")),
        path_regex=_any_of(values("path_regex")),
    )


def _any_of(regexes: list[bytes]) -> re.Pattern[bytes] | None:
    return re.compile(rb"(?:" + b"|".join(regexes) + rb")\Z", re.DOTALL) if regexes else None


def _to_the_letter(patterns: Iterable[str]) -> Iterator[bytes]:
    """Yield the patterns which, read as a name, mean other than read as a pattern."""
    for pattern in patterns:
        odd = pattern.startswith(("!", "#")) or pattern.endswith((" ", "\r"))
        if odd or _SPECIAL.search(pattern):
            with suppress(_PointlessPatternError):
                yield _bytes_of(pattern)
