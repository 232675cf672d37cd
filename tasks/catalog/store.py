"""The catalog in the workspace: which snapshots, archives and cartridges a profile knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import pyarrow as pa

from tasks.formats import manifest
from tasks.formats.records import from_json, to_json
from tasks.media import durable, locks
from tasks.model.errors import FormatDamaged, SnapshotMissing
from tasks.model.words import Absent, ArchiveRow, CartridgeRow, SnapshotInfo

Row = TypeVar("Row", CartridgeRow, ArchiveRow)

# What an archive may be: there, without use, gone.
STORED, DEAD, LOST = "stored", "dead", "lost"

_STRING, _INT = pa.string(), pa.int64()
CARTRIDGES = pa.schema(
    [
        ("serial", _INT),
        ("set", _STRING),
        ("label", _STRING),
        ("uuid", _STRING),
        ("capacity", _INT),
        ("state", _STRING),
        ("used", _INT),
        ("location", _STRING),
        ("created", _STRING),
        ("written", _STRING),
        ("verified", _STRING),
    ]
)
ARCHIVES = pa.schema(
    [
        ("archive", _STRING),
        ("snapshot", _STRING),
        ("bytes", _INT),
        ("sha256", _STRING),
        ("content_bytes", _INT),
        ("members", _INT),
        ("contents", _INT),
        ("cartridge", _INT),
        ("state", _STRING),
    ]
)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder `state/NAME/catalog`; every change replaces a file whole."""

    folder: str

    def manifest_path(self, snapshot: str) -> str:
        """Name the manifest of a snapshot."""
        return os.path.join(self.folder, "manifests", f"{snapshot}.parquet")

    def recipe_path(self, snapshot: str) -> str:
        """Name the recipe of a snapshot; it can be made again from the rest at any time."""
        return os.path.join(self.folder, "recipes", f"{snapshot}.tar.lz4")

    def contents_path(self, snapshot: str) -> str:
        """Name the list of contents that a snapshot stored; `stored_by` tells where it has none."""
        return os.path.join(self.folder, "contents", f"{snapshot}.parquet")

    @property
    def absent_path(self) -> str:
        """Name the record of snapshots that are not known any more."""
        return os.path.join(self.folder, "absent.json")

    @property
    def cartridges_path(self) -> str:
        """Name the table of cartridges."""
        return os.path.join(self.folder, "cartridges.parquet")

    @property
    def archives_path(self) -> str:
        """Name the table of archives."""
        return os.path.join(self.folder, "archives.parquet")

    @property
    def profile_path(self) -> str:
        """Name the copy of the profile that goes onto cartridges."""
        return os.path.join(self.folder, "profile.toml")

    def keep_profile(self, text: str) -> None:
        """Keep what goes onto cartridges of the profile; runs on several hosts may do so."""
        with self.locked():
            if not os.path.exists(self.profile_path) or _content(self.profile_path) != text:
                durable.write_whole(self.profile_path, text.encode())

    def create(self) -> None:
        """Make the folders of an empty catalog."""
        for name in ("manifests", "contents", "recipes"):
            durable.make_folders(os.path.join(self.folder, name))

    def snapshots(self) -> list[str]:
        """Return the ids of all snapshots, oldest first."""
        try:
            names = os.listdir(os.path.join(self.folder, "manifests"))
        except FileNotFoundError:
            return []
        return sorted(n.removesuffix(".parquet") for n in names if n.endswith(".parquet"))

    def stored_snapshots(self) -> list[str]:
        """Return the ids of all snapshots of which archives may still lie on cartridges."""
        try:
            archives = manifest.read_table(self.archives_path, ["snapshot"])
        except FileNotFoundError:
            return []
        return sorted(archives.column("snapshot").unique().to_pylist())

    def listed_snapshots(self) -> list[str]:
        """Return the ids of all snapshots that have a list of contents."""
        try:
            names = os.listdir(os.path.join(self.folder, "contents"))
        except FileNotFoundError:
            return []
        return sorted(n.removesuffix(".parquet") for n in names if n.endswith(".parquet"))

    def absent(self) -> Absent:
        """Return which snapshots were forgotten, and which a recover did not find."""
        if not os.path.exists(self.absent_path):
            return Absent(forgotten=[], missing=[])
        return from_json(Absent, durable.read_whole(self.absent_path), self.absent_path)

    def forget(self, snapshots: Iterable[str]) -> None:
        """Note that snapshots are forgotten: before anything of them goes."""
        with self.locked():
            absent = self.absent()
            forgotten = sorted({*absent.forgotten, *snapshots})
            if forgotten != absent.forgotten:
                durable.write_whole(self.absent_path, to_json(replace(absent, forgotten=forgotten)))

    def unknown(self) -> set[str]:
        """Return the snapshots that there are, and of which nobody here knows what they need.

        A recover was not given the cartridges with their manifests.
        """
        absent = self.absent()
        named = {row.snapshot for row in self.archives() if row.state != DEAD}
        return {*named, *absent.missing}.difference(self.snapshots(), absent.forgotten)

    def newest(self) -> str | None:
        """Return the id of the newest snapshot, if there is one."""
        known = self.snapshots()
        return known[-1] if known else None

    def newest_id(self) -> str | None:
        """Return the newest id in use: one that was given up names archives until they are gone."""
        return max([*self.snapshots()[-1:], *self.stored_snapshots()[-1:]], default=None)

    def require(self, profile: str, snapshot: str | None) -> str:
        """Return a snapshot's id, the newest where None is given; SnapshotMissing otherwise."""
        known = self.snapshots()
        if snapshot is None and known:
            return known[-1]
        if snapshot is None or snapshot not in known:
            raise SnapshotMissing(profile=profile, wanted=snapshot or "yet")
        return snapshot

    def info(self, snapshot: str) -> SnapshotInfo:
        """Read what a snapshot's manifest says of itself."""
        found: SnapshotInfo = manifest.read_info(self.manifest_path(snapshot), SnapshotInfo)
        return found

    def cartridges(self) -> list[CartridgeRow]:
        """Return all cartridges of the set, by serial."""
        return read_rows(self.cartridges_path, CartridgeRow)

    def archives(self) -> list[ArchiveRow]:
        """Return all archives that lie on cartridges, in the order they were made."""
        return read_rows(self.archives_path, ArchiveRow)

    def update_cartridges(self, change: Callable[[list[CartridgeRow]], list[CartridgeRow]]) -> None:
        """Replace the table of cartridges by what `change` makes of it, under a lock."""
        with self.locked():
            rows = sorted(change(self.cartridges()), key=lambda row: row.serial)
            write_rows(self.cartridges_path, CARTRIDGES, rows)

    def update_archives(self, change: Callable[[list[ArchiveRow]], list[ArchiveRow]]) -> None:
        """Replace the table of archives by what `change` makes of it, under a lock."""
        with self.locked():
            rows = sorted(change(self.archives()), key=lambda row: row.archive)
            write_rows(self.archives_path, ARCHIVES, rows)

    def alter_cartridge(self, uuid: str, **facts: object) -> None:
        """Change some facts of one cartridge."""
        self.update_cartridges(
            lambda rows: [replace(r, **facts) if r.uuid == uuid else r for r in rows]  # type: ignore[arg-type]
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the tables meanwhile."""
        self.create()
        with locks.exclusive(os.path.join(self.folder, "lock")):
            yield


def _content(path: str) -> str:
    return durable.read_whole(path).decode("utf-8", "replace")


def write_rows(path: str, schema: pa.Schema, rows: Iterable[CartridgeRow | ArchiveRow]) -> None:
    """Write a table of dataclasses as Parquet, durably."""
    with durable.replacing(path) as draft, manifest.TableWriter(draft, schema) as writer:
        batch = pa.RecordBatch.from_pylist([asdict(row) for row in rows], schema=schema)
        writer.write(batch)
        writer.close()


def read_rows(path: str, kind: type[Row]) -> list[Row]:
    """Read a table of dataclasses, [] where there is none; FormatDamaged where it is not one."""
    try:
        table = manifest.read_table(path)
        return [kind(**row) for row in table.to_pylist()]
    except FileNotFoundError:
        return []
    except TypeError as error:
        reason = f"its columns are not those of the table: {error}"
        raise FormatDamaged(file=path, reason=reason) from error
