"""`cartridge restore`: bring a snapshot back, whole or in part."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from pipelines.cli import At, Debug, Json, Snapshot, Workspace, app, finish
from pipelines.loading import Loader
from pipelines.report import Voice, complain, damage_in, few, is_terminal, say, table
from pipelines.workspace import choose_snapshot, find_workspace, load_profile
from tasks.catalog.cover import cover, shares
from tasks.catalog.planned import needed
from tasks.catalog.runs import Place
from tasks.catalog.selection import Selected, select, table_keys
from tasks.media.destination import Destination
from tasks.media.draft import PART
from tasks.media.naming import substitute_path
from tasks.media.patterns import Selection
from tasks.model.errors import (
    CartridgeError,
    CartridgeWanted,
    DamageFound,
    DestinationUnusable,
    UsageError,
)
from tasks.model.profile import Profile
from tasks.model.units import format_size
from tasks.restore import Restored
from tasks.restore import restore as restore_rows

# What a place may not have at all: those are listed by name.
NOT_MADE = ("links", "fifos", "devices")


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
    snapshot: Snapshot = None,
    at: At = None,
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
            ask = is_terminal() and not json
            loader = Loader(profile, place, ask=ask)
            if plan:
                wanted = select(store, chosen, patterns) if patterns else needed(store, chosen)
                _say_plan(voice, wanted, loader)
                return
            selected = select(store, chosen, patterns)
            if delete:
                facts["removed"] = _delete_foreign(selected, dest, patterns, voice, ask, yes)
            info, processes = store.info(chosen), workers or os.cpu_count() or 1
            result = restore_rows(selected, info.roots, dest, loader, processes)
            facts.update(_facts(selected.snapshot, result, time.monotonic() - began))
            lines = _lines(selected.snapshot, dest, result, facts["seconds"])
            trouble = _trouble(result, dest, loader)
            facts["complete"] = info.complete
            if not info.complete:
                complain(f"Snapshot {chosen} is known in part only: what else it had nobody knows.")
            damaged = facts.get("recovered", {}).get("damaged", [])
            voice.conclude(facts, lines, trouble or damage_in(damaged))

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
    from pipelines.passing import facts_of, passing_place, told

    with passing_place(volumes) as (place, profile, recovered):
        facts["recovered"] = facts_of(recovered)
        for line in told(recovered):
            complain(line)
        if recovered.nowhere:
            complain(f"{recovered.nowhere} archives are on no cartridge that is known.")
        yield place, profile


def _meant(words: list[str], volumes: list[str] | None) -> tuple[str, str, list[str]]:
    """Tell profile, destination and patterns apart: with --from there is no profile to name."""
    name, rest = ("", words) if volumes else (words[0], words[1:])
    if not rest:
        raise UsageError(reason="Missing argument 'DEST'.")
    return name, rest[0], rest[1:]


def _facts(snapshot: str, result: Restored, seconds: float) -> dict[str, Any]:
    return {
        "snapshot": snapshot,
        "files": result.files,
        "bytes": result.bytes,
        "present": result.present,
        "present_bytes": result.present_bytes,
        "cartridges": result.cartridges,
        "damaged": result.damaged,
        "missing": result.missing,
        "failed": [{"path": path, "reason": why} for path, why in result.failed.items()],
        "not_kept": {kind: len(paths) for kind, paths in sorted(result.not_kept.items())},
        "not_kept_paths": dict(sorted(result.not_kept.items())),
        "renamed": [{"path": path, "as": name} for path, name in result.renamed.items()],
        "seconds": round(seconds, 3),
    }


def _trouble(result: Restored, dest: str, loader: Loader) -> CartridgeError | None:
    """Return the worst that went wrong; all that could be restored is there."""
    if result.damaged:
        shown = few(result.damaged)
        return DamageFound(damage=f"{len(result.damaged)} not restored: {shown}")
    if result.failed:
        path, why = next(iter(result.failed.items()))
        reason = f"{len(result.failed)} entries cannot be written there, first {path} ({why})"
        return DestinationUnusable(path=dest, reason=f"{reason}; all others were restored")
    if result.missing:
        label = loader.labels(loader.lacking) if loader.lacking else "that no catalog knows of"
        reason = f"{len(result.missing)} entries lie there, all others were restored"
        return CartridgeWanted(label=label, reason=reason)
    return None


def _lines(snapshot: str, dest: str, result: Restored, seconds: float) -> Iterator[str]:
    """Say what was done, and list file by file what was not."""
    there = f"{result.present} files, {format_size(result.present_bytes)}, were there already; "
    end = "what is damaged was left out" if result.damaged else "every checksum is right"
    yield (
        f"Restored {result.files} files, {format_size(result.bytes)}, of snapshot {snapshot} to "
        f"{dest} in {seconds:.1f} s; {there if result.present else ''}{end}."
    )
    if result.not_kept:
        counts = [f"{kind} of {len(paths)}" for kind, paths in sorted(result.not_kept.items())]
        yield f"Not kept, as this place or this user cannot: {', '.join(counts)} (see --json)."
    for kind in NOT_MADE:
        yield from (f"not made ({kind}): {path}" for path in result.not_kept.get(kind, ()))
    yield from (f"renamed: {path} -> {name}" for path, name in result.renamed.items())
    yield from (f"failed: {path} ({why})" for path, why in result.failed.items())
    yield from (f"missing: {path}" for path in result.missing)
    yield from (f"damaged: {path}" for path in result.damaged)


def _say_plan(voice: Voice, selected: Selected, loader: Loader) -> None:
    """Say which cartridges are needed, in the order in which they are read."""
    present = loader.present()
    found: list[dict[str, Any]] = []
    for serial, archives in shares(selected.holders, cover(selected.holders, present)).items():
        gives = selected.portion(archives)
        who = {"serial": serial, "label": loader.label(serial), "present": serial in present}
        found.append({**who, "bytes": gives.bytes, "files": gives.files})
    nowhere = selected.portion([n for n, serials in enumerate(selected.holders) if not serials])
    rows = [
        (
            f["label"],
            f["files"],
            format_size(f["bytes"]),
            "present" if f["present"] else "not here",
        )
        for f in found
    ]
    lines = table(("cartridge", "files", "size", ""), rows) or ["No cartridge is needed."]
    if nowhere.files:
        lines.append(f"{nowhere.files} files lie on no cartridge that the catalog knows.")
    facts = {"snapshot": selected.snapshot, "cartridges": found, "nowhere": nowhere.files}
    voice.result(facts, lines)


def _delete_foreign(
    selected: Selected, dest: str, patterns: list[str], voice: Voice, ask: bool, yes: bool
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
    marked = {substitute_path(key) for key in known}
    wanted = _chosen(patterns)
    foreign: list[bytes] = []
    last = b"/"
    for path, is_folder in place.entries():
        if path in known or path.startswith(last + b"/") or not wanted(path, is_folder):
            continue
        last = path  # what lies below goes, or stays, with it
        if path not in marked and not PART.fullmatch(path.rpartition(b"/")[2]):
            foreign.append(path)
    for path in filter(place.holds_mount, foreign):
        shown = path.decode("utf-8", "replace")
        reason = f"--delete would empty what is mounted at or below {shown}"
        raise DestinationUnusable(path=dest, reason=reason)
    listed = [path.decode("utf-8", "replace") for path in foreign]
    for name in listed if not voice.json else ():
        say(f"not in the snapshot: {name}")
    if foreign and not yes:
        question = f"Remove these {len(foreign)} from {dest}? Type yes: "
        if not ask or input(question).strip().lower() != "yes":
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
