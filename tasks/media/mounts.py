"""What is mounted where, as the system says."""

from __future__ import annotations

import re

# How a space, a tab, a newline or a backslash is written in the list of mounts (proc(5)).
_OCTAL = re.compile(rb"\\([0-7]{3})")


def is_mounted_below(path: bytes) -> bool:
    """Whether something is mounted at an absolute path, or anywhere below it."""
    with open("/proc/self/mountinfo", "rb") as mounts:
        places = [_OCTAL.sub(_unescaped, line.split()[4]) for line in mounts]
    return any(place == path or place.startswith(path + b"/") for place in places)


def _unescaped(octal: re.Match[bytes]) -> bytes:
    return bytes([int(octal[1], 8)])
