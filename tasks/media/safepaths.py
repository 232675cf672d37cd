"""Paths that come from a catalog: none may lead out of the folder that it is relative to."""

from __future__ import annotations


class UnsafePathError(ValueError):
    """A path from a catalog that would lead out of the destination."""


def check_path(path: bytes) -> None:
    """Raise UnsafePathError where a path would lead out of the folder that it is relative to."""
    for name in path.split(b"/"):
        check_name(name)


def check_name(name: bytes) -> None:
    """Raise UnsafePathError for what cannot be the name of an entry in a folder."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise UnsafePathError(name)


def join(folder: bytes, name: bytes) -> bytes:
    """Return the path of an entry in a folder; b"" is what all paths are relative to."""
    return folder + b"/" + name if folder else name
