"""The catalog as it lies on a cartridge: which files, and how much room they take."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources

from tasks.catalog.recipe import recipe_name, write_recipe
from tasks.catalog.relisted import stored_by
from tasks.catalog.runs import Run
from tasks.catalog.store import ARCHIVES, STORED, Store, write_rows
from tasks.formats.manifest import read_info
from tasks.formats.records import to_json
from tasks.media.cartridge import Cartridge, file_digest, rounded
from tasks.media.layout import MANIFESTS, README, SCRIPT, is_lasting
from tasks.model.errors import CartridgeFailed, CartridgeFull, FormatDamaged
from tasks.model.units import iso
from tasks.model.words import (
    ArchiveRow,
    DiffSummary,
    PackedArchive,
    ScanSummary,
    SnapshotInfo,
    SnapshotList,
)

ARCHIVE_TABLE, CARTRIDGE_TABLE = "catalog/archives.parquet", "catalog/cartridges.parquet"
SNAPSHOTS, PROFILE = "catalog/snapshots.json", "catalog/profile.toml"
_SLACK = 64 << 10
# Bytes of older manifests that are read at a seal.
_SAMPLE = 64 << 20
# Bytes: a row of archives.parquet, a line of SHA256SUMS, what a file's digest and part add to the
# row of the scan, the fixed parts of small files, and the id of a snapshot in a list.
_ARCHIVE_ROW, _SUMS_LINE, _FILE, _PART, _FIXED, _SNAPSHOT = 110, 112, 76, 90, 6 << 10, 20
# Bytes in a recipe: a name in a list, a header of its own.
_LISTED, _HEADER = 12, 110


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest snapshot as a cartridge gets it; a part of a manifest has no recipe."""

    snapshot: str
    manifest: str
    recipe: str | None

    @property
    def files(self) -> dict[str, str]:
        """What a cartridge gets: name -> path."""
        files = {manifest_name(self.snapshot): self.manifest}
        return files | ({recipe_name(self.snapshot): self.recipe} if self.recipe else {})


def manifest_name(snapshot: str) -> str:
    """Name a snapshot's manifest on a cartridge."""
    return f"{MANIFESTS}/{snapshot}.parquet"


def archive_rows(run: Run) -> list[ArchiveRow]:
    """Describe the archives of a run that lie on cartridges by now."""
    return rows_of(run, run.placed())


def rows_of(run: Run, serials: Mapping[str, int]) -> list[ArchiveRow]:
    """Describe archives of a run, each on the cartridge of that serial."""
    return [_row(run, p, serials[p.number]) for p in run.packed() if p.number in serials]


def _row(run: Run, packed: PackedArchive, serial: int) -> ArchiveRow:
    return ArchiveRow(
        archive=packed.archive,
        snapshot=run.snapshot,
        bytes=packed.bytes,
        sha256=packed.sha256,
        content_bytes=packed.content_bytes,
        members=packed.members,
        contents=packed.contents,
        cartridge=serial,
        state=STORED,
    )


def merged(old: Iterable[ArchiveRow], new: Iterable[ArchiveRow]) -> list[ArchiveRow]:
    """Add archives to the table; one that is there already is replaced."""
    return list({row.archive: row for row in [*old, *new]}.values())


def seal(
    cartridge: Cartridge,
    store: Store,
    newest: Newest,
    archives: str,
    owed: Mapping[str, str],
    cap: int | None,
) -> None:
    """Put the catalog on a cartridge: the newest manifest, and those of snapshots with data here.

    `archives` is the table to put, `owed` what it lacks of the older ones, `cap` the limit of
    the profile in bytes. Raises CartridgeFull where there is no room for all of it.
    """
    files: dict[str, str | bytes] = {**owed, **newest.files}
    files[ARCHIVE_TABLE] = archives
    files[CARTRIDGE_TABLE] = store.cartridges_path
    files[SNAPSHOTS] = _snapshots(store, newest.manifest)
    if os.path.exists(store.profile_path):
        files[PROFILE] = store.profile_path
    files[README] = readme(cartridge)
    files[SCRIPT] = script()
    _require_room(cartridge, files, cap)
    older = _older(cartridge, store, newest.snapshot)
    wanted = {*files, *_names_of(older)}
    stale = forgotten(cartridge, store) | (_names_of(store.snapshots()) - wanted)
    cartridge.seal(files, _of_snapshots(cartridge) & stale)


