"""What a run has to do again when a cartridge fails: the archives that it was to hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa

from tasks.catalog import placement
from tasks.catalog.packing import ROWS
from tasks.catalog.runs import Run, receipt_name, verdict_name
from tasks.formats.manifest import TableWriter, read_table
from tasks.formats.records import to_json
from tasks.media import durable, locks
from tasks.model.words import BundleReceipt, Placed

# Marks a number that was used by an archive which is to be packed again.
TAKEN_BACK = ".gone"
_NEEDED = ["content", "recipe", "sha256"]


def settle(run: Run) -> list[str]:
    """Take back what a run has put on cartridges that are not trusted any more; return numbers.

    It may be done again at any time: what a killed one has left, the next finishes.
    """
    distrusted = {row.serial for row in run.store.cartridges() if row.state in placement.GIVEN_UP}
    with locks.exclusive(run.path("locks", "settle")):
        placed = run.placed()
        gone = {*taken_back(run)}  # of which a killed one has not forgotten where they lie
        numbers = sorted(n for n, serial in placed.items() if serial in distrusted or n in gone)
        for receipt in run.receipts():
            # The last has a list of everything, which names what is gone now: it is sealed again.
            if receipt.serial in distrusted or (numbers and receipt.last):
                durable.remove(run.path(verdict_name(receipt.sequence)))
                durable.remove(run.path(receipt_name(receipt.sequence)))
        take_back(run, numbers)
        _forget_dependents(run)
        _forget_receipts(run)
    return numbers


def _forget_dependents(run: Run) -> None:
    """Have files packed again whose content other archives leave to one that was taken back.

    These are duplicates, and large files of which a chunk lay there.
    """
    gone = [run.path("packed", f"{number}.contents.parquet") for number in taken_back(run)]
    kept = {p.number: run.path("packed", f"{p.number}.contents.parquet") for p in run.packed()}
    lost = _digests(gone) - _digests(kept.values())
    for number in sorted(kept) if lost else ():
        path = run.path("packed", f"{number}.rows.parquet")
        rows = read_table(path)
        stays = [not lost & needed for needed in map(_needed, rows.select(_NEEDED).to_pylist())]
        if not all(stays):
            durable.remove(run.path("bundles", f"{number[:4]}.json"))
            with durable.replacing(path) as draft, TableWriter(draft, ROWS) as writer:
                for batch in rows.filter(pa.array(stays)).to_batches():
                    writer.write(batch)
                writer.close()


def _forget_receipts(run: Run) -> None:
    """Remove receipts of bundles that lost an archive while their packer was still at work."""
    packed = {archive.number for archive in run.packed()}
    for name in sorted(os.listdir(run.path("bundles"))):
        path = os.path.join("bundles", name)
        if name.endswith(".json") and {*run.load(path, BundleReceipt).archives} - packed:
            durable.remove(run.path(path))


def _digests(paths: Iterable[str]) -> set[bytes]:
    found: set[bytes] = set()
    for path in paths:
        if os.path.exists(path):
            found.update(read_table(path, ["sha256"]).column("sha256").to_pylist())
    return found


def _needed(row: dict[str, Any]) -> set[bytes]:
    """Return the contents that a row leaves to be found elsewhere."""
    if row["content"] is not None:
        return set()
    if row["recipe"] is None:
        return {row["sha256"]}
    return {piece["sha256"] for piece in row["recipe"] if piece["sha256"]}


def taken_back(run: Run) -> list[str]:
    """Return the numbers of all archives of a run that were to be packed again."""
    names = os.listdir(run.path("packed"))
    return sorted(n.removesuffix(TAKEN_BACK) for n in names if n.endswith(TAKEN_BACK))


def take_back(run: Run, numbers: Collection[str]) -> None:
    """Have archives packed again, under other numbers: they lie nowhere.

    The receipt of the bundle goes first, so that its packer is wanted; that an archive was placed
    is forgotten last, so that what was cut short is found and finished.
    """
    for bundle in sorted({number[:4] for number in numbers}):
        durable.remove(run.path("bundles", f"{bundle}.json"))
    for number in numbers:
        durable.write_whole(run.path("packed", f"{number}{TAKEN_BACK}"), b"")
        durable.remove(run.path("packed", f"{number}.json"))
        durable.remove(run.path("packed", f"{number}.rows.parquet"))
        durable.remove(run.spooled(number))
    for name in ("bundles", "packed"):
        durable.sync_folder(run.path(name))
    if numbers:
        left = {n: serial for n, serial in run.placed().items() if n not in numbers}
        lines = (to_json(Placed(number=n, cartridge=serial)) for n, serial in left.items())
        durable.write_whole(run.path("placed.jsonl"), b"".join(lines))
        for name in ("spanned.json", "manifest.parquet", "partial.parquet"):
            durable.remove(run.path(name))


def first_free(run: Run, bundle: str) -> int:
    """Return the index of the next archive of a bundle; the number of one taken back is not free.

    It may still lie on the cartridge that failed.
    """
    names = [n for n in os.listdir(run.path("packed")) if n.endswith((".json", TAKEN_BACK))]
    return max((int(n[4:10]) + 1 for n in names if n.startswith(bundle)), default=0)
