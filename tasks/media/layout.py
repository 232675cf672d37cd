"""Which files of a volume are the cartridge's; whatever else lies there is none of its business."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from tasks.media import durable

LABEL = "CARTRIDGE.json"
JOURNAL = "journal.jsonl"
SUMS = "SHA256SUMS"
README = "README.txt"
SCRIPT = "restore.sh"
ARCHIVES = "archives"
CATALOG = "catalog"
MANIFESTS = f"{CATALOG}/manifests"
RECIPES = f"{CATALOG}/recipes"
_TOP = (LABEL, JOURNAL, SUMS, README, SCRIPT)


def is_ours(name: str) -> bool:
    """Whether a cartridge has a file of this name, or drafts it under this one."""
    whole = name.removesuffix(durable.DRAFT)
    return whole in _TOP or whole.startswith((f"{ARCHIVES}/", f"{CATALOG}/"))


def is_draft(name: str) -> bool:
    """Whether a killed writer may have left a file of this name."""
    return name.endswith(durable.DRAFT) and is_ours(name)


def is_listed(name: str) -> bool:
    """Whether SHA256SUMS has a file of this name."""
    return is_ours(name) and name != SUMS and not is_draft(name)


def is_lasting(name: str) -> bool:
    """Whether a file, once it is sealed, is never given another content."""
    return name.startswith((f"{MANIFESTS}/", f"{RECIPES}/"))


def folders(base: str) -> Iterator[tuple[str, list[str]]]:
    """Yield every folder of the cartridge on the volume at `base`, and the names of ours in it.

    Nobody else's folder is looked into, and no link is followed. Raises OSError for a folder that
    cannot be listed: none passes for an empty one.
    """
    for folder, below, names in os.walk(base, onerror=_raise):
        if folder == base:
            below[:] = [name for name in (ARCHIVES, CATALOG) if name in below]
            names[:] = filter(is_ours, names)
        below.sort()
        yield folder, sorted(names)


def files(base: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name, relative to `base`, and facts of every regular file of the cartridge."""
    for folder, names in folders(base):
        for path in (os.path.join(folder, name) for name in names):
            try:
                facts = os.lstat(path)
            except FileNotFoundError:  # a draft that got its name meanwhile
                continue
            if stat.S_ISREG(facts.st_mode):
                yield os.path.relpath(path, base), facts


def _raise(error: OSError) -> None:
    raise error
