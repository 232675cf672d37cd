"""What a backup would do: scan and compare, and throw the result away."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime

from pipelines.report import Voice
from tasks.catalog.changes import listed
from tasks.catalog.opening import Options, request_for
from tasks.catalog.runs import Place, Run
from tasks.catalog.store import Store
from tasks.diff import diff
from tasks.model.profile import Profile
from tasks.model.units import format_size
from tasks.scan import scan


def preview(place: Place, profile: Profile, options: Options, voice: Voice) -> int:
    """List every change, and what is stored again, with its reason.

    Nothing is written to workspace or cartridge.
    """
    request = request_for(place, profile, options, datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="cartridge-") as folder:
        run = Run(Place(folder, place.profile_name), "dry-run")
        run.create(replace(request, snapshot="dry-run"))
        _show_catalog(place.store, run.store, request.previous)
        for source in profile.source:
            scan(source, place.workspace, run.scan_path(source.name))
        summary = diff(run)
        changes = list(listed(run.path("changes.parquet")))
        packed = list(listed(run.path("pack.parquet")))
    changes += [replace(c, change="again") for c in packed if not c.change]
    size = sum(c.size for c in packed)
    told = [f"{c.change:9} {c.reason:7} {c.path}" for c in changes]
    told.append(f"At most {format_size(size)} would be read and stored. Nothing was written.")
    voice.result({**asdict(summary), "changes": [asdict(c) for c in changes]}, told)
    return 0


def _show_catalog(known: Store, passing: Store, previous: str | None) -> None:
    """Have a passing catalog show what a comparison needs of the true one."""
    names = [(known.archives_path, passing.archives_path)]
    if previous:
        names.append((known.manifest_path(previous), passing.manifest_path(previous)))
    for there, here in names:
        if os.path.exists(there):
            os.symlink(there, here)
