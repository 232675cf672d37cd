"""`cartridge verify`: read every byte of the cartridges that are present against their sums."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile, profile_path
from tasks.catalog.progress import ignore
from tasks.catalog.runs import Place
from tasks.catalog.store import Store
from tasks.media.cartridge import Cartridge
from tasks.media.readback import Verdict, expected_sums, read_back
from tasks.media.shelf import look
from tasks.model.errors import CartridgeWanted, DamageFound, FormatDamaged, ProfileMissing
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
    facts: dict[str, Any] = {"cartridges": []}

    def action() -> None:
        folder = find_workspace(workspace)
        store, found = _chosen(folder, name)
        damaged, told = [], []
        for cartridge in found:
            verdict = check(cartridge, store)
            facts["cartridges"].append(_facts(cartridge, verdict))
            damaged += [f"{cartridge.label.title}: {file}" for file in verdict.damaged]
            told.append(
                f"Cartridge {cartridge.label.title}: {verdict.archives} archives, "
                f"{format_size(verdict.bytes)} read, {len(verdict.damaged)} files damaged."
            )
            if store is not None and not verdict.damaged:
                store.alter_cartridge(cartridge.label.uuid, verified=iso(datetime.now(UTC)))
        if damaged:
            raise DamageFound(damage=", ".join(damaged))
        voice.result(facts, told)

    finish(voice, action, lambda error: facts)


def check(cartridge: Cartridge, store: Store | None) -> Verdict:
    """Read a cartridge back; what the catalog knows of it has to be there too.

    Lists that cannot be read are damage as well, and the catalog's word is taken instead.
    """
    broken: list[str] = []
    sums: dict[str, str] = {}
    for read, file in ((expected_sums, "journal.jsonl"),):
        try:
            sums = read(cartridge)
        except (FormatDamaged, OSError) as error:
            broken.append(_name_in(error, cartridge, file))
    if store is not None:
        serial = cartridge.label.serial
        known = {row.archive: row.sha256 for row in store.archives() if row.cartridge == serial}
        sums = {**sums, **known}
    verdict = read_back(cartridge, sums, ignore)
    return Verdict(verdict.archives, verdict.bytes, sorted({*verdict.damaged, *broken}))


def _name_in(error: Exception, cartridge: Cartridge, otherwise: str) -> str:
    path = error.facts.get("file") if isinstance(error, FormatDamaged) else None
    return os.path.relpath(path, cartridge.path) if path else otherwise


def _chosen(folder: str, name: str) -> tuple[Store | None, list[Cartridge]]:
    """Return the cartridges that are meant, with the catalog where there is one."""
    if not os.path.exists(profile_path(folder, name)) and os.path.isdir(name):
        try:
            return None, [Cartridge.open(name)]
        except FileNotFoundError as error:
            raise FormatDamaged(file=name, reason="there is no CARTRIDGE.json in it") from error
    try:
        profile = load_profile(folder, name)
    except ProfileMissing:
        raise
    store = Place(folder, name).store
    rows = store.cartridges()
    shelf = look(profile.cartridges.search, [row.location for row in rows], folder)
    known = {row.uuid for row in rows}
    found = [c for c in shelf.cartridges if c.label.uuid in known]
    if not found:
        raise CartridgeWanted(label=profile.cartridges.set, reason="none of the set is present")
    return store, sorted(found, key=lambda c: c.label.serial)


def _facts(cartridge: Cartridge, verdict: Verdict) -> dict[str, Any]:
    return {
        "serial": cartridge.label.serial,
        "label": cartridge.label.title,
        "archives": verdict.archives,
        "bytes": verdict.bytes,
        "damaged": verdict.damaged,
    }
