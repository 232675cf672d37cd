"""Restore: bring entries of a snapshot back, checking every byte on the way."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks.catalog.cover import cover
from tasks.catalog.groundwork import Groundwork
from tasks.catalog.metadata import facts_of, root_facts
from tasks.catalog.present import find_present
from tasks.catalog.selection import Portion, Selected, table_keys, words_of
from tasks.catalog.takingup import take_up
from tasks.catalog.unpacking import Unpacker, reason_for_one, shares
from tasks.media.cartridge import Cartridge
from tasks.media.destination import Destination
from tasks.media.memory import keep_memory
from tasks.media.metadata import Facts
from tasks.media.processes import in_processes
from tasks.media.safepaths import UnsafePathError
from tasks.model.errors import DestinationUnusable
from tasks.model.words import SourceRoot


@dataclass(slots=True)
class Restored:
    """What a restore did: counts, bytes, and what could not be brought back.

    `present` counts the files that were there already, byte for byte. `failed` has reasons;
    `not_kept` has paths by what the place could not keep; `renamed` has the names that it made
    necessary.
    """

    files: int = 0
    bytes: int = 0
    present: int = 0
    present_bytes: int = 0
    cartridges: list[int] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_kept: dict[str, list[str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


class Loader(Protocol):
    """Gives cartridges, by serial; `lacking` are those that are not to be had.

    `asks` says that somebody was asked for them: they will not come soon.
    """

    lacking: set[int]
    asks: bool

    def present(self) -> set[int]:
        """Return the serials of all cartridges that are there."""

    def load(
        self, wanted: Sequence[int], portion: Callable[[int], Portion]
    ) -> tuple[int, Cartridge] | None:
        """Return one of those wanted; None where some of them were added to `lacking`."""


def restore(
    selected: Selected, roots: list[SourceRoot], folder: str, loader: Loader, workers: int
) -> Restored:
    """Restore the selected rows below `folder`, cartridge by cartridge.

    Files that are there already, byte for byte, are left as they are. Files that lie on a cartridge
    which `loader` does not give are listed as missing, files whose bytes are not what was stored as
    damaged; neither appears. Raises DestinationUnusable, where there is no room before anything is
    written.
    """
    keep_memory()
    try:
        os.makedirs(folder, exist_ok=True)
        place = Destination(os.fsencode(os.path.abspath(folder)))
        with place.alone():
            return _Restoring(selected, roots, place, workers).run(loader, folder)
    except BlockingIOError as error:
        raise DestinationUnusable(path=folder, reason="another restore writes there") from error
    except UnsafePathError as error:
        name = f"the catalog has the unsafe name {error}"
        raise DestinationUnusable(path=folder, reason=name) from error
    except OSError as error:
        raise DestinationUnusable(path=folder, reason=error.strerror or error) from error


class _Restoring:
    """One restore: folders, then contents, then what refers to them, then the folders' times."""

    def __init__(
        self, selected: Selected, roots: list[SourceRoot], place: Destination, workers: int
    ) -> None:
        self._selected = selected
        self._roots = {root.source: root for root in roots}
        self._place = place
        self._workers = workers
        self._rows = selected.rows
        self._keys = table_keys(selected.rows)
        self._kinds = np.array(words_of(selected.rows, "type"), dtype=object)
        self._sources = sorted(set(words_of(selected.rows, "source")) or self._roots)
        self._ground = Groundwork(place, self._keys, self._kinds, self._sources)
        self._result = Restored()
        self._bad = set(selected.torn)
        self._absent: set[int] = set()
        self._failed: dict[int, str] = {}
        self._unmade: set[int] = set()
        self._present: set[int] = set()
        self._spoiled: dict[int, set[int]] = {}
        self._again: dict[int, set[int]] = {}
        self._sizes = selected.rows.column("size").to_numpy()

    def run(self, loader: Loader, folder: str) -> Restored:
        try:
            return self._run(loader, folder)
        except BaseException:
            self._ground.sweep()
            raise

    def _run(self, loader: Loader, folder: str) -> Restored:
        ground = self._ground
        ground.make()
        self._paths = ground.paths
        self._find_present()
        taken_up = take_up(self._place, self._selected, self._paths, ground.there)
        self._selected = taken_up.selected
        lack = ground.lack_of_room(self._selected, self._present, self._freed, taken_up.taken)
        if lack is not None:
            ground.undo()
            raise DestinationUnusable(path=folder, reason=lack)
        self._place.forget_parent()
        self._read_all(loader)
        self._is_given_up = loader.asks
        self._finish_files()
        self._make_others()
        self._settle_folders()
        os.sync()
        return self._told()

    def _told(self) -> Restored:
        result = self._result
        failed = self._failed.keys()
        result.damaged = self._shown(self._bad - failed)
        result.missing = self._shown(self._absent - self._bad - failed)
        result.failed = dict(zip(self._shown(failed), _by_row(self._failed), strict=True))
        result.renamed = self._ground.renamed()
        return result

    def _shown(self, rows: Iterable[int]) -> list[str]:
        return [self._keys[row].decode("utf-8", "replace") for row in sorted(rows)]

    def _note(self, row: int) -> None:
        """Remember what the place could not keep of an entry."""
        if self._place.not_kept:
            self._note_all({kind: [row] for kind in self._place.take_not_kept()})

    def _note_all(self, not_kept: Mapping[str, list[int]]) -> None:
        for kind, rows in not_kept.items():
            self._result.not_kept.setdefault(kind, []).extend(self._shown(rows))

    def _find_present(self) -> None:
        """Leave alone what is there already."""
        found = find_present(
            self._place, self._rows, self._paths, self._ground.there, self._workers
        )
        self._present, self._freed = found.rows, found.freed
        self._note_all(found.not_kept)
        self._result.present = len(found.rows)
        self._result.present_bytes = int(self._sizes[sorted(found.rows)].sum())
        if found.rows:
            self._selected = self._selected.without(found.rows)

    def _read_all(self, loader: Loader) -> None:
        """Restore contents, from as few cartridges as possible, in whatever order they come."""
        needs = self._selected.needs
        left = set(np.unique(needs["archive"]).tolist())
        while left:
            holders = {n: self._holders(n, loader.lacking) for n in sorted(left)}
            chosen = cover(holders.values(), loader.present())
            if not chosen:
                break

            def portion(serial: int, holders: Mapping[int, set[int]] = holders) -> Portion:
                return self._selected.portion([n for n in holders if serial in holders[n]])

            loaded = loader.load(chosen, portion)
            if loaded is not None:
                serial, cartridge = loaded
                mine = [n for n in holders if serial in holders[n]]
                left = left.difference(mine) | self._read(serial, cartridge, mine, loader)
        for number in left:
            rows = needs["row"][slice(*np.searchsorted(needs["archive"], [number, number + 1]))]
            self._absent |= self._again.get(number) or set(rows.tolist())

    def _holders(self, archive: int, lacking: set[int]) -> set[int]:
        spoiled = self._spoiled.get(archive, set())
        return set(self._selected.holders[archive]) - lacking - spoiled

    def _read(
        self, serial: int, cartridge: Cartridge, archives: list[int], loader: Loader
    ) -> set[int]:
        """Restore what one cartridge has; return the archives that are to be read again.

        That is where the cartridge was taken away, or where another one has a copy.
        """
        if serial not in self._result.cartridges:
            self._result.cartridges.append(serial)
        unpacker = Unpacker(self._place, self._selected, self._paths)
        mine = shares(self._needs_of(archives), self._workers)
        jobs = [functools.partial(unpacker.unpack, cartridge.path, share) for share in mine]
        spoiled: dict[int, set[int]] = {}
        for share, done in zip(mine, in_processes(jobs, self._workers), strict=True):
            self._result.files += done.files
            self._result.bytes += done.bytes
            self._note_all(done.not_kept)
            self._failed |= done.failed
            if done.damaged:
                spoiled.setdefault(int(share["archive"][0]), set()).update(done.damaged)
        is_gone = bool(spoiled) and serial not in loader.present()
        again = set()
        for number, rows in spoiled.items():
            if not is_gone:
                self._spoiled.setdefault(number, set()).add(serial)
            if self._holders(number, loader.lacking):
                self._again[number] = rows
                again.add(number)
            else:
                self._bad |= rows
        return again

    def _needs_of(self, archives: list[int]) -> Any:
        """Return what is still to be read of some archives."""
        needs = self._selected.needs
        wanted = np.isin(needs["archive"], archives)
        for number, rows in self._again.items():
            wanted &= (needs["archive"] != number) | np.isin(needs["row"], list(rows))
        return needs[wanted]

    def _finish_files(self) -> None:
        """Publish the files that were put together, and make the empty ones."""
        needs = self._selected.needs
        whole = needs["row"][needs["length"] == self._sizes[needs["row"]]]
        left = np.setdiff1d(np.flatnonzero(self._kinds == "file"), whole)
        left = np.setdiff1d(left, list(self._present))
        facts = facts_of(self._rows.take(pa.array(left)))
        for row, entry in zip(left.tolist(), facts, strict=True):
            with self._noting_failure(row):
                self._finish_file(row, entry)

    def _finish_file(self, row: int, entry: Facts) -> None:
        path, size = self._paths[row], int(self._sizes[row])
        digest = self._rows.column("sha256")[row].as_py()
        if row in self._absent and row not in self._bad and not self._is_given_up:
            return  # its parts are there when the cartridge is
        if row in self._bad or row in self._absent or row in self._failed:
            self._place.drop_shared(path, digest)
            return
        draft = self._place.shared_draft(path, digest)
        try:
            os.ftruncate(draft.fd, size)
        except OSError:
            draft.discard()
            raise
        draft.publish(entry)
        self._note(row)
        self._result.files += 1
        self._result.bytes += size

    @contextlib.contextmanager
    def _noting_failure(self, row: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed[row] = reason_for_one(error)

    def _make_others(self) -> None:
        """Make links, fifos and devices; hard links last, when what they name is there."""
        others = np.flatnonzero(np.isin(self._kinds, ["symlink", "fifo", "char", "block"]))
        rows = self._rows.take(pa.array(others))
        targets, devices = (rows.column(n).to_pylist() for n in ("link_target", "rdev"))
        for i, (row, entry) in enumerate(zip(others.tolist(), facts_of(rows), strict=True)):
            path, kind = self._paths[row], self._kinds[row]
            with self._noting_failure(row):
                if kind == "symlink":
                    is_made = self._place.make_symlink(path, targets[i], entry)
                else:
                    is_made = self._place.make_special(path, kind, devices[i] or 0, entry)
                self._note(row)
                if not is_made:
                    self._unmade.add(row)
        self._make_hardlinks()

    def _make_hardlinks(self) -> None:
        links = np.flatnonzero(self._kinds == "hardlink")
        rows = self._rows.take(pa.array(links))
        fates = [self._bad, self._absent, self._unmade]
        lost = {self._keys[row]: fate for fate in fates for row in fate}
        failed = {self._keys[row]: reason for row, reason in self._failed.items()}
        sources, targets = words_of(rows, "source"), rows.column("link_target").to_pylist()
        for i, (row, entry) in enumerate(zip(links.tolist(), facts_of(rows), strict=True)):
            first = sources[i].encode() + b"/" + targets[i]
            if first in failed:
                self._failed[row] = failed[first]
            elif first in lost:
                lost[first].add(row)
            else:
                with self._noting_failure(row):
                    path = self._ground.path(first)
                    if not self._place.make_hardlink(self._paths[row], path, entry):
                        self._bad.add(row)
                    self._note(row)
        unmade = [row for row in links.tolist() if row in self._unmade]
        self._note_all({"links": unmade} if unmade else {})

    def _settle_folders(self) -> None:
        """Give folders their metadata from the innermost out: writing into them is over."""
        folders = np.flatnonzero(self._kinds == "dir")
        facts = list(facts_of(self._rows.take(pa.array(folders))))
        for row, entry in zip(folders[::-1].tolist(), facts[::-1], strict=True):
            self._place.settle_folder(self._paths[row], entry)
            self._note(row)
        for source in self._sources:
            root = self._roots.get(source)
            if root is not None:
                self._place.settle_folder(self._ground.path(source.encode()), root_facts(root))
                for kind in self._place.take_not_kept():
                    self._result.not_kept.setdefault(kind, []).append(source)


def _by_row(found: Mapping[int, str]) -> list[str]:
    return [found[row] for row in sorted(found)]
