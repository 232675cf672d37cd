"""Saying things: JSON for machines on standard output, sentences and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from tasks.model.errors import CartridgeError, DamageFound


@dataclass(slots=True)
class Voice:
    """How this invocation speaks: `json` prints one object and nothing else.

    It does so `aside`, on standard error, where standard output is taken by content.
    """

    json: bool = False
    aside: bool = False

    def result(self, facts: dict[str, Any], lines: Iterable[str]) -> None:
        """Print what was found or done, in the one way or the other."""
        if self.json:
            print(json.dumps(facts, ensure_ascii=True), file=self._file)
            return
        for line in lines:
            print(printable(line), file=self._file)

    def conclude(
        self, facts: dict[str, Any], lines: Iterable[str], trouble: CartridgeError | None
    ) -> None:
        """Say what was done, and raise the trouble that was met on the way."""
        if trouble is None or not self.json:
            self.result(facts, lines)
        if trouble is not None:
            raise trouble

    def error(self, error: CartridgeError, facts: dict[str, Any] | None = None) -> None:
        """Print an error: one sentence, and what to do about it."""
        if self.json:
            fields = {"error": error.name, "message": str(error), "help": error.help}
            told = {**(facts or {}), **fields, "exit_code": error.exit_code}
            print(json.dumps(told), file=self._file)
            return
        print(printable(f"cartridge: {error}"), file=sys.stderr)
        if error.help:
            print(printable(error.help), file=sys.stderr)

    @property
    def _file(self) -> TextIO:
        return sys.stderr if self.aside else sys.stdout


def say(line: str) -> None:
    """Print one line for people."""
    print(printable(line))


def complain(line: str) -> None:
    """Print one line of trouble that does not end the work."""
    print(printable(f"cartridge: {line}"), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Make a text safe for a terminal: no control characters, nothing that cannot be encoded."""
    shown = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in shown
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lay rows out in columns; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(r[i]) for r in [list(heads), *cells]) for i in range(len(heads))]
    lines = []
    for row in [list(heads), *cells]:
        fields = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(fields).rstrip())
    return lines


def few(names: Sequence[str], most: int = 10) -> str:
    """Write the first of many names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and os.isatty(2)


def damage_in(names: Sequence[str]) -> DamageFound | None:
    """Return the error that names what is damaged, None where nothing is."""
    return DamageFound(damage=", ".join(names)) if names else None
