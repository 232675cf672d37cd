"""The tables of archives and cartridges, from older tables and what really lies on those here."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from tasks.catalog.given import Given
from tasks.catalog.members import capacity_of, row_of
from tasks.catalog.placement import BLANK, OPEN
from tasks.catalog.relisted import Held
from tasks.catalog.store import DEAD, LOST, STORED
from tasks.media.layout import JOURNAL
from tasks.model.units import iso, snapshot_time
from tasks.model.words import SNAPSHOT, ArchiveRow, CartridgeRow, JournalLine


def cartridge_rows(
    tables: Iterable[list[CartridgeRow]], given: Iterable[Given], cap: int | None
) -> list[CartridgeRow]:
    """Return what is known of every cartridge; the newest table wins, those given are as found.

    `cap` is the profile's limit of what a cartridge may hold, in bytes.
    """
    known: dict[int, CartridgeRow] = {}
    for table in tables:
        for row in table:
            known.setdefault(row.serial, row)
    for one in given:
        known[one.serial] = _as_found(one, known.get(one.serial), cap)
    return [known[serial] for serial in sorted(known)]


def _as_found(one: Given, row: CartridgeRow | None, cap: int | None) -> CartridgeRow:
    cartridge = one.cartridge
    if row is None or row.uuid != cartridge.label.uuid:
        row = row_of(cartridge.label, cartridge.path, capacity_of(cartridge, cap))
    row = replace(row, location=cartridge.path, used=cartridge.used())
    written = max((line.snapshot for line in one.journal if _is_snapshot(line)), default=None)
    if written is None:
        return row
    state = OPEN if row.state == BLANK else row.state
    return replace(row, state=state, written=max(row.written or "", iso(snapshot_time(written))))


def _is_snapshot(line: JournalLine) -> bool:
    return bool(SNAPSHOT.fullmatch(line.snapshot))


def archive_rows(
    tables: Iterable[list[ArchiveRow]],
    given: Collection[Given],
    held: Mapping[str, Held],
    needed: Collection[str],
    newest_needs: Collection[str],
) -> list[ArchiveRow]:
    """Return what is known of every archive.

    The newest table tells of cartridges that are not here, the journals of those that are. `needed`
    are the archives that a snapshot refers to, `newest_needs` those that the next run will carry
    over, `held` what the manifests say of their contents.
    """
    newest, *older = [{row.archive: row for row in table} for table in tables] or [{}]
    serials = {one.serial for one in given}
    rows = {name: row for name, row in newest.items() if row.cartridge not in serials}
    for one in given:
        for line in one.journal:
            row = next((t[line.archive] for t in (newest, *older) if line.archive in t), None)
            row = row or _row_of(line, held.get(line.archive, Held()))
            rows[line.archive] = replace(row, cartridge=one.serial)
        mine = [row for row in newest.values() if row.cartridge == one.serial]
        for row in _unlisted(one, [row for row in mine if row.archive not in rows], needed):
            rows[row.archive] = row
    for one in given:
        rows |= {row.archive: row for row in _left_behind(one) if row.archive not in rows}
    unknown = {name: _nowhere(name) for name in newest_needs if name not in rows}
    return sorted([*rows.values(), *unknown.values()], key=lambda row: row.archive)


def _unlisted(
    one: Given, rows: Iterable[ArchiveRow], needed: Collection[str]
) -> Iterator[ArchiveRow]:
    """Judge archives that should be on a cartridge and that its journal does not name."""
    for row in rows:
        if os.path.exists(one.cartridge.file(row.archive)):
            one.damaged.add(JOURNAL)
            yield row
        elif row.archive in needed:
            yield replace(row, state=LOST)


def _left_behind(one: Given) -> Iterator[ArchiveRow]:
    """Describe what a killed writer left, so that the next prune removes it."""
    if JOURNAL in one.damaged:
        return  # an archive may be whole though nothing names it
    for name, size in one.cartridge.files():
        if name.startswith("archives/") and name.endswith(".lz4") and name.count("/") == 2:
            line = JournalLine(archive=name, bytes=size, sha256="", snapshot=name.split("/")[1])
            yield replace(_row_of(line, Held()), cartridge=one.serial, state=DEAD)


def _nowhere(name: str) -> ArchiveRow:
    """Describe an archive that no journal and no table knows: it is to be stored again."""
    line = JournalLine(archive=name, bytes=0, sha256="", snapshot=name.split("/")[1])
    return replace(_row_of(line, Held(contents=1)), state=LOST)


def _row_of(line: JournalLine, held: Held) -> ArchiveRow:
    return ArchiveRow(
        archive=line.archive,
        snapshot=line.snapshot,
        bytes=line.bytes,
        sha256=line.sha256,
        content_bytes=held.bytes,
        members=held.contents,
        contents=held.contents,
        cartridge=0,
        state=STORED,
    )