def _require_room(cartridge: Cartridge, files: Mapping[str, str | bytes], cap: int | None) -> None:
    """Raise CartridgeFull where files do not fit beside the archives; old ones make room."""
    there = dict(cartridge.files())
    sizes = {n: len(f) if isinstance(f, bytes) else os.path.getsize(f) for n, f in files.items()}
    growth = sum(rounded(size) - rounded(there.get(name, 0)) for name, size in sizes.items())
    if growth > cartridge.room(cap):
        reason = "there is no room for the catalog"
        raise CartridgeFull(label=cartridge.label.title, path=cartridge.path, reason=reason)


def owed(cartridge: Cartridge, store: Store, newest: str) -> dict[str, str]:
    """Return what a cartridge lacks of older snapshots with data on it: name -> path.

    What is not as it was sealed is lacking too. Of what is there some is read, chosen anew with
    every snapshot; all of it where nobody has found the cartridge right since it was damaged.
    """
    files = {}
    for snapshot in sorted(_older(cartridge, store, newest)):
        files[manifest_name(snapshot)] = store.manifest_path(snapshot)
        files[recipe_name(snapshot)] = recipe_of(store, snapshot)
    verified = {row.uuid for row in store.cartridges() if row.verified}
    budget = _SAMPLE if cartridge.label.uuid in verified else sys.maxsize
    try:
        sealed = cartridge.sums()
    except FormatDamaged:
        sealed = {}
    lacking = {}
    for name, path in random.Random(newest).sample([*files.items()], len(files)):
        size = os.path.getsize(path)
        budget -= size
        if not _is_there(cartridge.file(name), size, sealed.get(name), is_read=budget >= 0):
            lacking[name] = path
    return lacking


def recipe_of(store: Store, snapshot: str) -> str:
    """Return the path of a snapshot's recipe, which is made where there is none yet."""
    path = store.recipe_path(snapshot)
    if not os.path.exists(path):
        manifest, tables = store.manifest_path(snapshot), (store.archives(), store.cartridges())
        write_recipe(path, manifest, *tables, partial(stored_by, store))
    return path


def forgotten(cartridge: Cartridge, store: Store) -> set[str]:
    """Return what a cartridge has of snapshots that the catalog has forgotten.

    What it never knew of stays: another workspace may have written it, or one that was lost.
    """
    gone = {*store.absent().forgotten}.difference(store.snapshots())
    return _of_snapshots(cartridge) & _names_of(gone)


def _names_of(snapshots: Iterable[str]) -> set[str]:
    """Return the names of the manifests and recipes of snapshots."""
    return {name(snapshot) for snapshot in snapshots for name in (manifest_name, recipe_name)}


def _older(cartridge: Cartridge, store: Store, newest: str) -> set[str]:
    """Return the snapshots, but for the newest, that a cartridge is to know.

    Those with data on it; and those that stored nothing anywhere and were the newest here once: no
    other cartridge may know them.
    """
    known = set(store.snapshots()) - {newest}
    here = {line.snapshot for line in cartridge.journal()}
    stored = {row.snapshot for row in store.archives()}
    present = _of_snapshots(cartridge)
    return {s for s in known if s in here or (s not in stored and manifest_name(s) in present)}


def _of_snapshots(cartridge: Cartridge) -> set[str]:
    return {name for name, _ in cartridge.files() if is_lasting(name)}


def _snapshots(store: Store, manifest: str) -> bytes:
    """List the snapshots that there are, and were; one that is unfinished is none yet."""
    info: SnapshotInfo = read_info(manifest, SnapshotInfo)
    known = {*store.snapshots(), *store.unknown(), *([info.snapshot] if info.complete else [])}
    gone = sorted({*store.absent().forgotten} - known)
    sealed = iso(datetime.now(UTC))
    return to_json(SnapshotList(sealed=sealed, snapshots=sorted(known), forgotten=gone))


def refresh(cartridge: Cartridge, store: Store, cap: int | None) -> None:
    """Bring the catalog on a cartridge up to date with the workspace's, as far as there is room.

    What no snapshot needs goes in any case. A cartridge is complete without the newest manifest.
    """
    newest = store.newest()
    stale = forgotten(cartridge, store)
    if stale:
        cartridge.seal({}, stale)
    lacking = owed(cartridge, store, newest) if newest is not None else {}
    if newest is None or cartridge.room(cap) < _room_for(store, newest, lacking):
        cartridge.write_sums()
        return
    facts = Newest(newest, store.manifest_path(newest), recipe_of(store, newest))
    try:
        seal(cartridge, store, facts, store.archives_path, lacking, cap)
    except (CartridgeFull, CartridgeFailed):
        cartridge.write_sums()  # some files are new, some are not: the sums fit all of them
        raise


