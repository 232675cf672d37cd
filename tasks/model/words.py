"""The nouns of a backup as plain data: labels, journal lines, plans, receipts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FORMAT_VERSION = 1
# The id of a snapshot: when it began, in UTC.
SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What `CARTRIDGE.json` says: who a cartridge is, never what lies on it."""

    format_version: int
    set: str
    serial: int
    uuid: str
    profile: str
    capacity: int | None
    created: str
    codec: str
    encryption: str

    @property
    def title(self) -> str:
        """The name that people read on the sticker, `home 3`."""
        return f"{self.set} {self.serial}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """One archive that lies whole on a cartridge; `archive` is its path there."""

    archive: str
    bytes: int
    sha256: str
    snapshot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CartridgeRow:
    """What the catalog knows of one cartridge, present or not."""

    serial: int
    set: str
    label: str
    uuid: str
    capacity: int | None
    state: str
    used: int
    location: str
    created: str
    written: str | None = None
    verified: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRow:
    """What the catalog knows of one archive: its identity is its path on the cartridge."""

    archive: str
    snapshot: str
    bytes: int
    sha256: str
    content_bytes: int
    members: int
    contents: int
    cartridge: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRoot:
    """The folder of a source itself: it has no row of its own in a manifest."""

    source: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, str] = field(default_factory=dict)
    entries: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A path (`<source>/<path>`, shown with U+FFFD) that was not backed up, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """What a manifest's footer says of its snapshot.

    `archives` are those that its rows refer to; `complete` is False for the part of a manifest
    that a cartridge gets while the run still goes on.
    """

    snapshot: str
    profile: str
    time: str
    previous: str | None
    complete: bool
    entries: int
    files: int
    bytes: int
    roots: list[SourceRoot]
    archives: list[str]
    troubles: list[Trouble]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotList:
    """Which snapshots a catalog knew, oldest first, when a cartridge was sealed with it.

    `forgotten` are those that it had known; None in lists that older versions wrote.
    """

    sealed: str
    snapshots: list[str]
    forgotten: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Snapshots of which a catalog has no manifest, and why.

    `forgotten` by retention, or given up: what is left of them goes. `missing` are those that a
    recover knew by name only: what they may need stays.
    """

    forgotten: list[str]
    missing: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSummary:
    """What a walk of one source met besides its rows.

    `unread` are the keys of the troubles, `<source>/<path>` as hexadecimal bytes; `root_inode`
    tells whether what lies at the root later is still the same.
    """

    root: SourceRoot
    bytes: int
    troubles: list[Trouble]
    unread: list[str]
    sockets: list[str]
    clamped: int
    root_inode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffSummary:
    """How many entries changed, by kind of change."""

    entries: int
    added: int
    modified: int
    moved: int
    metadata: int
    deleted: int

    @property
    def changed(self) -> bool:
        """Whether there is anything that a new snapshot would record."""
        return any((self.added, self.modified, self.moved, self.metadata, self.deleted))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """Where content is cut; fixed for a set by its smallest cartridge. All in bytes."""

    split_size: int
    minimum: int
    average: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The rows [start, stop) of the pack list: the work of one PackArchive task."""

    number: int
    start: int
    stop: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivesPlan:
    """How the change set is packed: bundles of rows, archives of `archive_size` bytes."""

    archive_size: int
    cutting: Cutting
    bundles: list[Bundle]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedArchive:
    """An archive that is whole in the spool; its rows lie beside it as Parquet."""

    number: str
    archive: str
    bytes: int
    sha256: str
    content_bytes: int
    members: int
    contents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An archive of a run, by number, that lies on a cartridge, by serial, or is on its way."""

    number: str
    cartridge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A cartridge, by serial, that a run has begun to write."""

    cartridge: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReceipt:
    """One cartridge's share of a run: written, sealed, and whether more is to come."""

    sequence: int
    serial: int
    uuid: str
    path: str
    archives: list[str]
    bytes: int
    last: bool
    # Archives on it that were read back while its catalog was put together, and when each was
    # written to last, in nanoseconds since 1970. Receipts of earlier versions do not tell.
    already_read: dict[str, int] = field(default_factory=dict)
    # Earlier manifests and recipes that it got anew; None in receipts of earlier versions.
    regained: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a stage ended badly: the name and facts of a CartridgeError."""

    stage: str
    error: str
    facts: dict[str, str]
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReceipt:
    """A bundle that is packed: its archives, and what could not be read."""

    number: int
    archives: list[str]
    troubles: list[Trouble]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended; `backup --json` prints these fields.

    `skipped` are sockets, which no backup can hold; `clamped` counts times outside 1677..2262.
    """

    snapshot: str | None
    status: str
    entries: int
    added: int
    modified: int
    moved: int
    metadata: int
    deleted: int
    unreadable: list[str]
    skipped: list[str]
    clamped: int
    bytes_read: int
    bytes_stored: int
    archives: int
    cartridges: list[int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrilledCartridge:
    """What a drill restored from one cartridge, and the `<source>/<path>` that came back wrong.

    `uuid` tells it from another that gets its serial later.
    """

    serial: int
    uuid: str
    label: str
    files: int
    bytes: int
    damaged: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One drill in the history of a profile; `time` is when it ended."""

    time: str
    seed: int
    cartridges: list[DrilledCartridge]
