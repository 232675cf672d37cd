"""A run in the workspace: its request, frozen when it starts, and what its stages leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tasks.catalog.store import Store
from tasks.formats.records import from_json, to_json
from tasks.media import durable
from tasks.model.errors import FormatDamaged
from tasks.model.words import Begun, BundleReceipt, PackedArchive, Placed, Trouble, WriteReceipt

if TYPE_CHECKING:
    from tasks.catalog.request import Request

Record = TypeVar("Record")

_ENDED = "ended.json"


def receipt_name(sequence: int) -> str:
    """Name the receipt of the n-th cartridge of a run."""
    return os.path.join("written", f"{sequence:03d}.json")


def verdict_name(sequence: int) -> str:
    """Name the result of the n-th read-back of a run."""
    return os.path.join("verified", f"{sequence:03d}.json")


@dataclass(frozen=True, slots=True)
class Place:
    """The folder `state/NAME` of one profile in a workspace."""

    workspace: str
    profile_name: str

    @property
    def folder(self) -> str:
        """Name the folder itself."""
        return os.path.join(self.workspace, "state", self.profile_name)

    @property
    def store(self) -> Store:
        """Return the catalog."""
        return Store(os.path.join(self.folder, "catalog"))

    @property
    def lock(self) -> str:
        """Name the lock file of the profile."""
        return os.path.join(self.folder, "lock")

    @property
    def looked(self) -> str:
        """Name the record of when a run found nothing changed."""
        return os.path.join(self.folder, "looked.json")

    def runs(self) -> list[Run]:
        """Return the runs that have left a folder, oldest first."""
        folder = os.path.join(self.folder, "runs")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        return [Run(self, name) for name in names]

    def unfinished(self) -> Run | None:
        """Return the unfinished run, if there is one."""
        return next((run for run in self.runs() if not run.is_over), None)


@dataclass(frozen=True, slots=True)
class Run:
    """The folder `runs/<snapshot>`: one file per finished stage, each whole or absent."""

    place: Place
    snapshot: str
    # The process that works on the run, as `participants` names it.
    participant: str = "alone"

    @property
    def folder(self) -> str:
        """Name the folder itself."""
        return os.path.join(self.place.folder, "runs", self.snapshot)

    @property
    def errors(self) -> str:
        """Name the folder of the errors that this participant's stages have recorded."""
        return self.path("errors", self.participant)

    @property
    def spool(self) -> str:
        """Name the folder of archives that are packed and not yet on a cartridge."""
        return os.path.join(self.place.folder, "spool", self.snapshot)

    @property
    def store(self) -> Store:
        """Return the catalog of the profile."""
        return self.place.store

    def path(self, *names: str) -> str:
        """Name a file of the run."""
        return os.path.join(self.folder, *names)

    def create(self, request: Request) -> None:
        """Open the run; the request is its first record."""
        for name in ("scan", "packed", "bundles", "written", "verified", "locks", "progress"):
            durable.make_folders(self.path(name))
        durable.make_folders(self.spool)
        self.store.create()
        self.save("request.json", request)

    def save(self, name: str, record: object) -> None:
        """Write a record durably."""
        durable.write_whole(self.path(name), to_json(record))

    def load(self, name: str, kind: type[Record]) -> Record:
        """Read a record."""
        path = self.path(name)
        return from_json(kind, durable.read_whole(path), path)

    def has(self, name: str) -> bool:
        """Whether a record is there."""
        return os.path.exists(self.path(name))

    def troubles(self) -> list[Trouble]:
        """Return what the packers could not read."""
        names = sorted(n for n in os.listdir(self.path("bundles")) if n.endswith(".json"))
        receipts = [self.load(os.path.join("bundles", name), BundleReceipt) for name in names]
        return [trouble for receipt in receipts for trouble in receipt.troubles]

    def has_failed(self) -> bool:
        """Whether some stage that this participant worked on has ended with an error."""
        return os.path.isdir(self.errors) and any(
            name.endswith(".json") for name in os.listdir(self.errors)
        )

    def is_packed(self, bundle: int) -> bool:
        """Whether the packer of a bundle has ended."""
        return self.has(os.path.join("bundles", f"{bundle:04d}.json"))

    @property
    def request(self) -> Request:
        """Read what the run is to do."""
        from tasks.catalog.request import Request  # with all of a profile: lookups need none

        return self.load("request.json", Request)

    def scan_path(self, source: str) -> str:
        """Name the manifest rows of one source."""
        return self.path("scan", f"{source}.parquet")

    def packed(self) -> Iterator[PackedArchive]:
        """Read the records of all archives that are whole, in order."""
        names = sorted(n for n in os.listdir(self.path("packed")) if n.endswith(".json"))
        for name in names:
            yield self.load(os.path.join("packed", name), PackedArchive)

    def placed(self) -> dict[str, int]:
        """Return the archives (by number) that lie on a cartridge, and its serial."""
        lines = [from_json(Placed, line, "placed.jsonl") for line in self._lines("placed.jsonl")]
        return {line.number: line.cartridge for line in lines}

    def note_placed(self, number: str, cartridge: int) -> None:
        """Record that an archive lies on a cartridge, flushed."""
        line = to_json(Placed(number=number, cartridge=cartridge))
        durable.append_line(self.path("placed.jsonl"), line)

    def taken(self) -> dict[str, int]:
        """Return what lies on cartridges, and what a killed writer may have left on one unnoted.

        What a power cut has torn is left out.
        """
        found = {}
        for text in self._lines("taken.jsonl"):
            with contextlib.suppress(FormatDamaged):
                line = from_json(Placed, text, "taken.jsonl")
                found[line.number] = line.cartridge
        return found | self.placed()

    def note_taken(self, number: str, cartridge: int) -> None:
        """Record that an archive is on its way to a cartridge; a kill needs no flush."""
        with open(self.path("taken.jsonl"), "ab") as file:
            file.write(to_json(Placed(number=number, cartridge=cartridge)))

    def begun(self) -> list[int]:
        """Return the serials of cartridges that the run has begun to write, in order."""
        lines = [from_json(Begun, line, "begun.jsonl") for line in self._lines("begun.jsonl")]
        return [line.cartridge for line in lines]

    def note_begun(self, cartridge: int) -> None:
        """Record that a cartridge will be written, and so has to be sealed; flushed."""
        durable.append_line(self.path("begun.jsonl"), to_json(Begun(cartridge=cartridge)))

    def _lines(self, name: str) -> list[bytes]:
        """Read the whole lines of a list that grows, none where there is no list yet."""
        try:
            return durable.read_whole(self.path(name), limit=1 << 30).split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def receipts(self) -> list[WriteReceipt]:
        """Return the receipts of cartridges written, in order."""
        names = sorted(os.listdir(self.path("written")))
        return [
            self.load(os.path.join("written", name), WriteReceipt)
            for name in names
            if name.endswith(".json")
        ]

    def unread(self) -> list[WriteReceipt]:
        """Return the receipts of cartridges that are written and not read back yet."""
        return [r for r in self.receipts() if not self.has(verdict_name(r.sequence))]

    def spooled(self, number: str) -> str:
        """Name an archive in the spool."""
        return os.path.join(self.spool, f"{number}.tar.lz4")

    def end(self) -> None:
        """Record that the run is over; its last participant, or the next run, removes it.

        Two that end together each see the other still at work.
        """
        with contextlib.suppress(FileNotFoundError):  # another host has said so at this moment
            durable.write_whole(self.path(_ENDED), b"{}\n")

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to go on with: it has ended, or never began."""
        return self.has(_ENDED) or not self.has("request.json")

    def discard(self) -> None:
        """Remove the run and what it left in the spool.

        The request goes first: a run without one is no run, whatever else is still there.
        """
        durable.remove(self.path("request.json"))
        durable.sync_folder(self.folder)
        shutil.rmtree(self.spool, ignore_errors=True)
        shutil.rmtree(self.folder)
