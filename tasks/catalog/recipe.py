"""Which recipe restores a snapshot by hand: what tar takes as it is, and what needs more."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.metadata import root_member
from tasks.catalog.recipemoves import Metadata, Moves, StoredBy
from tasks.catalog.recipeparts import Large, Parts, Redo
from tasks.catalog.rowgroups import stream
from tasks.formats import recipe, tar
from tasks.formats.manifest import (
    SCHEMA,
    integers,
    keys,
    named_attributes,
    read_info,
    words,
)
from tasks.media import durable
from tasks.media.layout import RECIPES
from tasks.model.words import ArchiveRow, CartridgeRow, SnapshotInfo

_UNUSED = ("ctime", "inode", "dev")
_COLUMNS = [field.name for field in SCHEMA if field.name not in _UNUSED]


def recipe_name(snapshot: str) -> str:
    """Name a snapshot's recipe on a cartridge."""
    return f"{RECIPES}/{snapshot}.tar.lz4"


def write_recipe(
    path: str,
    manifest: str,
    archives: Collection[ArchiveRow],
    cartridges: Sequence[CartridgeRow],
    stored_by: StoredBy,
) -> None:
    """Write the recipe of a manifest, durably.

    `archives` and `cartridges` are the tables that the catalog has with it, `stored_by` gives
    columns of what a snapshot stored.
    """
    info: SnapshotInfo = read_info(manifest, SnapshotInfo)
    folder = path + ".building"
    shutil.rmtree(folder, ignore_errors=True)
    durable.make_folders(folder)
    try:
        draft = _Draft(folder, info, Metadata(stored_by))
        for rows in stream(manifest, _COLUMNS):
            draft.add(rows)
        draft.close()
        plan = _plan(info, draft.archives, draft.large, archives, cartridges)
        with (
            durable.replacing(path) as whole,
            open(whole, "wb") as file,
            recipe.RecipeWriter(file) as writer,
        ):
            writer.add("plan", plan)
            draft.gather(writer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plan(
    info: SnapshotInfo,
    needed: list[str],
    large: Large,
    archives: Collection[ArchiveRow],
    cartridges: Sequence[CartridgeRow],
) -> bytes:
    facts = {row.archive: row for row in archives}
    wanted = [(number, facts[name]) for number, name in enumerate(needed, 1) if name in facts]
    lost = [(number, name) for number, name in enumerate(needed, 1) if name not in facts]
    serials = {row.cartridge for _, row in wanted}
    return b"".join(
        [
            recipe.line("recipe", recipe.VERSION),
            recipe.line("snapshot", info.snapshot),
            recipe.line("profile", info.profile),
            recipe.line("time", info.time),
            recipe.line("entries", info.entries),
            recipe.line("bytes", info.bytes),
            *(
                recipe.line("cartridge", row.serial, row.uuid, row.label)
                for row in cartridges
                if row.serial in serials
            ),
            *(
                recipe.line("archive", number, a.cartridge, a.bytes, a.sha256, a.archive)
                for number, a in sorted(wanted, key=lambda pair: (pair[1].cartridge, pair[0]))
            ),
            *(recipe.line("archive", number, 0, 0, "-", name) for number, name in lost),
            *(recipe.line("large", *facts) for facts in large.facts()),
        ]
    )


class _Draft:
    """The files of a recipe on their way; lists grow on disk, not in memory."""

    def __init__(self, folder: str, info: SnapshotInfo, metadata: Metadata) -> None:
        self._folder = folder
        self._metadata = metadata
        self._stack = ExitStack()
        self._tars = {
            kind: self._stack.enter_context(recipe.TarFile(os.path.join(folder, f"{kind}.tar")))
            for kind in ("folders", "others", "devices", "links", "large")
        }
        self.archives: list[str] = []
        self._codes: dict[str, int] = {}
        self._redo: dict[int, Redo] = {}
        self._moves: dict[int, Moves] = {}
        self._ends: dict[int, tuple[int, int]] = {}
        self._unordered: set[int] = set()
        self.large = Large(self._tars["large"])
        for root in sorted(info.roots, key=lambda root: root.source):
            self._tars["folders"].add(root_member(root))
            self._list("folders", [root.source.encode()])

    def add(self, rows: pa.RecordBatch) -> None:
        """Sort the rows of one batch to where they belong."""
        if not rows.num_rows:
            return
        parts = Parts(rows, self._number)
        kinds = np.asarray(words(rows.column("type")).to_pylist(), dtype=object)
        is_file = kinds == "file"
        self._add_bulk(rows, parts, is_file & parts.as_they_are)
        self._add_single(rows, parts, is_file & parts.single)
        for i, member in _members(rows, is_file & parts.scattered):
            self.large.add(member, rows.column("sha256")[i].as_py(), parts.pieces(i))
        self._add_plain(rows, kinds, is_file & (parts.data == 0))

    def _add_single(self, rows: pa.RecordBatch, parts: Parts, chosen: Any) -> None:
        """Add files whose content one member has: as moved with their folders, else one by one."""
        alike = self._metadata.alike(rows, parts, self.archives)
        for i, member in _members(rows, chosen):
            archive, old, place = parts.archive(i), parts.member(i), parts.place(i)
            moves = self._moves.setdefault(archive, Moves())
            if not (alike[i] and moves.add(old, member.name, place)):
                self._redo_of(archive).add(member, old, place)

    def _number(self, archive: str) -> int:
        """Return the number of an archive; the first that is met has 1."""
        if archive not in self._codes:
            self.archives.append(archive)
            self._codes[archive] = len(self.archives)
        return self._codes[archive]

    def _redo_of(self, archive: int) -> Redo:
        if archive not in self._redo:
            path = os.path.join(self._folder, f"redo-{archive}.tar")
            self._redo[archive] = Redo(path)
        return self._redo[archive]

    def _add_bulk(self, rows: pa.RecordBatch, parts: Parts, chosen: Any) -> None:
        """List files that tar restores as they are, archive by archive, in the archive's order."""
        index = np.flatnonzero(chosen)
        if not len(index):
            return
        places = parts.places[index]
        order = np.lexsort((places["skip"], places["frame"], places["archive"]))
        index, places = index[order], places[order]
        listed = pc.binary_join_element_wise(keys(rows).take(pa.array(index)), b"", b"\0")
        starts = np.flatnonzero(np.diff(places["archive"], prepend=-1))
        for start, stop in itertools.pairwise([*starts.tolist(), len(index)]):
            archive = int(places["archive"][start])
            first, last = (tuple(places[["frame", "skip"]][i]) for i in (start, stop - 1))
            if first < self._ends.get(archive, (0, 0)):
                self._unordered.add(archive)
            self._ends[archive] = last
            self._append(f"names-{archive}", _joined(listed.slice(start, stop - start)))

    def _add_plain(self, rows: pa.RecordBatch, kinds: Any, hollow: Any) -> None:
        """Add what needs nothing from an archive."""
        chosen = hollow | (kinds != "file")
        found: dict[str, list[bytes]] = {}
        for i, member in _members(rows, chosen):
            kind = _KINDS[kinds[i]]
            if member.kind == "file" and member.size:
                self._tars[kind].add_hole(member)
            else:
                self._tars[kind].add(member)
            found.setdefault(kind, []).append(member.name)
            if kind == "links":
                found[kind].append(member.link_target)
        for kind, paths in found.items():
            self._list(kind, paths)

    def _list(self, kind: str, paths: list[bytes]) -> None:
        self._append(kind, recipe.names(paths))

    def _append(self, name: str, content: bytes) -> None:
        with open(os.path.join(self._folder, name), "ab") as file:
            file.write(content)

    def close(self) -> None:
        """Finish the tars."""
        self._stack.close()
        for redo in self._redo.values():
            redo.close()

    def gather(self, writer: recipe.RecipeWriter) -> None:
        """Put all files into the recipe."""
        for kind in self._tars:
            for name in (kind, f"{kind}.tar"):
                self._take(writer, name, name)
        for number in range(1, len(self.archives) + 1):
            self._take(writer, f"names-{number}", f"names/{number}")
            if number in self._unordered:
                writer.add(f"names/{number}.unordered", b"")
            for count, one in enumerate(self._moves.get(number, Moves()).passes, 1):
                writer.add(f"moved/{number}.{count}", one.pairs)
                writer.add(f"moved/{number}.{count}.members", one.members)
                writer.add(f"moved/{number}.{count}.rules", one.rules)
            if number in self._redo:
                writer.add(f"redo/{number}", recipe.names(self._redo[number].paths))
                self._take(writer, f"redo-{number}.tar", f"redo/{number}.tar")
            if number in self.large.parts:
                writer.add(f"parts/{number}", self.large.listed(number))
        for number, (path, header) in enumerate(self.large.files, 1):
            writer.add(f"large/{number}.name", recipe.names([path]))
            writer.add(f"large/{number}.header", header)

    def _take(self, writer: recipe.RecipeWriter, path: str, name: str) -> None:
        whole = os.path.join(self._folder, path)
        if os.path.exists(whole):
            writer.add_file(name, whole)


_KINDS = {
    "dir": "folders",
    "file": "others",
    "symlink": "others",
    "fifo": "others",
    "char": "devices",
    "block": "devices",
    "hardlink": "links",
}


def _joined(listed: pa.Array) -> bytes:
    """Return the values of a binary column, end to end."""
    width = np.dtype("<i8" if pa.types.is_large_binary(listed.type) else "<i4")
    ends = np.frombuffer(listed.buffers()[1], width)[listed.offset :]
    return bytes(listed.buffers()[2][int(ends[0]) : int(ends[len(listed)])])


def _members(rows: pa.RecordBatch, chosen: Any) -> Iterator[tuple[int, tar.Member]]:
    """Yield the chosen rows, by number, as members of a tar."""
    index = np.flatnonzero(chosen)
    if not len(index):
        return
    taken = rows.take(pa.array(index))
    texts = zip(*(words(taken.column(name)).to_pylist() for name in _TEXTS), strict=True)
    plain = zip(*(taken.column(name).to_pylist() for name in _PLAIN), strict=True)
    times = integers(taken.column("mtime")).tolist()
    found = zip(index.tolist(), keys(taken).to_pylist(), times, texts, plain, strict=True)
    for row, path, mtime, (source, kind, user, group), facts in found:
        size, mode, uid, gid, target, rdev, xattrs = facts
        above = source.encode() + b"/" if kind == "hardlink" else b""
        yield (
            row,
            tar.Member(
                name=path.rstrip(b"/"),
                kind=kind,
                size=size,
                mode=mode,
                uid=uid,
                gid=gid,
                user=user or "",
                group=group or "",
                mtime_ns=mtime,
                link_target=above + target if target else b"",
                rdev=rdev or 0,
                xattrs=named_attributes(xattrs) or (),
            ),
        )


_TEXTS = ("source", "type", "user", "group")
_PLAIN = ("size", "mode", "uid", "gid", "link_target", "rdev", "xattrs")
