"""The catalog as it lies on a cartridge: which files, and how much room they take."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import resources

from tasks.catalog.runs import Run
from tasks.catalog.store import ARCHIVES, Store, write_rows
from tasks.formats.manifest import read_info
from tasks.formats.records import to_json
from tasks.media.cartridge import Cartridge, rounded
from tasks.model.errors import CartridgeFailed, CartridgeFull
from tasks.model.units import iso
from tasks.model.words import ArchiveRow, PackedArchive, ScanSummary, SnapshotInfo, SnapshotList

MANIFESTS = "catalog/manifests"
ARCHIVE_TABLE, CARTRIDGE_TABLE = "catalog/archives.parquet", "catalog/cartridges.parquet"
SNAPSHOTS, PROFILE = "catalog/snapshots.json", "catalog/profile.toml"
_SLACK = 64 << 10
STORED, DEAD, LOST = "stored", "dead", "lost"
# Bytes: a row of archives.parquet, a line of SHA256SUMS, what a file's digest and part add to the
# row of the scan, the fixed parts of small files, and the id of a snapshot in a list.
_ARCHIVE_ROW, _SUMS_LINE, _FILE, _PART, _FIXED, _SNAPSHOT = 110, 112, 76, 90, 6 << 10, 20


def manifest_name(snapshot: str) -> str:
    """Name a snapshot's manifest on a cartridge."""
    return f"{MANIFESTS}/{snapshot}.parquet"


def archive_rows(run: Run) -> list[ArchiveRow]:
    """Describe the archives of a run that lie on cartridges by now."""
    placed = run.placed()
    return [_row(run, p, placed[p.number]) for p in run.packed() if p.number in placed]


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


def seal(cartridge: Cartridge, store: Store, newest: str, manifest: str, archives: str) -> None:
    """Put the catalog on a cartridge: the newest manifest, and those of snapshots with data here.

    `newest` is the snapshot whose manifest lies at `manifest`; `archives` is the table to put.
    """
    here = {line.snapshot for line in cartridge.journal()}
    older = (here & set(store.snapshots())) - {newest}
    files: dict[str, str | bytes] = {
        manifest_name(snapshot): store.manifest_path(snapshot)
        for snapshot in sorted(older)
        if not _is_there(cartridge, snapshot, store.manifest_path(snapshot))
    }
    files[manifest_name(newest)] = manifest
    files[ARCHIVE_TABLE] = archives
    files[CARTRIDGE_TABLE] = store.cartridges_path
    files[SNAPSHOTS] = _snapshots(store, manifest)
    if os.path.exists(store.profile_path):
        files[PROFILE] = store.profile_path
    files["README.txt"] = readme(cartridge)
    wanted = {manifest_name(snapshot) for snapshot in (*older, *_homeless(store), newest)}
    present = {name for name, _ in cartridge.files() if name.startswith(MANIFESTS + "/")}
    cartridge.seal(files, present - wanted)


def _snapshots(store: Store, manifest: str) -> bytes:
    """List the snapshots that there are; one that is unfinished is none yet."""
    info: SnapshotInfo = read_info(manifest, SnapshotInfo)
    known = {*store.snapshots(), *([info.snapshot] if info.complete else [])}
    return to_json(SnapshotList(sealed=iso(datetime.now(UTC)), snapshots=sorted(known)))


def _homeless(store: Store) -> set[str]:
    """Return the snapshots that stored nothing: where their manifest lies, it stays."""
    return set(store.snapshots()) - {row.snapshot for row in store.archives()}


def refresh(cartridge: Cartridge, store: Store, cap: int | None) -> None:
    """Bring the catalog on a cartridge up to date with the workspace's, as far as there is room.

    What no snapshot needs goes in any case. A cartridge is complete without the newest manifest.
    """
    newest = store.newest()
    known = {manifest_name(snapshot) for snapshot in store.snapshots()}
    present = {name for name, _ in cartridge.files() if name.startswith(MANIFESTS + "/")}
    if present - known:
        cartridge.seal({}, present - known)
    if newest is None or cartridge.room(cap) < _room_for(store, newest):
        cartridge.write_sums()
        return
    try:
        seal(cartridge, store, newest, store.manifest_path(newest), store.archives_path)
    except (CartridgeFull, CartridgeFailed):
        cartridge.write_sums()  # some files are new, some are not: the sums fit all of them
        raise


def _room_for(store: Store, newest: str) -> int:
    paths = (store.manifest_path(newest), store.archives_path, store.cartridges_path)
    return sum(rounded(os.path.getsize(path)) for path in paths) + _SLACK


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
    listed = (len(run.store.snapshots()) + 1) * _SNAPSHOT + _size(run.store.profile_path)
    return sum(map(rounded, (manifest, table, sums, listed, _FIXED, _FIXED))) + 4 * rounded(1)


def _is_there(cartridge: Cartridge, snapshot: str, path: str) -> bool:
    """Whether a manifest lies there already; verify finds it where its bytes are not the same."""
    try:
        return os.path.getsize(cartridge.file(manifest_name(snapshot))) == os.path.getsize(path)
    except FileNotFoundError:
        return False


def _size(path: str) -> int:
    """Return the size of a file that a run of an earlier version did not write."""
    return os.path.getsize(path) if os.path.exists(path) else 0
