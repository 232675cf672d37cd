"""Recover: a profile, its catalog and its history again, from cartridges alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tasks.catalog.found import Catalogs, Copy
from tasks.catalog.given import Given, open_given
from tasks.catalog.placement import BLANK, LOST
from tasks.catalog.regained import archive_rows, cartridge_rows
from tasks.catalog.relisted import Held, Told, relist
from tasks.catalog.runs import Place
from tasks.catalog.store import ARCHIVES, CARTRIDGES, DEAD, Store, write_rows
from tasks.catalog.unearthed import unearth
from tasks.formats.records import from_json, to_json
from tasks.media import durable, locks
from tasks.model.errors import CatalogExists, FormatDamaged, ProfileExists
from tasks.model.profile import Profile
from tasks.model.profile_text import public_text, sketched_text
from tasks.model.words import Absent, ArchiveRow, CartridgeRow

_REPORT, _PROFILE = "report.json", "profile.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a recover found, and what it did not.

    `partial` are snapshots of which only a part of the manifest is here; `paths` the sources whose
    folders have to be filled in; `left_out` sections of the profile that are on no cartridge.
    """

    profile: str
    snapshots: list[str]
    missing_snapshots: list[str]
    missing_cartridges: list[str]
    damaged: list[str]
    partial: list[str]
    nowhere: int
    is_unearthed: bool
    paths: dict[str, str]
    left_out: list[str]


# Tells people what takes long.
News = Callable[[str], None]


def recover(
    workspace: str,
    folders: Iterable[str],
    profile_file: Callable[[str], str],
    news: News,
    *,
    lists: bool = True,
) -> Recovered:
    """Make the catalog of the given cartridges in a workspace, and the profile beside it.

    `profile_file` names the file of a profile. Killed at any point, it may be done again. Without
    `lists` the catalog serves a restore only: a backup would store everything again. Raises
    ProfileExists, CatalogExists, WrongCartridge.
    """
    given = open_given(folders)
    name = given[0].cartridge.label.profile
    place, profile = Place(workspace, name), profile_file(name)
    with durable.in_workspace():
        durable.make_folders(place.folder)
        with locks.ProfileLock(place.lock, name).alone():
            draft = os.path.join(place.folder, "recovering")
            if _is_published(draft):
                return _finish(draft, profile)
            _check_free(place, profile)
            shutil.rmtree(draft, ignore_errors=True)
            durable.make_folders(draft)
            report = rebuild(Store(os.path.join(draft, "catalog")), draft, given, news, lists=lists)
            durable.write_whole(os.path.join(draft, _REPORT), to_json(report))
            shutil.rmtree(place.store.folder, ignore_errors=True)  # it is empty
            os.rename(os.path.join(draft, "catalog"), place.store.folder)
            durable.sync_folder(place.folder)
            return _finish(draft, profile)


def _is_published(draft: str) -> bool:
    """Whether a recover was killed when the catalog had its name and the profile had not."""
    is_whole = os.path.exists(os.path.join(draft, _REPORT))
    return is_whole and not os.path.exists(os.path.join(draft, "catalog"))


def _check_free(place: Place, profile: str) -> None:
    if os.path.lexists(profile):
        raise ProfileExists(profile=place.profile_name, file=profile)
    store = place.store
    tables = (store.archives_path, store.cartridges_path)
    if store.snapshots() or any(map(os.path.exists, tables)) or place.runs():
        raise CatalogExists(profile=place.profile_name, folder=place.folder)


def _finish(draft: str, profile: str) -> Recovered:
    """Publish the profile, which makes the catalog one that can be used."""
    path = os.path.join(draft, _REPORT)
    report = from_json(Recovered, durable.read_whole(path), path)
    if not os.path.lexists(profile):
        durable.make_folders(os.path.dirname(profile))
        durable.write_whole(profile, durable.read_whole(os.path.join(draft, _PROFILE)))
    shutil.rmtree(draft)
    return report


def rebuild(store: Store, folder: str, given: list[Given], news: News, *, lists: bool) -> Recovered:
    """Write the catalog to `store`, and the profile to `folder`."""
    store.create()
    work = _Rebuilding(store, folder, given)
    held = work.read(lists=lists)
    if not work.chosen:
        news("No manifest can be read: the archives themselves are read, which takes long.")
        work.whole = unearth(folder, given)
        held = work.relist() if lists else {}
    return work.publish(held, is_unearthed=any(c.is_unearthed for c in work.chosen.values()))


