"""Refusing the wrong cartridge: a pure look at what lies there, before anything is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from tasks.catalog.request import Request
from tasks.catalog.runs import Run
from tasks.catalog.setback import taken_back
from tasks.catalog.store import STORED, Store
from tasks.formats.archive import SUFFIX
from tasks.media import durable
from tasks.media.cartridge import Cartridge
from tasks.media.layout import MANIFESTS
from tasks.media.shelf import belongs
from tasks.model.errors import WrongCartridge
from tasks.model.words import SNAPSHOT, ArchiveRow


def check(cartridge: Cartridge, run: Run) -> None:
    """Raise WrongCartridge where this cartridge must not be written, saying why."""
    request = run.request
    _check_writable(cartridge)
    set_name, profile = request.profile.cartridges.set, request.profile_name
    if not belongs(cartridge.label, set_name, profile):
        label = cartridge.label
        raise _refused(cartridge, f"its label says set '{label.set}', profile '{label.profile}'")
    around = source_around(cartridge.path, request)
    if around is not None:
        raise _refused(cartridge, f"it lies inside the source '{around}'")
    _check_snapshots(cartridge, run.store, run.snapshot)
    _check_history(cartridge, run)


def check_known(cartridge: Cartridge, store: Store) -> None:
    """Raise WrongCartridge where something may not be removed from here, as nobody knows it all.

    The catalog may be older than the cartridge, or the cartridge's journal damaged.
    """
    _check_writable(cartridge)
    _check_snapshots(cartridge, store, None)
    rows = [row for row in store.archives() if row.cartridge == cartridge.label.serial]
    _check_stored(cartridge, rows)
    known, forgotten = {row.archive for row in rows}, {*store.absent().forgotten}
    for name in [*cartridge.unaccounted(), *(line.archive for line in cartridge.journal())]:
        if name not in known and name.split("/")[1] not in forgotten:
            raise _refused(cartridge, f"the catalog does not know {name}")


def _check_writable(cartridge: Cartridge) -> None:
    facts = os.statvfs(cartridge.path)
    if facts.f_flag & os.ST_RDONLY or not os.access(cartridge.path, os.W_OK):
        raise _refused(cartridge, "it is read-only")


def source_around(path: str, request: Request) -> str | None:
    """Return the name of the source that a folder lies in, if there is one."""
    here = os.path.realpath(path)
    for source in request.profile.source:
        root = os.path.realpath(os.path.join(request.workspace, os.path.expanduser(source.path)))
        if os.path.commonpath([root, here]) == root:
            return source.name
    return None


def _check_history(cartridge: Cartridge, run: Run) -> None:
    """What the catalog knows of has to be there, and nothing but this run's archives besides."""
    rows = [row for row in run.store.archives() if row.cartridge == cartridge.label.serial]
    _check_stored(cartridge, rows)
    mine = f"archives/{run.snapshot}/"
    for name in cartridge.unaccounted():
        if not name.startswith(mine) and name not in {row.archive for row in rows}:
            raise _refused(cartridge, f"its journal does not name {name}")
    known = {row.archive for row in rows}
    unknown = [line for line in cartridge.journal() if line.archive not in known]
    written = _written_by(run) if unknown else {}
    for line in unknown:
        if written.get(line.archive, "") not in (line.sha256, None):
            raise _refused(cartridge, f"{line.archive} was written by another workspace")


def _check_snapshots(cartridge: Cartridge, store: Store, current: str | None) -> None:
    """All snapshots whose manifests lie here have to be known.

    Another workspace may have made one that stored nothing, and needs what this one would remove.
    """
    known = {*store.snapshots(), *store.absent().forgotten, *store.unknown(), current}
    for name, _ in cartridge.files():
        folder, _, snapshot = name.removesuffix(".parquet").rpartition("/")
        if folder == MANIFESTS and SNAPSHOT.fullmatch(snapshot) and snapshot not in known:
            reason = f"it has a manifest of snapshot {snapshot}, which this workspace does not know"
            raise _refused(cartridge, reason)


def _check_stored(cartridge: Cartridge, rows: Iterable[ArchiveRow]) -> None:
    """What the catalog takes for stored here has to be here, as it was written."""
    lines = {line.archive: line.sha256 for line in cartridge.journal()}
    for row in rows:
        if row.state == STORED and lines.get(row.archive) != row.sha256:
            raise _refused(cartridge, f"{row.archive} is not as it was written")
        if row.state == STORED and not _is_whole(cartridge.file(row.archive), row.bytes):
            raise _refused(cartridge, f"{row.archive} is not as long as it was written, or gone")


def _written_by(run: Run) -> dict[str, str | None]:
    """Return the sums of a run's archives; None for one that was to be packed again.

    The name of an archive does not tell whose it is: another workspace may have begun a run in the
    same second.
    """
    gone = {f"archives/{run.snapshot}/{number}{SUFFIX}": None for number in taken_back(run)}
    return {**gone, **{packed.archive: packed.sha256 for packed in run.packed()}}


def _is_whole(path: str, size: int) -> bool:
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size == size


def reconcile(cartridge: Cartridge, run: Run) -> None:
    """Note archives of this run that an interrupted writer had placed already.

    One that is to be packed again, or that another cartridge has got since, while this one was
    away, is dropped. Raises WrongCartridge where one that was placed is not there any more.
    """
    serial = cartridge.label.serial
    lines = {line.archive: line for line in cartridge.journal()}
    placed = run.placed()
    cartridge.drop({f"archives/{run.snapshot}/{number}{SUFFIX}" for number in taken_back(run)})
    for packed in run.packed():
        line = lines.get(packed.archive)
        if line is not None and placed.get(packed.number, serial) != serial:
            cartridge.drop({packed.archive})
        elif line is not None and line.sha256 == packed.sha256:
            if packed.number not in placed:
                run.note_placed(packed.number, serial)
            durable.remove(run.spooled(packed.number))
        elif placed.get(packed.number) == serial:
            raise _refused(cartridge, f"{packed.archive} was written and is gone")


def _refused(cartridge: Cartridge, reason: str) -> WrongCartridge:
    return WrongCartridge(path=cartridge.path, label=cartridge.label.title, reason=reason)
