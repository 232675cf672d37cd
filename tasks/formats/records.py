"""Small records as JSON: labels, journal lines, plans and receipts, checked when read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.model.errors import FormatDamaged, FormatUnsupported
from tasks.model.words import FORMAT_VERSION, JournalLine, Label

if TYPE_CHECKING:  # loading it takes 0.1 s, which a lookup need not wait for
    from pydantic import TypeAdapter, ValidationError

Record = TypeVar("Record")
LARGEST_SERIAL = 1_000_000
_DIGEST = re.compile("[0-9a-f]{64}")
_ESCAPED = re.compile(r"\\\\|\\n|\\r")
_UNESCAPE = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(record: object, *, indent: int | None = None) -> bytes:
    """Write a dataclass as JSON with a newline behind it."""
    kind: Any = type(record)
    return _adapter(kind).dump_json(record, indent=indent) + b"\n"


def from_json(kind: type[Record], text: bytes, file: str) -> Record:
    """Read a dataclass from JSON; FormatDamaged names `file` where it does not fit."""
    from pydantic import ValidationError

    try:
        record: Record = _adapter(kind).validate_json(text)  # type: ignore[arg-type]
        return record
    except ValidationError as error:
        raise FormatDamaged(file=file, reason=_first_complaint(error)) from error


def read_label(text: bytes, file: str) -> Label:
    """Read `CARTRIDGE.json`; FormatUnsupported for newer ones, FormatDamaged for nonsense."""
    version = from_json(dict[str, object], text, file).get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatUnsupported(file=file, version=version, known=FORMAT_VERSION)
    label = from_json(Label, text, file)
    if not 0 < label.serial <= LARGEST_SERIAL:
        raise FormatDamaged(file=file, reason=f"serial {label.serial} is out of range")
    return label


def read_journal(text: bytes, file: str) -> list[JournalLine]:
    """Read `journal.jsonl`; a last line without its newline was torn and does not count."""
    lines = [from_json(JournalLine, line, file) for line in text.split(b"\n")[:-1] if line]
    for line in lines:
        if not _within(line.archive, file).startswith("archives/") or line.bytes < 0:
            raise FormatDamaged(file=file, reason=f"{line.archive!a} is no archive")
    return lines


def _within(name: str, file: str) -> str:
    """Return the name of a file on a cartridge; FormatDamaged where it leads out of it."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise FormatDamaged(file=file, reason=f"{name[:80]!a} is no name of a file on a cartridge")
    return name


def journal_text(lines: Iterable[JournalLine]) -> bytes:
    """Write journal lines, one JSON object each."""
    return b"".join(to_json(line) for line in lines)


def read_sums(text: bytes, file: str) -> dict[str, str]:
    """Read `SHA256SUMS` as sha256sum writes it: name -> hexadecimal digest."""
    sums: dict[str, str] = {}
    for line in os.fsdecode(text).split("\n"):
        plain = line.removeprefix("\\")
        digest, gap, name = plain[:64], plain[64:66], plain[66:]
        if not line:
            continue
        if not _DIGEST.fullmatch(digest) or gap not in ("  ", " *") or not name:
            raise FormatDamaged(file=file, reason=f"the line {line[:80]!a} is no checksum")
        if plain != line:
            name = _ESCAPED.sub(lambda found: _UNESCAPE[found[0]], name)
        sums[_within(name.removeprefix("./"), file)] = digest
    return sums


def sums_text(sums: dict[str, str]) -> bytes:
    """Write `SHA256SUMS` in name order, so that equal contents give equal files."""
    return os.fsencode("".join(_sums_line(name, sums[name]) for name in sorted(sums)))


def _sums_line(name: str, digest: str) -> str:
    """Write a line; names that would break it are escaped as sha256sum does, and marked so."""
    if not set(name) & {"\\", "\n", "\r"}:
        return f"{digest}  {name}\n"
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"\\{digest}  {escaped}\n"


def _first_complaint(error: ValidationError) -> str:
    item = error.errors()[0]
    where = ".".join(str(part) for part in item["loc"])
    return f"{where}: {item['msg']}" if where else item["msg"]
