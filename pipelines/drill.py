"""`cartridge drill`: prove that a backup restores, with a sample from the cartridges present."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.loading import Loader
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile
from tasks.catalog.drills import in_use, record
from tasks.catalog.runs import Place
from tasks.catalog.sample import Limits
from tasks.drill import Trial
from tasks.drill import drill as restore_sample
from tasks.media import locks
from tasks.model.errors import CartridgeWanted, DamageFound, UsageError
from tasks.model.units import format_size, iso_now, parse_size
from tasks.model.words import CartridgeRow, Drill, DrilledCartridge

_SHOWN = 10


@app.command(epilog="Example: cartridge drill home --files 500 --bytes 5GB")
def drill(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    files: Annotated[
        int, typer.Option("--files", min=1, metavar="N", help="About so many in all.")
    ] = 100,
    size: Annotated[
        str, typer.Option("--bytes", metavar="SIZE", help="At most so much in all.")
    ] = "1GB",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="S", help="Repeat an earlier sample.")
    ] = None,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Restore a random sample from the cartridges present, compare it, and note the proof."""
    voice = Voice(json)
    began = time.monotonic()
    luck = secrets.randbits(32) if seed is None else seed
    facts: dict[str, Any] = {"seed": luck, "cartridges": [], "not_proven": []}

    def action() -> None:
        limits = Limits(files=files, bytes=_bytes(size))
        folder = find_workspace(workspace)
        profile, place = load_profile(folder, name), Place(folder, name)
        place.store.require(name, None)
        loader = Loader(profile, place, ask=False)
        with locks.ProfileLock(place.lock, name).alone():  # what a prune removes would look damaged
            trials = _drill(place, loader, limits, facts)
        facts["seconds"] = round(time.monotonic() - began, 3)
        _complain(trials, loader)
        voice.result(facts, _lines(facts))

    finish(voice, action, lambda error: facts)


def _bytes(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(reason=f"--bytes: {error}.") from error


def _drill(place: Place, loader: Loader, limits: Limits, facts: dict[str, Any]) -> list[Trial]:
    """Restore a sample from the cartridges that are present, and enter what came of it."""
    rows = in_use(place.store)
    here = {row.serial: found for row in rows if (found := loader.find(row.serial))}
    away = [row for row in rows if row.serial not in here]
    facts["not_proven"] = [_unproven(row, "it is not present") for row in away]
    if away and not here:
        reason = "none of them is present, and a drill restores from those that are"
        raise CartridgeWanted(label=", ".join(row.label for row in away), reason=reason)
    trials = restore_sample(place.store, here, limits, facts["seed"], os.cpu_count() or 1)
    _require_still_there(trials, loader)
    tallies = [_tally(trials, row) for row in rows if row.serial in here]
    drilled = [tally for tally in tallies if tally.files]
    none = f"no file of it comes back within {format_size(limits.bytes)} from those present alone"
    facts["not_proven"] += [_unproven(tally, none) for tally in tallies if not tally.files]
    if here and not drilled:
        raise UsageError(reason=f"--bytes: {none}; raise it, or insert the others.")
    record(place, Drill(time=iso_now(), seed=facts["seed"], cartridges=drilled))
    facts["sample"] = [trial.path for trial in trials]
    facts["cartridges"] = [asdict(tally) for tally in drilled]
    return trials


def _unproven(one: CartridgeRow | DrilledCartridge, reason: str) -> dict[str, Any]:
    return {"serial": one.serial, "label": one.label, "reason": reason}


def _require_still_there(trials: list[Trial], loader: Loader) -> None:
    """Raise CartridgeWanted where it is no damage that a cartridge did not give its files."""
    for serial in sorted({serial for trial in trials for serial, _ in trial.guilty}):
        if loader.find(serial) is None:
            raise CartridgeWanted(label=loader.label(serial), reason="it was taken away meanwhile")


def _tally(trials: list[Trial], row: CartridgeRow) -> DrilledCartridge:
    """Add up what came from one cartridge."""
    mine = [trial for trial in trials if row.serial in trial.given]
    return DrilledCartridge(
        serial=row.serial,
        uuid=row.uuid,
        label=row.label,
        files=len(mine),
        bytes=sum(trial.given[row.serial] for trial in mine),
        damaged=[t.path for t in mine if row.serial in {serial for serial, _ in t.guilty}],
    )


def _complain(trials: list[Trial], loader: Loader) -> None:
    """Raise DamageFound, with the archives that files lie in, where one came back wrong."""
    wrong = [trial for trial in trials if trial.wrong]
    if wrong:
        shown = "; ".join(_blamed(trial, loader) for trial in wrong[:_SHOWN])
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DamageFound(damage=f"{len(wrong)} of {len(trials)} files: {shown}{more}")


def _blamed(trial: Trial, loader: Loader) -> str:
    places = [f"{archive} on {loader.label(serial)}" for serial, archive in trial.guilty]
    return f"{trial.path} ({trial.wrong}{', in ' if places else ''}{' and '.join(places)})"


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    for one in facts["cartridges"]:
        size = format_size(one["bytes"])
        yield f"Cartridge {one['label']}: {one['files']} files, {size}, came back right."
    for one in facts["not_proven"]:
        yield f"Cartridge {one['label']} is not proven: {one['reason']}."
    yield (
        f"Restored and compared {len(facts['sample'])} files in {facts['seconds']:.1f} s; "
        f"--seed {facts['seed']} repeats this sample."
    )
