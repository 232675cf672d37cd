"""Export: write a snapshot as one plain tar, archive by archive, checking every byte on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.metadata import root_member
from tasks.catalog.selection import Selected, table_keys, words_of
from tasks.catalog.stored import StoredFile, StoredFiles
from tasks.formats import tar
from tasks.formats.manifest import integers, keys, named_attributes, words
from tasks.media.outlet import Outlet
from tasks.media.safepaths import UnsafePathError, check_path
from tasks.media.stable import zeros
from tasks.model.errors import FormatDamaged
from tasks.model.words import SourceRoot

_PAGE = 1 << 12
# The targets that GNU tar takes for dangerous while it extracts.
_ELSEWHERE = r"^/|(^|/)\.\.(/|$)"
_NEVER_FIRST = pa.array(["dir", "hardlink"])


@dataclass(slots=True)
class Exported:
    """What an export wrote: members, files among them, their bytes, and what was left out."""

    entries: int = 0
    files: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)


def export(
    selected: Selected, roots: list[SourceRoot], folders: Mapping[int, str], out: Outlet
) -> Exported:
    """Write the selected rows as a tar; `folders` says where each cartridge is, by serial.

    What has damaged content is listed, and not in the tar. Raises FormatDamaged for a catalog that
    names what lies outside of its sources.
    """
    with closing(StoredFiles(selected, folders)) as files:
        exporting = _Exporting(selected, files, out)
        exporting.run(roots)
    return exporting.result


class _Exporting:
    """One export: contents in the order of the archives, then links, and folders inside out.

    A folder that comes behind all that lies in it gets its times and rights from any tar, which has
    nothing more to write into it; hard links come behind all that they may name. Symbolic links
    that lead elsewhere come first of all, each behind its folders: GNU tar makes them at its very
    end, and then sets the times and rights of those folders only that it has seen before.
    """

    def __init__(self, selected: Selected, files: StoredFiles, out: Outlet) -> None:
        self._rows = selected.rows
        self._files = files
        self._out = out
        self._kinds = np.array(words_of(selected.rows, "type"), dtype=object)
        self._sources = np.array(words_of(selected.rows, "source"), dtype=object)
        self._bad: set[bytes] = set()
        self.result = Exported()

    def run(self, roots: list[SourceRoot]) -> None:
        early = self._early()
        first = set(self._sources[early])
        for source in sorted(first):
            self._headers(root_member(root) for root in roots if root.source == source)
            self._headers(self._at(np.flatnonzero(early & (self._sources == source))))
        for row, member in self._members(self._files_in_order()):
            self._file(row, member)
        others = np.isin(self._kinds, ["symlink", "fifo", "char", "block"])
        self._headers(self._at(np.flatnonzero(others & ~early)))
        self._headers(self._sound_links())
        self._headers(self._at(np.flatnonzero((self._kinds == "dir") & ~early)[::-1]))
        late = (set(self._sources) or {root.source for root in roots}) - first
        self._headers(root_member(root) for root in roots if root.source in late)
        self._write(tar.END)
        self.result.damaged = sorted(key.decode("utf-8", "replace") for key in self._bad)

    def _early(self) -> Any:
        """Return which rows are symbolic links that lead elsewhere, or folders above one."""
        targets = self._rows.column("link_target")
        leads = pc.fill_null(pc.match_substring_regex(targets, _ELSEWHERE), False).to_numpy()
        early = leads & (self._kinds == "symlink")
        above: set[bytes] = set()
        for name in table_keys(self._rows.filter(pa.array(early))):
            folder = name.rpartition(b"/")[0]
            while folder not in above and b"/" in folder:
                above.add(folder)
                folder = folder.rpartition(b"/")[0]
        folders = np.flatnonzero(self._kinds == "dir") if above else np.empty(0, np.int64)
        for start in range(0, len(folders), _PAGE):
            page = folders[start : start + _PAGE]
            names = table_keys(self._rows.take(pa.array(page)))
            early[page] = [name in above for name in names]
        return early

    def _files_in_order(self) -> list[int]:
        """Return the rows of files, those that have data as it lies in the archives."""
        stored = self._files.rows
        return [*stored, *np.setdiff1d(np.flatnonzero(self._kinds == "file"), stored).tolist()]

    def _at(self, numbers: Any) -> Iterator[tar.Member]:
        return (member for _, member in self._members(numbers.tolist()))

    def _members(self, numbers: list[int]) -> Iterator[tuple[int, tar.Member]]:
        """Yield rows as members, making Python objects of a few at a time."""
        for start in range(0, len(numbers), _PAGE):
            page = numbers[start : start + _PAGE]
            yield from zip(page, _members(self._rows.take(pa.array(page))), strict=True)

    def _file(self, row: int, member: tar.Member) -> None:
        """Write one file, or nothing of it where a byte of it is wrong."""
        file = self._files.file(row)
        try:
            with self._out.checked() as out:
                out.write(_file_header(member, file))
                self._write_content(file, out)
        except FormatDamaged:
            self._bad.add(member.name)
            return
        self.result.entries += 1
        self.result.files += 1
        self.result.bytes += file.size

    def _write_content(self, file: StoredFile, out: IO[bytes]) -> None:
        size = 0
        for piece in self._data(file) if _is_sparse(file) else self._filled(file):
            size += out.write(piece)
        out.write(tar.padding(size))

    def _data(self, file: StoredFile) -> Iterator[memoryview]:
        """Yield what lies between the holes of a file, whose header tells of them."""
        for _, pieces in self._files.stretches(file):
            yield from pieces

    def _filled(self, file: StoredFile) -> Iterator[bytes | memoryview]:
        """Yield all of a file, with zeros for holes."""
        position = 0
        for offset, pieces in self._files.stretches(file):
            yield from zeros(offset - position)
            position = offset
            for piece in pieces:
                yield piece
                position += len(piece)
        yield from zeros(file.size - position)

    def _sound_links(self) -> Iterator[tar.Member]:
        """Yield hard links whose first name is in the tar."""
        numbers = np.flatnonzero(self._kinds == "hardlink").tolist()
        named = self._have_first_names(self._rows.take(pa.array(numbers, pa.int64())))
        for (_, member), is_named in zip(self._members(numbers), named, strict=True):
            if is_named and member.link_target not in self._bad:
                yield member
            else:
                self._bad.add(member.name)

    def _have_first_names(self, links: pa.Table) -> Any:
        """Return for every hard link whether what it names is selected and may have two names."""
        sources = links.column("source").cast(pa.string()).cast(pa.binary())
        targets = pc.binary_join_element_wise(sources, links.column("link_target"), b"/")
        found = np.zeros(links.num_rows, bool)
        for batch in self._rows.to_batches() if len(found) else ():
            firsts = pc.invert(pc.is_in(words(batch.column("type")), _NEVER_FIRST))
            hits = pc.is_in(targets, keys(batch).filter(firsts))
            found |= hits.to_numpy()
        return found

    def _headers(self, members: Iterable[tar.Member]) -> None:
        """Write members that have no content."""
        for member in members:
            self._write(_header(member))
            self.result.entries += 1

    def _write(self, blocks: bytes) -> None:
        with self._out.checked() as out:
            out.write(blocks)


def _members(rows: pa.Table) -> Iterator[tar.Member]:
    """Yield rows as members of a tar; raises FormatDamaged for names that lead elsewhere."""
    names = ("mode", "uid", "gid", "size", "link_target", "rdev")
    columns = {name: rows.column(name).to_pylist() for name in names}
    kinds, users, groups = (words_of(rows, name) for name in ("type", "user", "group"))
    times = [t for chunk in rows.column("mtime").chunks for t in integers(chunk).tolist()]
    xattrs = rows.column("xattrs").to_pylist()
    for i, name in enumerate(table_keys(rows)):
        target = columns["link_target"][i] or b""
        if kinds[i] == "hardlink":
            target = name.partition(b"/")[0] + b"/" + target
            _check_name(target)
        _check_name(name)
        yield tar.Member(
            name=name,
            kind=kinds[i],
            size=columns["size"][i],
            mode=columns["mode"][i],
            uid=columns["uid"][i],
            gid=columns["gid"][i],
            user=users[i] or "",
            group=groups[i] or "",
            mtime_ns=times[i],
            link_target=target,
            rdev=columns["rdev"][i] or 0,
            xattrs=named_attributes(xattrs[i]) or (),
        )


def _check_name(name: bytes) -> None:
    try:
        check_path(name)
    except UnsafePathError as error:
        raise FormatDamaged(
            file="the catalog", reason=f"it has the unsafe name {name!r}"
        ) from error


def _is_sparse(file: StoredFile) -> bool:
    """Whether a file has holes that a header can tell of: tar counts in whole blocks."""
    extents = file.extents()
    stored = sum(length for _, length in extents)
    return stored < file.size and not any(length % tar.BLOCK for _, length in extents[:-1])


def _file_header(member: tar.Member, file: StoredFile) -> bytes:
    if not _is_sparse(file):
        return _header(member)
    try:
        return tar.sparse_header(
            member.name,
            file.extents(),
            file.size,
            member.mode,
            member.uid,
            member.gid,
            member.user,
            member.group,
            member.mtime_ns,
            member.xattrs,
        )
    except ValueError as error:
        raise FormatDamaged(file="the catalog", reason=str(error)) from error


def _header(member: tar.Member) -> bytes:
    try:
        return tar.header(member)
    except ValueError as error:
        raise FormatDamaged(file="the catalog", reason=str(error)) from error
