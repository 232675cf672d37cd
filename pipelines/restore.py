"""`cartridge restore`: bring a snapshot back, whole or in part."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.recover import conclude, facts_of, passing_place, told
from pipelines.report import Voice, complain, is_terminal, say, table
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.members import label_of
from tasks.catalog.runs import Place
from tasks.catalog.selection import Selected, select, table_keys
from tasks.catalog.store import Store
from tasks.media.cartridge import Cartridge
from tasks.media.destination import Destination
from tasks.media.patterns import Selection
from tasks.media.shelf import belongs, look
from tasks.model.errors import (
    CartridgeWanted,
    DamageFound,
    DestinationUnusable,
    SnapshotMissing,
    UsageError,
)
from tasks.model.profile import Profile
from tasks.model.units import format_size, parse_moment, snapshot_time
from tasks.model.words import CartridgeRow
from tasks.restore import Restored


@app.command(epilog="Example: cartridge restore home /tmp/back 'docs/2026/' '*.jpg'")
def restore(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME] DEST [PATTERN]...",
            help="The profile (not with --from), the folder to restore to, what to restore.",
        ),
    ],
    volumes: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="DIR", help="A cartridge; no workspace is needed."),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="Not the newest one.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The newest one not later.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what the snapshot does not have.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before that.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say which cartridges are needed.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Archives at once.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore a snapshot and verify every byte of it."""
    voice = Voice(json)
    began = time.monotonic()
    facts: dict[str, Any] = {}

    def action() -> None:
        name, dest, patterns = _meant(words, volumes)
        with _catalog(name, volumes, workspace, facts) as (place, profile):
            store = place.store
            chosen = choose_snapshot(store, place.profile_name, snapshot, at)
            selected = select(store, chosen, patterns)
            hands = Hands(profile, place, ask=is_terminal() and not json)
            if plan:
                _say_plan(voice, selected, hands)
                return
            if delete:
                facts["removed"] = _delete_foreign(selected, dest, patterns, voice, hands, yes)
            result = _restore(selected, store, dest, hands, workers or os.cpu_count() or 1)
            facts.update(_facts(selected.snapshot, result, time.monotonic() - began))
            _complain(result, hands)
            lines = _lines(selected.snapshot, dest, result, facts["seconds"])
            conclude(voice, facts, lines, facts.get("recovered", {}).get("damaged", []))

    finish(voice, action, lambda error: facts)


@contextlib.contextmanager
def _catalog(
    name: str, volumes: list[str] | None, workspace: str | None, facts: dict[str, Any]
) -> Iterator[tuple[Place, Profile]]:
    """Give the state of a profile: one that is there, or one made of cartridges."""
    if not volumes:
        folder = find_workspace(workspace)
        yield Place(folder, name), load_profile(folder, name)
        return
    with passing_place(volumes) as (place, profile, recovered):
        facts["recovered"] = facts_of(recovered)
        for line in told(recovered):
            complain(line)
        yield place, profile


def _meant(words: list[str], volumes: list[str] | None) -> tuple[str, str, list[str]]:
    """Tell profile, destination and patterns apart: with --from there is no profile to name."""
    name, rest = ("", words) if volumes else (words[0], words[1:])
    if not rest:
        raise UsageError(reason="Missing argument 'DEST'.")
    return name, rest[0], rest[1:]


def choose_snapshot(store: Store, profile: str, snapshot: str | None, at: str | None) -> str:
    """Return the snapshot that is meant: an id, a time, or the newest; else SnapshotMissing."""
    if at is None:
        return store.require(profile, snapshot)
    if snapshot is not None:
        raise UsageError(reason="--snapshot and --at exclude each other.")
    try:
        moment = parse_moment(at)
    except ValueError as error:
        raise UsageError(reason=f"--at: '{at}' is not a time like '2026-11-01 12:00'.") from error
    earlier = [s for s in store.snapshots() if snapshot_time(s) <= moment]
    if not earlier:
        raise SnapshotMissing(profile=profile, wanted=f"from {at} or earlier")
    return earlier[-1]


class Hands:
    """Getting cartridges: from the shelf, or by asking for them where somebody is there."""

    def __init__(self, profile: Profile, place: Place, *, ask: bool) -> None:
        self._profile, self._name, self._workspace = profile, place.profile_name, place.workspace
        self._rows = {row.serial: row for row in place.store.cartridges()}
        self.ask = ask
        self.wanted: list[str] = []

    def label(self, serial: int) -> str:
        """Return the name on the sticker."""
        row = self._rows.get(serial)
        return row.label if row else f"{self._profile.cartridges.set} {serial or '?'}"

    def present(self, serial: int) -> Cartridge | None:
        """Return a cartridge if it is there."""
        row = self._rows.get(serial)
        if row is None:
            return None
        places = [r.location for r in self._rows.values()]
        shelf = look(self._profile.cartridges.search, places, self._workspace)
        for cartridge in shelf.cartridges:
            if self._is(cartridge, row):
                return cartridge
        # Where its label is damaged its place tells; every byte is checked in any case.
        place = os.path.realpath(row.location)
        if place in shelf.unreadable:
            return Cartridge(place, label_of(row, self._name))
        return None

    def _is(self, cartridge: Cartridge, row: CartridgeRow) -> bool:
        ours = belongs(cartridge.label, self._profile.cartridges.set, self._name)
        return ours and cartridge.label.uuid == row.uuid

    def fetch(self, serial: int) -> Cartridge | None:
        """Return a cartridge, asking for it as long as somebody answers."""
        cartridge = self.present(serial)
        while cartridge is None and self.ask:
            say(f"Needed: cartridge {self.label(serial)}.")
            try:
                answer = input("Insert it and press Enter, or type s to go on without it: ")
            except EOFError:
                break
            if answer.strip().lower() in ("s", "skip", "q"):
                break
            cartridge = self.present(serial)
        if cartridge is None:
            self.wanted.append(self.label(serial))
        return cartridge


