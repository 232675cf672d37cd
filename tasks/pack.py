"""Pack: read the files of one bundle once; hash, deduplicate and compress them into archives."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import luigi

from tasks._base import Stage
from tasks.catalog.contents import BUNDLE, Claims, StoredIndex
from tasks.catalog.filling import Draft
from tasks.catalog.packing import Recipe, add_hole, sparse_digest, stretches
from tasks.catalog.packlist import Entry, entries
from tasks.catalog.progress import ignore, tell_name, wants_names
from tasks.catalog.runs import Run
from tasks.catalog.setback import first_free, taken_back
from tasks.diff import summaries
from tasks.formats import tar
from tasks.formats.archive import FRAME, SUFFIX, part_name
from tasks.formats.chunks import Cutter
from tasks.formats.manifest import batches, rows_between
from tasks.media import durable
from tasks.media.memory import keep_memory
from tasks.media.spool import Spool
from tasks.media.stable import (
    Unreadable,
    extent_reader,
    extents_of,
    is_settled,
    read_all,
    read_all_at,
    read_once,
    tick,
    unchanged,
)
from tasks.model.errors import ArchiveNumbersUsedUp
from tasks.model.words import ArchivesPlan, Bundle, BundleReceipt, Trouble
from tasks.plan import HEADER, PlanArchives, largest_archive, spool_limit
from tasks.scan import require_root, source_paths

_BATCH_FILES = 1024
# So many rows are Python objects at a time, a kilobyte each.
_BATCH_ROWS = 1 << 12


class PackArchive(Stage):
    """One bundle of a run; its archives go to the spool as they are finished."""

    number = luigi.IntParameter()

    @property
    def result(self) -> str:
        """The receipt of the bundle."""
        return os.path.join("bundles", f"{self.number:04d}.json")

    def process_resources(self) -> dict[str, int]:
        """One packer less than there are processes: the writer must never wait for a place."""
        return {f"pack-{self.profile}": 1}

    def requires(self) -> PlanArchives:
        """The plan says which rows are in the bundle."""
        return PlanArchives(**self.identity)

    def work(self) -> None:
        """Pack the bundle."""
        keep_memory()
        run = self.run_folder
        plan = run.load("plan.json", ArchivesPlan)
        bundle = next(b for b in plan.bundles if b.number == self.number)
        meter = self.meter(bundle.bytes, "bytes")
        run.save(self.result, Packer(run, plan, bundle).pack(meter.add))
        meter.report()


class _Read(NamedTuple):
    """A file that was read whole and waits to be added."""

    entry: Entry
    data: bytes
    facts: os.stat_result
    digest: bytes


class Packer:
    """Pack one bundle, archive by archive; each finished archive is a checkpoint."""

    def __init__(self, run: Run, plan: ArchivesPlan, bundle: Bundle) -> None:
        request = run.request
        self._run = run
        self._plan = plan
        self._bundle = bundle
        self._roots = {name: os.fsencode(p) for name, p in source_paths(request).items()}
        self._inodes = {scan.root.source: scan.root_inode for scan in summaries(run)}
        self._spool = Spool(run.spool, spool_limit(request, plan, run), largest_archive(plan))
        self._stored = StoredIndex(run.path("stored.idx"))
        self._cutter = Cutter(plan.cutting)
        self._batch_bytes = min(FRAME, plan.archive_size // 4)
        self._waiting: list[_Read] = []
        self._waiting_bytes = 0
        self._troubles: list[Trouble] = []
        self._finished: list[str] = []
        self._done: set[int] = set()
        # Members that a hard link may name: tar finds only what came before in the same bundle.
        self._linkable: set[bytes] = set()
        self._resume()
        finished = {int(number) for number in self._finished}
        gone = [int(number) for number in taken_back(run)]
        self._claims = Claims(run.path("claims"), bundle.number, finished, gone)
        self._draft: Draft | None = None
        # The archive before it, which a thread publishes while this one is filled.
        self._published: Future[None] | None = None
        self._names = wants_names()
        # When all that is packed had been seen by the scan; nanoseconds since 1970.
        self._began = time.time_ns()

    def pack(self, seen: Callable[[int], None] = ignore) -> BundleReceipt:
        """Read every file of the bundle; return what was packed and what could not be read.

        `seen` is told the bytes of each file.
        """
        bundle = self._bundle
        rows = self._run.path("pack.parquet")
        with ThreadPoolExecutor(1) as self._publisher:
            for batch in rows_between(rows, bundle.start, bundle.stop, _BATCH_ROWS):
                for entry in entries(batch, self._roots, self._done):
                    self._add(entry)
                    seen(entry.size + HEADER if entry.kind == "file" else HEADER)
                    if self._names:
                        tell_name(entry.name)
            self._flush()
            self._close_archive()
            self._await_published()
        self._claims.close()
        return BundleReceipt(number=bundle.number, archives=self._finished, troubles=self._troubles)

    def _resume(self) -> None:
        """Skip what an interrupted packer of this bundle has finished; some may be taken back."""
        mine = f"{self._bundle.number:04d}"
        names = os.listdir(self._run.path("packed"))
        self._finished = sorted(n[:-5] for n in names if n.endswith(".json") and n.startswith(mine))
        for number in self._finished:
            for batch in batches(self._run.path("packed", f"{number}.rows.parquet"), ["row"]):
                self._done.update(batch.column("row").to_pylist())
        self._next = first_free(self._run, mine)

    def _number(self, index: int) -> str:
        return f"{self._bundle.number * BUNDLE + index:010d}"

    def _add(self, entry: Entry) -> None:
        if entry.kind != "file":
            self._add_header(entry)
            return
        try:
            if entry.size <= self._plan.cutting.split_size:
                self._add_whole(entry)
            elif not self._add_sparse(entry):
                self._add_large(entry)
        except Unreadable as error:
            self._require_root(entry)
            shown = entry.name.decode("utf-8", "replace")
            self._troubles.append(Trouble(path=shown, reason=error.reason))

    def _require_root(self, entry: Entry) -> None:
        """Raise SourceMissing where not one file but the whole source is gone."""
        source = entry.name.split(b"/", 1)[0].decode()
        require_root(source, entry.root, self._inodes[source])

    def _add_whole(self, entry: Entry) -> None:
        data, facts = self._read_at_once(entry)
        size = len(data)
        if size > self._plan.cutting.split_size:
            self._add_large(entry)  # it has grown since the scan
            return
        if size >= 4096 and facts.st_blocks * 512 < size and self._add_sparse(entry):
            return
        digest = hashlib.sha256(data).digest()
        self._waiting.append(_Read(entry, data, facts, digest))
        self._waiting_bytes += size + 1536
        if self._waiting_bytes >= self._batch_bytes or len(self._waiting) >= _BATCH_FILES:
            self._flush()

    def _read_at_once(self, entry: Entry) -> tuple[bytes, os.stat_result]:
        """Read a file that has not changed since the scan; take more care where it has."""
        began = time.time_ns()
        data, facts = read_once(entry.root, entry.path, entry.size)
        if (
            len(data) == facts.st_size == entry.size
            and facts.st_mtime_ns == entry.mtime
            and facts.st_ctime_ns == entry.ctime
            and (is_settled(facts, began) or self._rests(entry, facts, began))
        ):
            return data, facts
        data, facts = self._unchanged(entry, lambda fd, facts: read_all(fd, facts.st_size))
        _check_identity(entry, facts)
        if len(data) != facts.st_size:
            raise Unreadable("Its size is not what can be read of it")
        return data, facts

    def _unchanged(
        self, entry: Entry, read: Callable[[int, os.stat_result], Any]
    ) -> tuple[Any, os.stat_result]:
        return unchanged(entry.root, entry.path, read, partial(self._rests, entry))

    def _rests(self, entry: Entry, facts: os.stat_result, now: int | None = None) -> bool:
        """Whether a file is as it was when the scan saw it, longer ago than its clock stands still.

        That needs no clock of the source's, which may be hours ahead: cameras keep local time.
        """
        was = entry.ctime, entry.mtime, entry.size
        is_same = was == (facts.st_ctime_ns, facts.st_mtime_ns, facts.st_size)
        return is_same and (now or time.time_ns()) > self._began + tick(facts)

    def _flush(self) -> None:
        """Add the files that wait; contents that are stored already are only referred to."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        raw, self._waiting_bytes = self._waiting_bytes, 0
        filled = [read for read in waiting if read.data]
        draft = self._archive_for(raw)
        verdicts = self._claims.claim([r.digest for r in filled], draft.number, self._stored)
        fresh = iter(verdicts)
        for entry, data, facts, digest in waiting:
            content = None
            if not data or next(fresh):
                size = len(data)
                owner = _owner(facts, entry)
                header = tar.file_header(entry.name, size, *owner, entry.xattrs or ())
                place = draft.writer.add(header, data, size)
                if facts.st_nlink > 1:
                    self._linkable.add(entry.name)
                if data:
                    plain = None if entry.xattrs else facts
                    content = draft.contents.add(digest, entry.name, place, size, plain)
            draft.rows.add(entry.row, facts, digest, entry.old, content)

    def _add_header(self, entry: Entry) -> None:
        if entry.kind == "hardlink":
            self._flush()
            if entry.link_target not in self._linkable:
                return  # the manifest has it; a tar member would name what tar does not know
        self._linkable.add(entry.name)
        member = tar.Member(
            name=entry.name,
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            user=entry.user,
            group=entry.group,
            mtime_ns=entry.mtime,
            link_target=entry.link_target,
            rdev=entry.rdev,
            xattrs=entry.xattrs or (),
        )
        self._archive_for(0).writer.add(tar.header(member))

    def _add_sparse(self, entry: Entry) -> bool:
        """Add a file of holes and little data as tar does; False where it is not such a file."""

        def read(fd: int, facts: os.stat_result) -> Any:
            extents = extents_of(fd, facts.st_size)
            stored = sum(length for _, length in extents)
            if stored == facts.st_size or stored > self._plan.cutting.split_size:
                return None
            return extents, [read_all_at(fd, *extent) for extent in extents]

        result, facts = self._unchanged(entry, read)
        if result is None or any(length % 512 for _, length in result[0][:-1]):
            return False
        _check_identity(entry, facts)
        extents, pieces = result
        digest = sparse_digest(extents, pieces, facts.st_size)
        self._flush()
        draft = self._archive_for(sum(map(len, pieces)) + 4096)
        content: int | None = None
        recipe: Recipe | None = None
        if not pieces:  # all hole: a header says all, and there is nothing to refer to
            recipe = [{"length": facts.st_size, "sha256": None}]
        if not pieces or self._claims.claim([digest], draft.number, self._stored)[0]:
            header = tar.sparse_header(
                entry.name, extents, facts.st_size, *_owner(facts, entry), entry.xattrs or ()
            )
            data = b"".join(pieces)
            place = draft.writer.add(header, data, len(data))
            self._linkable.add(entry.name)
            if pieces:
                found = stretches(extents, pieces, facts.st_size, place)
                content = draft.contents.add_sparse(digest, entry.name, found)
        draft.rows.add(entry.row, facts, digest, entry.old, content, recipe)
        return True

    def _add_large(self, entry: Entry) -> None:
        """Store the chunks of a large file that are not stored yet."""
        self._flush()
        (digest, recipe), facts = self._unchanged(
            entry, lambda fd, facts: self._store_chunks(entry, fd, facts)
        )
        _check_identity(entry, facts)
        self._archive_for(0).rows.add(entry.row, facts, digest, entry.old, None, recipe)

    def _store_chunks(self, entry: Entry, fd: int, facts: os.stat_result) -> tuple[bytes, Recipe]:
        whole = hashlib.sha256()
        recipe: Recipe = []
        position = 0
        for start, length in extents_of(fd, facts.st_size):
            add_hole(recipe, whole, start - position)
            position = start
            for chunk in self._cutter.cut(extent_reader(fd, start, length)):
                whole.update(chunk)
                digest = hashlib.sha256(chunk).digest()
                self._store_chunk(entry, position, facts, chunk, digest)
                recipe.append({"length": len(chunk), "sha256": digest})
                position += len(chunk)
        add_hole(recipe, whole, facts.st_size - position)
        return whole.digest(), recipe

    def _store_chunk(
        self, entry: Entry, position: int, facts: os.stat_result, chunk: memoryview, digest: bytes
    ) -> None:
        draft = self._archive_for(len(chunk) + 2048)
        if not self._claims.claim([digest], draft.number, self._stored)[0]:
            return
        name = part_name(entry.name, position, digest)
        shown = entry.name.decode("utf-8", "replace")
        member = tar.Member(
            name=name,
            kind="file",
            size=len(chunk),
            mode=0o600,
            uid=facts.st_uid,
            gid=facts.st_gid,
            mtime_ns=facts.st_mtime_ns // 10**9 * 10**9,
            comment=f"{len(chunk)} bytes from {position} of {shown}",
        )
        place = draft.writer.add(tar.header(member), chunk, len(chunk))
        draft.contents.add(digest, name, place, len(chunk))

    def _archive_for(self, size: int) -> Draft:
        """Return the archive that takes `size` more bytes; a full one is finished first."""
        draft = self._draft
        if draft and not draft.takes(size, self._plan.archive_size):
            self._close_archive()
            draft = None
        if draft is None:
            if self._next >= BUNDLE:
                raise ArchiveNumbersUsedUp(limit=BUNDLE)
            number = self._number(self._next)
            self._next += 1
            path = self._spool.draft(number, self._is_hopeless)
            draft = self._draft = Draft(int(number), path)
        return draft

    def _is_hopeless(self) -> bool:
        """Whether the spool will not be emptied any more; raise what kept an archive out of it."""
        if self._published is not None and self._published.done():
            self._published.result()
        return self._run.has_failed()

    def _close_archive(self) -> None:
        """Have a thread publish the archive: that waits for the disk, not for the processor."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self._await_published()
            self._published = self._publisher.submit(self._publish, draft)

    def _await_published(self) -> None:
        """Wait until the archive before is published, and raise what went wrong with it."""
        if self._published is not None:
            self._published.result()

    def _publish(self, draft: Draft) -> None:
        """Publish an archive: data, then the lists, then the record that says so."""
        run, number = self._run, f"{draft.number:010d}"
        archive = f"archives/{run.snapshot}/{number}{SUFFIX}"
        packed = draft.close(archive, run.path("packed", number))
        if packed.members:
            durable.publish(draft.path, self._spool.path(number))
        else:
            durable.remove(draft.path)
        run.save(os.path.join("packed", f"{number}.json"), packed)
        self._finished.append(number)


def _check_identity(entry: Entry, facts: os.stat_result) -> None:
    """The other names of a file must not get the content of one that took this name."""
    if entry.nlink > 1 and facts.st_ino != entry.inode:
        raise Unreadable("Another file took its name while it was read")


def _owner(facts: os.stat_result, entry: Entry) -> tuple[int, int, int, str, str, int]:
    mode = facts.st_mode & 0o7777
    return mode, facts.st_uid, facts.st_gid, entry.user, entry.group, facts.st_mtime_ns
