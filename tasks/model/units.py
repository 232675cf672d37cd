"""Sizes and times as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgtp]?)(i?)b?)\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str | int) -> int:
    """Read a size in bytes: `25GB` is decimal, `25GiB` binary, a bare number bytes.

    Raises ValueError for anything else.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"'{text}' is not a size; write it like 25GB or 700MiB")
    number, prefix, binary = match.groups()
    return int(Decimal(number) * (1024 if binary else 1000) ** _POWER[prefix.lower()])


def format_size(count: int) -> str:
    """Write a number of bytes for people, in decimal units as media are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def snapshot_id(moment: datetime) -> str:
    """Name a snapshot by its start, in UTC and without characters that FAT refuses."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def snapshot_time(snapshot: str) -> datetime:
    """Read a snapshot's start from its name; ValueError where it is none."""
    return datetime.strptime(snapshot, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 time; without a zone it is local time. ValueError otherwise."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it is out of range") from error


def iso(moment: datetime) -> str:
    """Write a time as ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_now() -> str:
    """Write the present time as ISO 8601 in UTC."""
    return iso(datetime.now(UTC))


def iso_ns(nanoseconds: int) -> str:
    """Write nanoseconds since 1970 as ISO 8601 in UTC, with the fraction they have."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{fraction:09d}Z" if fraction else f"{moment}Z"
