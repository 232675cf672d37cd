"""Drill: restore a sample as any restore would, and compare it with what was backed up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tasks.catalog.metadata import facts_of
from tasks.catalog.sample import Limits, draw
from tasks.catalog.selection import Need, Portion, Selected, pick, table_keys, words_of
from tasks.catalog.store import Store
from tasks.catalog.unpacking import is_right
from tasks.media.cartridge import Cartridge
from tasks.media.destination import Destination
from tasks.media.likeness import difference, is_same_file
from tasks.media.scratch import scratch
from tasks.media.untrusted import drop_cached
from tasks.model.errors import DestinationUnusable
from tasks.model.units import format_size
from tasks.restore import restore

_PREFIX = "cartridge-drill-"
_ODD_TIME = 1_234_567_890_123_456_789  # nanoseconds since 1970
_ODD_MODE = 0o705


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One file of the sample, as it came back: what is wrong with it, if anything.

    `given` are the bytes that each cartridge gave, by serial; `guilty` the archives, by serial and
    name, that may have made it wrong.
    """

    path: str
    given: dict[int, int]
    wrong: str | None
    guilty: list[tuple[int, str]]


def drill(
    store: Store, cartridges: Mapping[int, Cartridge], limits: Limits, seed: int, workers: int
) -> list[Trial]:
    """Restore a sample of what lies on some cartridges, by serial, to a passing place; compare it.

    [] where no file can be restored from these alone within the limits. Raises DestinationUnusable
    where there is no room for any.
    """
    try:
        with scratch(_PREFIX) as folder:
            _require_faithful(folder)
            room = shutil.disk_usage(folder).free * 9 // 10
            within = replace(limits, bytes=min(limits.bytes, room))
            sample = draw(store, cartridges.keys(), within, seed)
            if not sample and room < limits.bytes:
                _refuse(folder, f"it has room for {format_size(room)} only, where no file fits")
            return [
                trial
                for snapshot, names in sample.items()
                for trial in _trials(
                    store, pick(store, snapshot, names), cartridges, folder, workers
                )
            ]
    except OSError as error:
        raise DestinationUnusable(
            path=error.filename or "the folder of TMPDIR", reason=error.strerror or error
        ) from error


def _require_faithful(folder: str) -> None:
    """Refuse a place that keeps no modes and times: all would look damaged."""
    probe = os.path.join(folder, "probe")
    os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o600))
    os.chmod(probe, _ODD_MODE)
    os.utime(probe, ns=(_ODD_TIME, _ODD_TIME))
    found = os.stat(probe)
    os.unlink(probe)
    if (found.st_mode & 0o777, found.st_mtime_ns) != (_ODD_MODE, _ODD_TIME):
        _refuse(folder, "its file system does not keep modes, or times to the nanosecond")


def _refuse(folder: str, reason: str) -> None:
    above = os.path.dirname(folder)
    raise DestinationUnusable(path=above, reason=f"{reason} (TMPDIR names another place)")


@dataclass(slots=True)
class _AtHand:
    """The cartridges that are present, as a restore asks for them; no other will come."""

    cartridges: Mapping[int, Cartridge]
    lacking: set[int] = field(default_factory=set)
    asks: bool = False

    def present(self) -> set[int]:
        return set(self.cartridges)

    def load(
        self, wanted: Sequence[int], portion: Callable[[int], Portion]
    ) -> tuple[int, Cartridge] | None:
        found = next((serial for serial in wanted if serial in self.cartridges), None)
        if found is None:
            self.lacking.update(wanted)
            return None
        return found, self.cartridges[found]

    def giver(self, selected: Selected, archive: int) -> int:
        """Return the serial of the cartridge that gives an archive, which has to be there."""
        return next(serial for serial in selected.holders[archive] if serial in self.cartridges)

    def given(self, selected: Selected, needs: list[Need]) -> dict[int, int]:
        """Add up the bytes that come from each cartridge."""
        found: dict[int, int] = {}
        for need in needs:
            serial = self.giver(selected, need.archive)
            found[serial] = found.get(serial, 0) + need.length
        return found

    def guilty(self, selected: Selected, needs: list[Need]) -> list[tuple[int, str]]:
        """Return the archives with a stretch that is not as it was written, or else all."""
        suspects = [
            (self.giver(selected, need.archive), selected.archives[need.archive]) for need in needs
        ]
        bad = {
            (serial, archive)
            for need, (serial, archive) in zip(needs, suspects, strict=True)
            if not is_right(self.cartridges[serial].file(archive), need)
        }
        return sorted(bad or set(suspects))


def _trials(
    store: Store,
    selected: Selected,
    cartridges: Mapping[int, Cartridge],
    folder: str,
    workers: int,
) -> Iterator[Trial]:
    """Restore the files chosen of one snapshot, from the medium, and compare each."""
    at_hand = _AtHand(cartridges)
    for number, archive in enumerate(selected.archives):
        drop_cached(cartridges[at_hand.giver(selected, number)].file(archive))
    place = Destination(os.fsencode(os.path.join(folder, selected.snapshot)))
    roots = store.info(selected.snapshot).roots
    result = restore(selected, roots, os.fsdecode(place.root), at_hand, workers)
    poor = set(result.not_kept.get("attributes", ()))  # what this place cannot keep is no damage
    names = table_keys(selected.rows)
    by_row = selected.needs[np.argsort(selected.needs["row"], kind="stable")]
    for row, found in _compare(selected, place, names).items():
        path = names[row].decode("utf-8", "replace")
        wrong = None if found == "attributes" and path in poor else found
        low, high = np.searchsorted(by_row["row"], [row, row + 1])
        needs = list(Need.each(by_row[low:high]))
        yield Trial(
            path=path,
            given=at_hand.given(selected, needs),
            wrong=wrong,
            guilty=at_hand.guilty(selected, needs) if wrong else [],
        )


def _compare(selected: Selected, place: Destination, names: list[bytes]) -> dict[int, str | None]:
    """Tell of each file what is wrong with it; folders are opened on the way to what they hold."""
    rows = selected.rows
    kinds, sources = words_of(rows, "type"), words_of(rows, "source")
    for source in set(sources):
        place.make_folder(source.encode())
    sizes, digests, targets = (
        rows.column(name).to_pylist() for name in ("size", "sha256", "link_target")
    )
    found: dict[int, str | None] = {}
    for row, facts in enumerate(facts_of(rows)):
        if kinds[row] == "dir":
            place.make_folder(names[row])
        elif kinds[row] == "hardlink":
            first = sources[row].encode() + b"/" + targets[row]
            found[row] = None if is_same_file(place, names[row], first) else "link"
        else:
            found[row] = difference(place, names[row], facts, sizes[row], digests[row])
    place.forget_parent()
    return found