class _Rebuilding:
    """One recover: manifests first, then lists of contents, tables and the profile from them.

    `whole` are manifests of complete snapshots, `parts` those of runs that were not complete when
    the cartridge was sealed; these count as snapshots only where there is nothing else.
    """

    def __init__(self, store: Store, folder: str, given: list[Given]) -> None:
        self._store, self._folder, self._given = store, folder, given
        self._label = given[0].cartridge.label
        self._catalogs = Catalogs(given, folder)
        self._tables = self._catalogs.archives()
        self.whole: dict[str, Copy] = {}
        self.parts: dict[str, Copy] = {}

    @property
    def chosen(self) -> dict[str, Copy]:
        """The manifests that become snapshots."""
        return self.whole or self.parts

    def read(self, *, lists: bool) -> dict[str, Held]:
        """Choose the manifests; one that turns out to be damaged gives way to the next copy."""
        for snapshot in self._catalogs.snapshots():
            self._choose(snapshot)
        while lists:
            try:
                held = self.relist()
                self._catalogs.check_rest()
                return held
            except FormatDamaged as error:
                copies = {copy.path: copy for copy in [*self.whole.values(), *self.parts.values()]}
                bad = copies[error.facts["file"]]
                bad.refuse()
                self._choose(bad.info.snapshot)
        return {}

    def _choose(self, snapshot: str) -> None:
        for copies in (self.whole, self.parts):
            copies.pop(snapshot, None)
        path = os.path.join(self._folder, f"{snapshot}.parquet")
        copy = self._catalogs.manifest(snapshot, path)
        if copy is not None:
            (self.whole if copy.info.complete else self.parts)[snapshot] = copy

    def relist(self) -> dict[str, Held]:
        """Make the lists of contents; archives whose own manifest is gone are told of by others."""
        known = {row.snapshot for table in self._tables for row in table}
        known |= {line.snapshot for one in self._given for line in one.journal}
        others = known - self.whole.keys()
        copies = {**self.parts, **self.whole}
        told = [Told(path=copies[s].path, snapshots={s, *others}) for s in sorted(copies)]
        return relist(self._store, told)

    def publish(self, held: dict[str, Held], *, is_unearthed: bool) -> Recovered:
        """Write tables, manifests and profile, and say what there is."""
        given, catalogs, chosen = self._given, self._catalogs, self.chosen
        found = catalogs.profile(self._label.profile, self._label.set)
        profile, left_out = found or (None, [])
        needed = {archive for copy in chosen.values() for archive in copy.info.archives}
        newest_needs = chosen[max(chosen)].info.archives if chosen else []
        archives = archive_rows(self._tables, given, held, needed, newest_needs)
        cap = profile.cartridges.capacity if profile else None
        cartridges = cartridge_rows(catalogs.cartridges(), given, cap)
        forgotten = catalogs.pruned(row.snapshot for row in archives)
        missing = sorted(self._missing(archives) - {*forgotten})
        absent = Absent(forgotten=forgotten, missing=missing)
        durable.write_whole(self._store.absent_path, to_json(absent))
        write_rows(self._store.archives_path, ARCHIVES, archives)
        write_rows(self._store.cartridges_path, CARTRIDGES, cartridges)
        paths = self._write_profile(profile, left_out)
        for snapshot, copy in chosen.items():
            durable.publish(copy.path, self._store.manifest_path(snapshot))
        return Recovered(
            profile=self._label.profile,
            snapshots=sorted(chosen),
            missing_snapshots=missing,
            missing_cartridges=_absent(cartridges, given),
            damaged=[f"{one.title}: {name}" for one in given for name in sorted(one.damaged)],
            partial=sorted(self.parts),
            nowhere=sum(row.cartridge == 0 for row in archives),
            is_unearthed=is_unearthed,
            paths=paths,
            left_out=left_out,
        )

    def _missing(self, archives: list[ArchiveRow]) -> set[str]:
        """Return the snapshots that are known by name only, damaged manifests among them.

        Older versions wrote no list of snapshots: what archives and manifests name is taken for it.
        """
        listed = self._catalogs.expected()
        named = {row.snapshot for row in archives if row.state != DEAD}
        named |= {copy.info.previous for copy in self.chosen.values() if copy.info.previous}
        newer = {snapshot for snapshot in named if snapshot > max(listed, default="")}
        here = {snapshot for one in self._given for snapshot in one.manifests()}
        return (listed | newer | here | self.parts.keys()) - self.chosen.keys()

    def _write_profile(self, profile: Profile | None, left_out: list[str]) -> dict[str, str]:
        """Write the profile; return the paths to fill in where it had to be made up."""
        name, paths = self._label.profile, dict[str, str]()
        if profile is not None:
            text = public_text(name, profile, left_out)
        else:
            newest = self.chosen[max(self.chosen)] if self.chosen else None
            text, paths = sketched_text(name, self._label.set, newest.sources() if newest else [])
        durable.write_whole(os.path.join(self._folder, _PROFILE), text.encode())
        return paths


def _absent(rows: Iterable[CartridgeRow], given: Iterable[Given]) -> list[str]:
    """Name the cartridges that hold something and are not here."""
    here = {one.serial for one in given}
    return [r.label for r in rows if r.serial not in here and r.state not in (BLANK, LOST)]
