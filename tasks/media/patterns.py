"""Which entries of a source are taken, and which entries of a snapshot a restore pattern names.

The last pattern which matches the entry *itself* decides; what lies below is left to the walk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from tasks.media.gitignore import Kind, Rule, rule_or_none, to_the_letter

_MOST_FOLDERS: Final = 50_000  # remembered at a time; more would cost memory and help no walk


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

    def __init__(self, rules: Sequence[Rule]) -> None:
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
        self._exclude = _Matcher(_rules(exclude))
        self._include = _Matcher(_rules(include)) if include else None
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

    All of them lie at or below ``places``, each a ``<source>/<path>`` or a ``<path>`` of two names
    at least; where that is None they may lie anywhere.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        rules = _rules(patterns)
        self._matcher = _Matcher(rules)
        self._exact = frozenset(to_the_letter(patterns))
        self.places = None if self._exact else _places(rules)
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


def _rules(patterns: Iterable[str]) -> list[Rule]:
    return [rule for rule in map(rule_or_none, patterns) if rule is not None]


def _places(rules: Sequence[Rule]) -> list[bytes] | None:
    places = [value for rule in rules for value in rule.values]
    # One without a slash may be a whole source.
    is_known = all(rule.kind == "paths" for rule in rules) and all(b"/" in p for p in places)
    return places if is_known else None


def _tables(rules: Sequence[Rule]) -> list[_Table]:
    """Group rules, the last first; what negates nothing is left out."""
    tables = [
        _table(negated, list(group))
        for negated, group in groupby(reversed(rules), key=lambda rule: rule.negated)
    ]
    return tables[:-1] if tables and tables[-1].negated else tables


def _table(negated: bool, rules: list[Rule]) -> _Table:
    def values(kind: Kind) -> list[bytes]:
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
