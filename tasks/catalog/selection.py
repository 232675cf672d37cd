"""What a restore needs: the rows that patterns select, their contents, and where these lie."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.catalog.named import first_name, meant, rows_named
from tasks.catalog.queries import Spot
from tasks.catalog.rowgroups import row_groups, rows_at
from tasks.catalog.store import Store
from tasks.catalog.wholeness import torn
from tasks.formats.archive import ARCHIVE_NAME
from tasks.formats.manifest import SCHEMA, batches, digest_bytes, keys, raw_paths, words
from tasks.media.patterns import Selection
from tasks.model.errors import FormatDamaged, NothingSelected, UsageError

_NO_CONTENT = {"dir": "a folder", "symlink": "a symbolic link", "fifo": "a fifo"}
# One stretch of a file's content: `row` of the selection, `archive` as a number, `offset` in file.
NEED = np.dtype(
    [
        ("row", "<i8"),
        ("archive", "<i4"),
        ("frame", "<i8"),
        ("skip", "<i8"),
        ("length", "<i8"),
        ("offset", "<i8"),
        ("sha256", "S32"),
    ]
)


class Need(NamedTuple):
    """A stretch of content that is needed, as Python has it; `offset` is its place in the file."""

    row: int
    archive: int
    frame: int
    skip: int
    length: int
    offset: int
    sha256: bytes

    @classmethod
    def each(cls, needs: Any) -> Iterator[Need]:
        """Yield stretches; numpy's fixed strings have lost their trailing zero bytes."""
        for row, archive, frame, skip, length, offset, sha256 in needs.tolist():
            yield cls(row, archive, frame, skip, length, offset, sha256.ljust(32, b"\0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """How many files some archives give, if only in part, and how many bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Selected:
    """Rows of a manifest, in its order, and what their contents are made of.

    `needs` is sorted by archive and place; `archives` names them by number; `holders` says on which
    cartridges each lies: none where the catalog does not know, several where there are copies.
    `torn` are rows of which nothing is needed, since their parts do not make up the file.
    """

    snapshot: str
    rows: pa.Table
    needs: Any
    archives: list[str]
    holders: list[tuple[int, ...]]
    torn: frozenset[int] = frozenset()

    def portion(self, archives: Collection[int]) -> Portion:
        """Return what some archives, by number, give of what is needed."""
        mine = self.needs[np.isin(self.needs["archive"], list(archives))]
        return Portion(files=len(np.unique(mine["row"])), bytes=int(mine["length"].sum()))

    def without(self, rows: Collection[int]) -> Selected:
        """Return the same rows, of which some need no content any more."""
        return replace(self, needs=self.needs[~np.isin(self.needs["row"], list(rows))])


def select(store: Store, snapshot: str, patterns: Sequence[str]) -> Selected:
    """Choose the rows of a snapshot that patterns name, with the folders on the way to them.

    Raises NothingSelected where none does.
    """
    path = store.manifest_path(snapshot)
    chosen = _matching(path, Selection(patterns)) if patterns else batches(path)
    try:
        rows = pa.Table.from_batches(list(chosen), schema=SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        reason = f"its columns are not those of a manifest: {error}"
        raise FormatDamaged(file=path, reason=reason) from error
    if patterns and not rows.num_rows:
        raise NothingSelected(snapshot=snapshot, patterns=", ".join(patterns))
    if patterns:
        rows = _with_content_of_links(path, rows)
    return _located(store, snapshot, rows)


def pick(store: Store, snapshot: str, names: Collection[bytes]) -> Selected:
    """Choose files of a snapshot by their exact `<source>/<path>`.

    All their other names come with them, and the folders on the way.
    """
    path = store.manifest_path(snapshot)
    wanted = {*names, *_links_to(path, names)}
    wanted |= {folder for name in wanted for folder in _folders_above(name)}
    shown = {name.partition(b"/")[2].rstrip(b"/").decode("utf-8", "replace") for name in wanted}
    exact = pa.array(wanted, pa.binary())
    found = rows_at(path, pa.array(sorted(shown), pa.string()), SCHEMA.names)
    chosen = [rows.filter(pc.is_in(keys(rows), exact)) for rows in found]
    return _located(store, snapshot, pa.Table.from_batches(chosen, schema=SCHEMA))


def _links_to(path: str, names: Collection[bytes]) -> Iterator[bytes]:
    firsts = pa.array(names, pa.binary())
    for batch in batches(path, ["source", "path", "raw_path", "type", "link_target"]):
        links = batch.filter(pc.equal(words(batch.column("type")), "hardlink"))
        sources = words(links.column("source")).cast(pa.binary())
        targets = pc.binary_join_element_wise(sources, links.column("link_target"), b"/")
        yield from keys(links.filter(pc.is_in(targets, firsts))).to_pylist()


def _folders_above(name: bytes) -> Iterator[bytes]:
    """Yield the keys of the folders that a file lies in."""
    while b"/" in name:
        name = name.rpartition(b"/")[0]
        yield name + b"/"


def _located(store: Store, snapshot: str, rows: pa.Table) -> Selected:
    """Add what contents the rows need, and where these lie."""
    needs, archives = _needs(rows)
    wrong = [torn(batch) for batch in rows.to_batches()]
    broken = frozenset(np.flatnonzero(np.concatenate(wrong)).tolist() if wrong else ())
    found = Selected(snapshot, rows, needs, archives, holders_of(store, archives), broken)
    return found.without(broken) if broken else found


def holders_of(store: Store, archives: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the serials of the cartridges on which each archive lies; 0 is none."""
    found: dict[str, tuple[int, ...]] = {}
    for row in store.archives():
        if row.cartridge:
            found[row.archive] = (*found.get(row.archive, ()), row.cartridge)
    return [found.get(archive, ()) for archive in archives]


def select_file(store: Store, snapshot: str, path: str) -> Selected:
    """Choose the one row that has the content of a file; of a hard link, that of its first name.

    Raises NothingSelected where there is no such path, and UsageError where it means several files
    or something that has no content.
    """
    spot, manifest = Spot.of(path), store.manifest_path(snapshot)
    try:
        found = rows_named(manifest, spot, SCHEMA.names)
        row = found[meant(spot, set(found), [snapshot])]
        if words(row.column("type"))[0].as_py() == "hardlink":
            row = _first_name(manifest, row)
    except FileNotFoundError as error:
        raise NothingSelected(snapshot=snapshot, patterns=spot.shown) from error
    kind = words(row.column("type"))[0].as_py()
    if kind != "file":
        what = _NO_CONTENT.get(kind, "a device")
        raise UsageError(reason=f"'{spot.shown}' is {what}, which has no content to write out.")
    return _located(store, snapshot, pa.Table.from_batches([row], schema=SCHEMA))


def _first_name(manifest: str, link: pa.RecordBatch) -> pa.RecordBatch:
    source, target = words(link.column("source"))[0].as_py(), link.column("link_target")[0].as_py()
    found = first_name(manifest, source, target or b"", SCHEMA.names)
    if found is None:
        raise FormatDamaged(file=manifest, reason="a hard link in it names no file")
    return found


def _matching(path: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    above: list[tuple[bytes, pa.RecordBatch]] = []
    for batch in batches(path) if selection.places is None else _near(path, selection.places):
        sources = words(batch.column("source")).to_pylist()
        kinds = words(batch.column("type")).to_pylist()
        taken: list[int] = []
        for i, raw in enumerate(raw_paths(batch).to_pylist()):
            key = sources[i].encode() + b"/" + raw
            while above and not key.startswith(above[-1][0]):
                above.pop()
            if selection.selects(sources[i], raw, kinds[i] == "dir"):
                if above:
                    yield batch.take(pa.array(taken, pa.int64()))
                    taken = []
                    yield from (row for _, row in above)
                    above.clear()
                taken.append(i)
            elif kinds[i] == "dir":
                above.append((key + b"/", batch.slice(i, 1)))
        yield batch.take(pa.array(taken, pa.int64()))


def _near(path: str, places: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the rows that are shown at or below one of the places, or as a folder above it."""
    shown = {place.decode("utf-8", "replace") for place in places}
    shown |= {place.partition("/")[2] for place in shown}  # its first name may be the source's
    above = {parent for place in shown for parent in _and_above(place)}
    for group in row_groups(path):
        here = [place for place in shown if group.has_at_or_below(place)]
        if here or any(group.has_between(parent, parent) for parent in above):
            names = group.read(["path"]).column(0)
            hits = pc.is_in(names, pa.array(above, pa.string()))
            for place in here:
                hits = pc.or_(hits, pc.starts_with(names, place + "/"))
            index = np.flatnonzero(hits.to_numpy(zero_copy_only=False))
            if len(index):
                yield group.rows(index, SCHEMA.names)


def _and_above(place: str) -> Iterator[str]:
    while place:
        yield place
        place = place.rpartition("/")[0]


def _with_content_of_links(path: str, rows: pa.Table) -> pa.Table:
    """Where only further names of a file are selected, the first of these becomes the file."""
    wanted = _dangling(rows)
    if not wanted:
        return rows
    targets = rows.column("link_target").to_pylist()
    found = dict(_find(path, wanted))
    for lead, *others in wanted.values():
        name = table_keys(rows.slice(lead, 1))[0].partition(b"/")[2]
        for number in others:
            targets[number] = name
    rows = rows.set_column(
        rows.schema.get_field_index("link_target"),
        SCHEMA.field("link_target"),
        pa.array(targets, pa.binary()),
    )
    for target, (lead, *_) in wanted.items():
        if target not in found:
            raise FormatDamaged(file=path, reason="a hard link in it names no file")
        named = _renamed(found[target], rows.slice(lead, 1))
        rows = pa.concat_tables([rows.slice(0, lead), named, rows.slice(lead + 1)])
    return rows


def _dangling(rows: pa.Table) -> dict[bytes, list[int]]:
    """Return the first names that are not selected, with the rows that are links to them."""
    kinds = words_of(rows, "type")
    if "hardlink" not in kinds:
        return {}
    sources, targets = words_of(rows, "source"), rows.column("link_target").to_pylist()
    selected = set(table_keys(rows))
    wanted: dict[bytes, list[int]] = {}
    for number, kind in enumerate(kinds):
        if kind == "hardlink":
            first = sources[number].encode() + b"/" + targets[number]
            if first not in selected:
                wanted.setdefault(first, []).append(number)
    return wanted


def _renamed(first: pa.RecordBatch, link: pa.Table) -> pa.Table:
    """Give the row of a file the name that a link to it has."""
    columns = [
        link.column(f.name).combine_chunks()
        if f.name in ("source", "path", "raw_path")
        else first.column(f.name)
        for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def _find(path: str, wanted: dict[bytes, list[int]]) -> Iterator[tuple[bytes, pa.RecordBatch]]:
    targets = pa.array(list(wanted), pa.binary())
    shown = {target.partition(b"/")[2].decode("utf-8", "replace") for target in wanted}
    for batch in rows_at(path, pa.array(shown, pa.string()), SCHEMA.names):
        keyed = keys(batch)
        for index in np.flatnonzero(pc.is_in(keyed, targets).to_numpy(zero_copy_only=False)):
            yield keyed[int(index)].as_py(), batch.slice(int(index), 1)


def words_of(rows: pa.Table, name: str) -> list[str]:
    """Return a column of words as Python strings."""
    return rows.column(name).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def table_keys(rows: pa.Table) -> list[bytes]:
    """Return the key of every row, without the slash behind folders."""
    found: list[bytes] = []
    for batch in rows.to_batches():
        sources = words(batch.column("source")).to_pylist()
        raw = raw_paths(batch).to_pylist()
        found += [s.encode() + b"/" + r for s, r in zip(sources, raw, strict=True)]
    return found


def _needs(rows: pa.Table) -> tuple[Any, list[str]]:
    """Flatten the parts of all rows, sorted by archive and place."""
    pieces, base = [np.empty(0, NEED)], 0
    codes: dict[str, int] = {}
    for batch in rows.to_batches():
        pieces.append(_batch_needs(batch, base, codes))
        base += batch.num_rows
    needs = np.concatenate(pieces)
    names = sorted(codes)
    check_names(names)
    rank = {name: number for number, name in enumerate(names)}
    order = np.array([rank[name] for name in codes], np.int32)
    if len(needs):
        needs["archive"] = order[needs["archive"]]
    return needs[np.lexsort((needs["skip"], needs["frame"], needs["archive"]))], names


def check_names(names: Sequence[str]) -> None:
    """Raise FormatDamaged where a manifest names an archive as none is called."""
    for name in names:
        if not ARCHIVE_NAME.fullmatch(name):
            raise FormatDamaged(file="the manifest", reason=f"{name!r} is no name of an archive")


def _batch_needs(batch: pa.RecordBatch, base: int, codes: dict[str, int]) -> Any:
    column = batch.column("parts")
    parts = pc.list_flatten(column)
    rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    if not len(parts):
        return np.empty(0, NEED)
    lengths = parts.field("length").to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    firsts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    starts = (ends - lengths)[firsts]
    offsets = ends - lengths - np.repeat(starts, np.diff(np.r_[firsts, len(rows)]))
    encoded = parts.field("archive").dictionary_encode()
    local = [codes.setdefault(name, len(codes)) for name in encoded.dictionary.to_pylist()]
    data = encoded.is_valid().to_numpy(zero_copy_only=False)
    found = np.empty(int(data.sum()), NEED)
    index = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)[data]
    found["row"] = rows[data] + base
    found["archive"] = np.array(local, np.int32)[index]
    for name in ("frame", "skip"):
        values = pc.fill_null(parts.field(name), 0).to_numpy(zero_copy_only=False)
        found[name] = values[data]
    found["length"], found["offset"] = lengths[data], offsets[data]
    found["sha256"] = digest_bytes(parts.field("sha256").filter(pa.array(data))).view("S32")
    return found
