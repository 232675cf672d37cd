"""Masks as the shell and fnmatch have them, as one regular expression for a whole column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# A star is None; all else is a set of characters, as intervals of code points that rise.
_Set = tuple[tuple[int, int], ...]
_Token = _Set | None

_LAST = 0x10FFFF
_ANY: _Set = ((0, _LAST),)
_SLASH = ord("/")


def expression(masks: Sequence[str]) -> str:
    """Return an RE2 expression that finds the `<source>/<path>` which fit one of the masks.

    A mask fits where `fnmatch.fnmatchcase` takes the name, the path below the source, or all of it.
    The text has at least one slash in it, and none at its end.
    """
    choices = [choice for mask in masks for choice in _choices(list(_tokens(mask)))]
    return f"(?s)(?:{'|'.join(choices)})\\z"


def _choices(tokens: list[_Token]) -> Iterator[str]:
    """Yield expressions, to be followed by the end of the text, for where a mask may begin."""
    if tokens and tokens[0] is None:  # what a star begins with may be anything, source and all
        yield _spelled(tokens[1:])
        return
    yield "/" + _spelled([_slashless(token) for token in tokens], star="[^/]*")
    if any(token is None or token != _slashless(token) for token in tokens):
        spelled = _spelled(tokens)
        yield rf"\A{spelled}"
        yield rf"\A[^/]*/{spelled}"


def _spelled(tokens: Sequence[_Token], star: str = ".*") -> str:
    return "".join(star if token is None else _spelled_set(token) for token in tokens)


def _spelled_set(wanted: _Set) -> str:
    if wanted == _ANY:
        return "."
    if not wanted:
        return rf"[^\x00-\x{{{_LAST:x}}}]"
    ranges = (rf"\x{{{low:x}}}-\x{{{high:x}}}" for low, high in wanted)
    return f"[{''.join(ranges)}]"


def _slashless(token: _Token) -> _Token:
    if token is None:
        return None
    pieces = [
        piece
        for low, high in token
        for piece in ((low, min(high, _SLASH - 1)), (max(low, _SLASH + 1), high))
    ]
    return tuple((low, high) for low, high in pieces if low <= high)


def _tokens(mask: str) -> Iterator[_Token]:
    at, starred = 0, False
    while at < len(mask):
        char, at = mask[at], at + 1
        if char == "*":
            if not starred:
                yield None
            starred = True
            continue
        starred = False
        end = _closing(mask, at) if char == "[" else -1
        if end > 0:
            yield _bracketed(mask[at:end])
            at = end + 1
        else:
            yield _ANY if char == "?" else ((ord(char), ord(char)),)


def _closing(mask: str, start: int) -> int:
    """Return where the bracket ends that opened before `start`; -1 where it does not."""
    first = start + 1 if mask[start : start + 1] == "!" else start
    return mask.find("]", first + 1 if mask[first : first + 1] == "]" else first)


def _bracketed(text: str) -> _Set:
    """Return the characters that `[text]` means, in every oddity of fnmatch."""
    members = _members(text)
    if not members or members[0] != "!":
        return _united(_intervals(members))
    return _complement(_united(_intervals(members[1:])))


def _members(text: str) -> list[str | None]:
    """Return the characters between brackets, with None for a hyphen that makes a range.

    A range that runs backwards is left out, together with both of its ends.
    """
    chunks = _chunks(text)
    for k in range(len(chunks) - 1, 0, -1):
        if chunks[k - 1][-1] > chunks[k][0]:
            chunks[k - 1 : k + 1] = [chunks[k - 1][:-1] + chunks[k][1:]]
    members: list[str | None] = list(chunks[0])
    for chunk in chunks[1:]:
        members += [None, *chunk]
    return members


def _chunks(text: str) -> list[str]:
    """Cut at the hyphens that make ranges: not the first or last character, nor next to one."""
    chunks, start = [], 0
    at = text.find("-", 2 if text.startswith("!") else 1)
    while at >= 0:
        chunks.append(text[start:at])
        start, at = at + 1, text.find("-", at + 3)
    if start < len(text) or not chunks:
        return [*chunks, text[start:]]
    chunks[-1] += "-"
    return chunks


def _intervals(members: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(members):
        low = ord(members[at] or "-")  # at the very beginning nothing precedes a range
        if 0 < at + 2 < len(members) and members[at] and members[at + 1] is None:
            yield low, ord(members[at + 2] or "-")
            at += 3
        else:
            yield low, low
            at += 1


def _united(intervals: Iterator[tuple[int, int]]) -> _Set:
    found: list[tuple[int, int]] = []
    for low, high in sorted(intervals):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return tuple(found)


def _complement(taken: _Set) -> _Set:
    edges = [-1, *(edge for interval in taken for edge in interval), _LAST + 1]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return tuple((low + 1, high - 1) for low, high in gaps if low + 1 <= high - 1)