def _restore(selected: Selected, store: Store, dest: str, hands: Hands, workers: int) -> Restored:
    from tasks.restore import restore as restore_rows

    roots = store.info(selected.snapshot).roots
    return restore_rows(selected, roots, dest, hands.fetch, workers)


def _facts(snapshot: str, result: Restored, seconds: float) -> dict[str, Any]:
    return {
        "snapshot": snapshot,
        "files": result.files,
        "bytes": result.bytes,
        "cartridges": result.cartridges,
        "damaged": result.damaged,
        "missing": result.missing,
        "not_kept": dict(result.not_kept),
        "seconds": round(seconds, 3),
    }


def _complain(result: Restored, hands: Hands) -> None:
    """Raise what went wrong; all that could be restored is there."""
    if result.damaged:
        shown = ", ".join(result.damaged[:10])
        more = len(result.damaged) - 10
        rest = f" and {more} more" if more > 0 else ""
        raise DamageFound(damage=f"{len(result.damaged)} not restored: {shown}{rest}")
    if result.missing:
        raise CartridgeWanted(
            label=", ".join(hands.wanted),
            reason=f"{len(result.missing)} entries lie there, all others were restored",
        )


def _lines(snapshot: str, dest: str, result: Restored, seconds: float) -> list[str]:
    told = [
        f"Restored {result.files} files, {format_size(result.bytes)}, of snapshot {snapshot} to "
        f"{dest} in {seconds:.1f} s; every checksum is right."
    ]
    for what, count in sorted(result.not_kept.items()):
        told.append(f"This place could not keep {what} ({count} times).")
    return told


def _say_plan(voice: Voice, selected: Selected, hands: Hands) -> None:
    needs = selected.needs
    found = []
    for serial, archives in sorted(selected.by_cartridge().items()):
        mine = needs[np.isin(needs["archive"], archives)]
        found.append(
            {
                "serial": serial,
                "bytes": int(mine["length"].sum()),
                "files": len(set(mine["row"].tolist())),
                "present": hands.present(serial) is not None,
            }
        )
    rows = [
        (
            hands.label(f["serial"]),
            f["files"],
            format_size(f["bytes"]),
            "present" if f["present"] else "not here",
        )
        for f in found
    ]
    voice.result(
        {"snapshot": selected.snapshot, "cartridges": found},
        table(("cartridge", "files", "size", ""), rows) or ["No cartridge is needed."],
    )


def _delete_foreign(
    selected: Selected, dest: str, patterns: list[str], voice: Voice, hands: Hands, yes: bool
) -> list[str]:
    """Remove what lies in DEST and not in the snapshot, after a look at the list; return it."""
    root = os.path.realpath(dest)
    if root in ("/", os.path.realpath(os.path.expanduser("~"))):
        raise DestinationUnusable(path=dest, reason="--delete would remove far more than a backup")
    if not os.path.isdir(root):
        return []
    place = Destination(os.fsencode(root))
    known = set(table_keys(selected.rows))
    known |= {key[: key.index(b"/")] for key in known}
    wanted = _chosen(patterns)
    foreign: list[bytes] = []
    for path, is_folder in place.entries():
        inside = any(path.startswith(f + b"/") for f in foreign[-1:])
        if path not in known and not inside and wanted(path, is_folder):
            foreign.append(path)
    listed = [path.decode("utf-8", "replace") for path in foreign]
    for name in listed if not voice.json else ():
        say(f"not in the snapshot: {name}")
    if foreign and not yes:
        question = f"Remove these {len(foreign)} from {dest}? Type yes: "
        if not hands.ask or input(question).strip().lower() != "yes":
            raise UsageError(reason="Nothing was removed or restored; add --yes to --delete.")
    for path in foreign:
        place.remove(path)
    place.forget_parent()
    return listed


def _chosen(patterns: list[str]) -> Callable[[bytes, bool], bool]:
    if not patterns:
        return lambda path, is_folder: True
    selection = Selection(patterns)

    def is_chosen(path: bytes, is_folder: bool) -> bool:
        source, _, below = path.partition(b"/")
        return selection.selects(os.fsdecode(source), below, is_folder)

    return is_chosen
