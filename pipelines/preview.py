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
from tasks.diff import diff
from tasks.model.profile import Profile
from tasks.model.units import format_size
from tasks.scan import scan


def preview(place: Place, profile: Profile, options: Options, voice: Voice) -> int:
    """List every change with its reason; nothing is written to workspace or cartridge."""
    request = request_for(place, profile, options, datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="cartridge-") as folder:
        run = Run(Place(folder, place.profile_name), "dry-run")
        run.create(replace(request, snapshot="dry-run"))
        if request.previous:
            manifest = place.store.manifest_path(request.previous)
            os.symlink(manifest, run.store.manifest_path(request.previous))
        for source in profile.source:
            scan(source, place.workspace, run.scan_path(source.name))
        summary = diff(run)
        changes = list(listed(run.path("changes.parquet")))
    size = sum(c.size for c in changes if c.change in ("added", "modified"))
    told = [f"{c.change:9} {c.reason:7} {c.path}" for c in changes]
    told.append(f"At most {format_size(size)} would be read and stored. Nothing was written.")
    voice.result({**asdict(summary), "changes": [asdict(c) for c in changes]}, told)
    return 0
