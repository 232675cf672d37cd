"""`cartridge verify`: read every byte of the cartridges that are present against their sums."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile, profile_path
from tasks.catalog.members import label_of
from tasks.catalog.placement import BLANK, LOST
from tasks.catalog.progress import ignore
from tasks.catalog.runs import Place
from tasks.catalog.store import DEAD, Store
from tasks.media.cartridge import Cartridge
from tasks.media.layout import SUMS
from tasks.media.readback import Verdict, examine
from tasks.media.shelf import look
from tasks.model.errors import (
    CartridgeWanted,
    DamageFound,
    FormatDamaged,
    NoCartridge,
)
from tasks.model.units import format_size, iso


@app.command(epilog="Example: cartridge verify home")
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A profile or a cartridge.")],
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify the cartridges of a profile that are present, or the one in a folder."""
    voice = Voice(json)
    facts: dict[str, Any] = {"cartridges": [], "absent": []}

    def action() -> None:
        folder = find_workspace(workspace)
        store, found = _chosen(folder, name)
        facts["absent"] = absent = _absent(store, found)
        damaged, told = [], []
        for cartridge in found:
            verdict = check(cartridge, store)
            facts["cartridges"].append(_facts(cartridge, verdict))
            damaged += [f"{cartridge.label.title}: {file}" for file in verdict.damaged]
            told.append(
                f"Cartridge {cartridge.label.title}: {verdict.archives} archives, "
                f"{format_size(verdict.bytes)} read, {len(verdict.damaged)} files damaged."
            )
            if store is not None:
                time = None if verdict.damaged else iso(datetime.now(UTC))
                store.alter_cartridge(cartridge.label.uuid, verified=time)
        if damaged:
            raise DamageFound(damage=", ".join(damaged))
        told += [f"Cartridge {away} is not here: nothing of it was read." for away in absent]
        voice.result(facts, told)

    finish(voice, action, lambda error: facts)


def check(cartridge: Cartridge, store: Store | None) -> Verdict:
    """Read a cartridge back; what the catalog knows of it has to be there too."""

    def known() -> dict[str, str]:
        rows = store.archives() if store is not None else []
        mine = [r for r in rows if r.cartridge == cartridge.label.serial and r.state != DEAD]
        return {row.archive: row.sha256 for row in mine}

    return examine(cartridge, known, ignore)


def _chosen(folder: str, name: str) -> tuple[Store | None, list[Cartridge]]:
    """Return the cartridges that are meant, with the catalog where there is one."""
    if not os.path.exists(profile_path(folder, name)) and os.path.isdir(name):
        return None, [_in_folder(name)]
    profile = load_profile(folder, name)
    store = Place(folder, name).store
    rows = store.cartridges()
    shelf = look(profile.cartridges.search, [row.location for row in rows], folder)
    known = {row.uuid for row in rows}
    found = [c for c in shelf.cartridges if c.label.uuid in known]
    # Something lies where a cartridge was seen last, and it does not say who it is.
    nameless = {os.path.realpath(r.location): r for r in rows if r.state != LOST}
    found += [
        Cartridge(path, label_of(nameless[path], name))
        for path in shelf.unreadable
        if path in nameless
    ]
    if not found:
        raise CartridgeWanted(label=profile.cartridges.set, reason="none of the set is present")
    return store, sorted(found, key=lambda c: c.label.serial)


def _absent(store: Store | None, found: list[Cartridge]) -> list[str]:
    """Name the cartridges that hold something and were not found."""
    here = {cartridge.label.uuid for cartridge in found}
    rows = store.cartridges() if store is not None else []
    return [r.label for r in rows if r.uuid not in here and r.state not in (BLANK, LOST)]


def _in_folder(path: str) -> Cartridge:
    """Return the cartridge in a folder, were its label damaged; NoCartridge where it is none."""
    try:
        return Cartridge.open(path)
    except (FormatDamaged, OSError) as error:
        if not os.path.exists(os.path.join(path, SUMS)):
            raise NoCartridge(path=path) from error
    return Cartridge.nameless(path)


def _facts(cartridge: Cartridge, verdict: Verdict) -> dict[str, Any]:
    return {
        "serial": cartridge.label.serial,
        "label": cartridge.label.title,
        "archives": verdict.archives,
        "bytes": verdict.bytes,
        "damaged": verdict.damaged,
    }