def _room_for(store: Store, newest: str, lacking: Mapping[str, str]) -> int:
    paths = [store.manifest_path(newest), store.archives_path, store.cartridges_path]
    return sizes_of([*paths, recipe_of(store, newest), *lacking.values()]) + _SLACK


def sizes_of(paths: Iterable[str]) -> int:
    """Return the bytes that files take on a cartridge."""
    return sum(rounded(os.path.getsize(path)) for path in paths)


def script() -> bytes:
    """Return restore.sh, which needs nothing of this program."""
    return resources.files("tasks.formats").joinpath(SCRIPT).read_bytes()


def readme(cartridge: Cartridge) -> bytes:
    """Return README.txt: what a cartridge is, and how to restore from it by hand."""
    text = resources.files("tasks.formats").joinpath("cartridge-readme.txt").read_text("utf-8")
    label = cartridge.label
    return (
        text.replace("@TITLE@", label.title)
        .replace("@PROFILE@", label.profile)
        .replace("@UUID@", label.uuid)
        .encode()
    )


def write_recipe_of(run: Run) -> str:
    """Write the recipe of a run whose manifest is complete; return its path."""
    path = run.path("recipe.tar.lz4")
    archives = merged(run.store.archives(), archive_rows(run))
    store, manifest = run.store, run.path("manifest.parquet")
    write_recipe(path, manifest, archives, store.cartridges(), partial(stored_by, store))
    return path


def write_archives(run: Run) -> str:
    """Write the table of archives as of now, with those of the run; return its path."""
    path = run.path("archives.parquet")
    write_rows(path, ARCHIVES, merged(run.store.archives(), archive_rows(run)))
    return path


def reserve(run: Run, scans: list[ScanSummary], average_part: int, archives: int) -> int:
    """Estimate the room that the catalog will take on a cartridge, in bytes; rather too much.

    `archives` is the number of archives expected on the cartridge, those that lie there included.
    """
    names = os.listdir(run.path("scan"))
    seen = sum(os.path.getsize(run.path("scan", name)) for name in names)
    files = sum(scan.root.files for scan in scans)
    parts = sum(scan.bytes for scan in scans) // average_part
    manifest = int(seen * 1.02) + files * _FILE + parts * _PART + _FIXED
    previous = run.request.previous
    if previous:
        manifest = max(manifest, int(os.path.getsize(run.store.manifest_path(previous)) * 1.02))
    table = (len(run.store.archives()) + archives) * _ARCHIVE_ROW + _FIXED
    sums = (archives + 16) * _SUMS_LINE
    snapshots = len(run.store.snapshots()) + len(run.store.absent().forgotten) + 1
    listed = snapshots * _SNAPSHOT + _size(run.store.profile_path)
    recipe = _recipe_size(run, scans, seen)
    fixed = (_FIXED, _FIXED, len(script()))
    return sum(map(rounded, (manifest, recipe, table, sums, listed, *fixed))) + 5 * rounded(1)


def _recipe_size(run: Run, scans: list[ScanSummary], seen: int) -> int:
    """Estimate what a recipe takes: `seen` are the bytes of the scan, which has all names."""
    files = sum(scan.root.files for scan in scans)
    others = sum(scan.root.entries for scan in scans) - files
    found = run.load("diff.json", DiffSummary)
    odd = found.moved + found.metadata + found.modified
    size = seen + files * _LISTED + (others + odd) * _HEADER + _FIXED
    previous = run.request.previous
    if previous and os.path.exists(run.store.recipe_path(previous)):
        grown = os.path.getsize(run.store.recipe_path(previous)) * 1.02 + odd * _HEADER
        size = max(size, int(grown) + found.added * _LISTED)
    return size


def _is_there(path: str, size: int, sealed: str | None, *, is_read: bool) -> bool:
    """Whether a file that was sealed is as long as it should be, and right, if it is read."""
    try:
        is_long = sealed is not None and os.path.getsize(path) == size
        return is_long and (not is_read or file_digest(path) == sealed)
    except OSError:
        return False


def _size(path: str) -> int:
    """Return the size of a file that a run of an earlier version did not write."""
    return os.path.getsize(path) if os.path.exists(path) else 0
