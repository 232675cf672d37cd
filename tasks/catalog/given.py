"""Cartridges that were given by hand, without a catalog: who they are, and what their lists say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tasks.catalog.export import ARCHIVE_TABLE, manifest_name
from tasks.catalog.members import label_of
from tasks.catalog.store import Store
from tasks.formats.manifest import read_info
from tasks.media.cartridge import Cartridge
from tasks.media.layout import JOURNAL, LABEL, MANIFESTS, SUMS
from tasks.media.readback import judged
from tasks.model.errors import (
    CartridgeError,
    FormatDamaged,
    FormatUnsupported,
    NoCartridge,
    VolumeUnusable,
    WrongCartridge,
)
from tasks.model.profile import NAME
from tasks.model.words import SNAPSHOT, JournalLine, Label, SnapshotInfo

Lists = TypeVar("Lists", list[JournalLine], dict[str, str])


@dataclass(frozen=True, slots=True)
class Given:
    """A cartridge and its lists; `damaged` names the files here that are not what they should be.

    `sums` are those that count: after a write that was cut short the catalog is newer than them.
    """

    cartridge: Cartridge
    journal: list[JournalLine]
    sums: Mapping[str, str]
    damaged: set[str] = field(default_factory=set)

    @property
    def title(self) -> str:
        """The name on the sticker."""
        return self.cartridge.label.title

    @property
    def serial(self) -> int:
        """The number in the set."""
        return self.cartridge.label.serial

    def manifests(self) -> list[str]:
        """Return the snapshots of which a manifest, or a part of one, lies here or should."""
        try:
            names = set(os.listdir(self.cartridge.file(MANIFESTS)))
        except OSError:
            names = set()
        listed = (name.removeprefix(f"{MANIFESTS}/") for name in self.sums)
        found = (name.removesuffix(".parquet") for name in names.union(listed))
        return sorted(snapshot for snapshot in found if SNAPSHOT.fullmatch(snapshot))


def open_given(folders: Iterable[str]) -> list[Given]:
    """Open cartridges of one set, in the order of their numbers.

    Raises WrongCartridge where two do not belong together, FormatDamaged where one is none.
    """
    places = dict.fromkeys(os.path.realpath(folder) for folder in folders)
    given = sorted(map(_open, places), key=lambda one: one.serial)
    uuids: dict[str, str] = {}
    serials: dict[int, str] = {}
    for one in given:
        cartridge = one.cartridge
        _check_same_set(given[0].cartridge, cartridge)
        if uuids.setdefault(cartridge.label.uuid, cartridge.path) != cartridge.path:
            raise _refused(cartridge, f"{uuids[cartridge.label.uuid]} has the same UUID")
        if serials.setdefault(one.serial, cartridge.path) != cartridge.path:
            raise _refused(cartridge, f"{serials[one.serial]} is another one of that number")
    return given


def _check_same_set(first: Cartridge, other: Cartridge) -> None:
    one, two = first.label, other.label
    if (one.set, one.profile) != (two.set, two.profile):
        raise _refused(
            other,
            f"it is of set '{two.set}', profile '{two.profile}', and {first.path} "
            f"({one.title}) is of set '{one.set}', profile '{one.profile}'",
        )


def _refused(cartridge: Cartridge, reason: str) -> WrongCartridge:
    return WrongCartridge(path=cartridge.path, label=cartridge.label.title, reason=reason)


def _open(path: str) -> Given:
    if not os.path.isdir(path):
        raise VolumeUnusable(path=path, reason="there is no such folder")
    damaged = set[str]()
    cartridge = Cartridge(path, _label(path, damaged))
    for name in (cartridge.label.set, cartridge.label.profile):
        if not NAME.fullmatch(name):
            raise FormatDamaged(file=cartridge.file(LABEL), reason=f"{name!a} is no name")
    journal = _listed(JOURNAL, cartridge.journal, [], damaged)
    sums = _listed(SUMS, cartridge.sums, {}, damaged)
    archives = {line.archive: line.sha256 for line in journal}
    return Given(cartridge, journal, judged(archives, sums), damaged)


def _listed(name: str, read: Callable[[], Lists], none: Lists, damaged: set[str]) -> Lists:
    """Read a list; one that cannot be read is damaged, and says nothing."""
    try:
        return read()
    except (CartridgeError, OSError):
        damaged.add(name)
        return none


def _label(path: str, damaged: set[str]) -> Label:
    """Read a label; one that is gone or damaged is made again from the catalog beside it."""
    try:
        cartridge = Cartridge.open(path)
        if cartridge.has_its_label():
            return cartridge.label
        reason = "it is not as it was written"
    except FormatUnsupported:
        raise
    except (CartridgeError, OSError) as error:
        reason = str(error)
    label = _label_from_catalog(path)
    if label is None and not os.path.lexists(os.path.join(path, LABEL)):
        raise NoCartridge(path=path)
    if label is None:
        raise FormatDamaged(file=os.path.join(path, LABEL), reason=reason)
    damaged.add(LABEL)
    return label


def _label_from_catalog(path: str) -> Label | None:
    """Find in the catalog on a cartridge which one it is: the one that has its archives."""
    nameless = Cartridge.nameless(path)
    store = Store(nameless.file(os.path.dirname(ARCHIVE_TABLE)))  # named as in a workspace
    try:
        here = {line.archive for line in nameless.journal()}
        serials = Counter(row.cartridge for row in store.archives() if row.archive in here)
        row = next(r for r in store.cartridges() if r.serial == serials.most_common(1)[0][0])
        manifest = Given(nameless, [], {}).manifests()[-1]
        info: SnapshotInfo = read_info(nameless.file(manifest_name(manifest)), SnapshotInfo)
    except (CartridgeError, OSError, StopIteration, IndexError):
        return None
    return label_of(row, info.profile)
