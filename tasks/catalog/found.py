"""The catalogs on given cartridges: the newest sound copy of every file, damage noted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog import export
from tasks.catalog.given import Given
from tasks.catalog.progress import ignore
from tasks.catalog.store import read_rows
from tasks.formats.manifest import SCHEMA, batches, open_table, read_info, words
from tasks.formats.records import from_json
from tasks.media import durable
from tasks.media.readback import read_back
from tasks.media.untrusted import copy_out
from tasks.model.errors import FormatDamaged, ProfileInvalid
from tasks.model.profile import Profile, parse_profile
from tasks.model.profile_text import sections_left_out
from tasks.model.words import SNAPSHOT, ArchiveRow, CartridgeRow, SnapshotInfo, SnapshotList

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class Copy:
    """A manifest that was copied from a cartridge and is what was written there."""

    path: str
    info: SnapshotInfo
    origin: Given
    name: str

    is_unearthed: bool = False

    def sources(self) -> list[str]:
        """Return the names of the sources."""
        if self.info.roots:
            return [root.source for root in self.info.roots]
        columns = (words(batch.column(0)) for batch in batches(self.path, ["source"]))
        return sorted({name for column in columns for name in pc.unique(column).to_pylist()})

    def refuse(self) -> None:
        """Note that it is damaged after all."""
        self.origin.damaged.add(self.name)
        durable.remove(self.path)


class Catalogs:
    """What given cartridges know, newest first; copies of files go to `folder`."""

    def __init__(self, given: Iterable[Given], folder: str) -> None:
        self._folder = folder
        self._judged: set[tuple[int, str]] = set()
        lists = [(one, self._list_on(one)) for one in given]
        lists.sort(key=_age, reverse=True)
        self.newest_first = [one for one, _ in lists]
        self._list = next((found for _, found in lists if found is not None), None)

    def profile(self, name: str, set_name: str) -> tuple[Profile, list[str]] | None:
        """Return the newest profile, and which of its sections are on no cartridge."""

        def read(path: str) -> tuple[Profile, list[str]]:
            text = durable.read_whole(path).decode("utf-8", "replace")
            try:
                profile = parse_profile(name, text, path)
            except ProfileInvalid as error:
                raise FormatDamaged(file=path, reason="it is no profile") from error
            if profile.cartridges.set != set_name:
                raise FormatDamaged(file=path, reason="it is that of another set")
            return profile, sections_left_out(text)

        return next(self._readable(export.PROFILE, read), None)

    def archives(self) -> list[list[ArchiveRow]]:
        """Return the tables of archives, newest first."""
        return list(self._readable(export.ARCHIVE_TABLE, lambda path: read_rows(path, ArchiveRow)))

    def cartridges(self) -> list[list[CartridgeRow]]:
        """Return the tables of cartridges, newest first."""
        return list(
            self._readable(export.CARTRIDGE_TABLE, lambda path: read_rows(path, CartridgeRow))
        )

    def snapshots(self) -> list[str]:
        """Return the snapshots with a manifest here; those that were pruned since are left out."""
        named = {snapshot for one in self.newest_first for snapshot in one.manifests()}
        return sorted(named - {snapshot for snapshot in named if self._is_pruned(snapshot)})

    def pruned(self, named: Iterable[str]) -> list[str]:
        """Return the snapshots, of those named and those with a manifest here, that were pruned."""
        here = {snapshot for one in self.newest_first for snapshot in one.manifests()}
        return sorted(filter(self._is_pruned, {*here, *named}))

    def expected(self) -> set[str]:
        """Return the snapshots that there were, as far as the newest list knows."""
        return set(self._list.snapshots) if self._list else set()

    def _is_pruned(self, snapshot: str) -> bool:
        if self._list is None:
            return False
        known, forgotten = self._list.snapshots, self._list.forgotten
        if forgotten is None:
            return snapshot not in known and snapshot < known[-1]
        return snapshot in forgotten

    def manifest(self, snapshot: str, path: str) -> Copy | None:
        """Copy the manifest of a snapshot: a complete one, else the part of one."""
        name = export.manifest_name(snapshot)
        best: Copy | None = None
        for one in self.newest_first:
            if snapshot not in one.manifests() or name in one.damaged:
                continue
            draft = f"{path}.{one.serial}"
            copy = self._copy(one, name, draft, lambda file: _info(file, snapshot))
            if copy is not None and (best is None or copy.info.complete):
                os.replace(draft, path)
                best = Copy(path, copy.info, one, name)
            durable.remove(draft)
            if best is not None and best.info.complete:
                break
        return best

    def check_rest(self) -> None:
        """Note damage of the files that nobody needed: the next one may need them."""
        for one in self.newest_first:
            left = {
                name: digest
                for name, digest in one.sums.items()
                if name.startswith("catalog/") and (one.serial, name) not in self._judged
            }
            one.damaged.update(read_back(one.cartridge, left, ignore).damaged)

    def _fetch(
        self, one: Given, name: str, draft: str, read: Callable[[str], Content]
    ) -> Content | None:
        """Copy a file and read it; None where it is not there, or not what was written."""
        self._judged.add((one.serial, name))
        try:
            digest = copy_out(one.cartridge.file(name), draft)
            if one.sums.get(name, digest) != digest:
                raise FormatDamaged(file=name, reason="it is not what was written")
            return read(draft)
        except FileNotFoundError:
            if name in one.sums:
                one.damaged.add(name)
        except (FormatDamaged, MemoryError):
            one.damaged.add(name)
        return None

    def _copy(
        self, one: Given, name: str, draft: str, read: Callable[[str], SnapshotInfo]
    ) -> Copy | None:
        info = self._fetch(one, name, draft, read)
        if info is None:
            return None
        if info.profile != one.cartridge.label.profile or not _is_sound(one, name, draft):
            one.damaged.add(name)
            return None
        return Copy(draft, info, one, name)

    def _list_on(self, one: Given) -> SnapshotList | None:
        found = next(self._readable(export.SNAPSHOTS, _snapshot_list, [one]), None)
        return found if found and found.snapshots else None

    def _readable(
        self, name: str, read: Callable[[str], Content], given: Iterable[Given] | None = None
    ) -> Iterator[Content]:
        """Read the copies of a file, newest first."""
        draft = os.path.join(self._folder, "copy")
        for one in self.newest_first if given is None else given:
            content = self._fetch(one, name, draft, read)
            durable.remove(draft)
            if content is not None:
                yield content


def _age(found: tuple[Given, SnapshotList | None]) -> tuple[str, str]:
    """Order catalogs by the newest snapshot that they know, then by when they were written."""
    one, known = found
    newest = max([*one.manifests(), *(known.snapshots if known else [])], default="")
    return newest, known.sealed if known else ""


def _snapshot_list(path: str) -> SnapshotList:
    found = from_json(SnapshotList, durable.read_whole(path), path)
    if not all(map(SNAPSHOT.fullmatch, found.snapshots)):
        raise FormatDamaged(file=path, reason="it names what is no snapshot")
    return found


def _info(path: str, snapshot: str) -> SnapshotInfo:
    info: SnapshotInfo = read_info(path, SnapshotInfo)
    if info.snapshot != snapshot or not open_table(path).schema_arrow.equals(SCHEMA):
        raise FormatDamaged(file=path, reason="it is not the manifest that its name says")
    return info


def _is_sound(one: Given, name: str, path: str) -> bool:
    """Whether a manifest can be read to its end; one that has the right sum can."""
    if name in one.sums:
        return True
    try:
        return all(isinstance(batch, pa.RecordBatch) for batch in batches(path))
    except (FormatDamaged, MemoryError):
        return False
