"""Power cuts: what a disk holds when only some of what was not flushed has got there.

The preloaded library records every call of a run that changes files. Of these, a disk surely has
what a later `fsync` of the file, or for names of their folder, has covered; all else may be lost,
or arrive before what was written earlier. Source: T. Pillai et al., "All File Systems Are Not
Created Equal: On the Complexity of Crafting Crash-Consistent Applications", OSDI 2014.
"""

import dataclasses
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

_HEAD = struct.Struct("<IIIIQQQQ")
# In the order of the library.
_KINDS = (
    *("open", "write", "sync", "rename", "mkdir", "unlink", "truncate", "rmdir", "create"),
    "link",
)
_FOLDER = 1 << 31

Change = TypeVar("Change")
# Chooses which of the changes that were not flushed have got to the disk.
Fate = Callable[[list[Change]], list[Change]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that changed something; `inode` is 0 where only names count."""

    kind: str
    inode: int
    is_folder: bool
    offset: int
    path: str
    other: str
    data: bytes


@dataclasses.dataclass(slots=True)
class File:
    """Content that is flushed, and writes that are not: an offset and bytes, or None to cut."""

    data: bytearray
    pending: list[tuple[int, bytes | None]] = dataclasses.field(default_factory=list)

    def flush(self) -> None:
        self.data = self.surviving(lambda changes: changes)
        self.pending.clear()

    def surviving(self, fate: Fate[tuple[int, bytes | None]]) -> bytearray:
        data = bytearray(self.data)
        for offset, written in fate(self.pending):
            if written is None:
                data = data[:offset].ljust(offset, b"\0")
            else:
                data = data.ljust(offset, b"\0")
                data[offset : offset + len(written)] = written
        return data


@dataclasses.dataclass(slots=True)
class Folder:
    """Names that are flushed, changes to names that are not, and both together."""

    flushed: dict[str, "File | Folder"] = dataclasses.field(default_factory=dict)
    pending: list[dict[str, "File | Folder | None"]] = dataclasses.field(default_factory=list)
    now: dict[str, "File | Folder"] = dataclasses.field(default_factory=dict)

    def change(self, names: dict[str, "File | Folder | None"]) -> None:
        """Change names, all at once: a rename takes one and gives another."""
        self.pending.append(names)
        _apply(self.now, names)

    def flush(self) -> None:
        self.flushed = self.surviving(lambda changes: changes)
        self.pending.clear()

    def surviving(
        self, fate: "Fate[dict[str, File | Folder | None]]"
    ) -> "dict[str, File | Folder]":
        names = dict(self.flushed)
        for change in fate(self.pending):
            _apply(names, change)
        return names


def _apply(names: dict[str, "File | Folder"], change: dict[str, "File | Folder | None"]) -> None:
    for name, found in change.items():
        if found is None:
            names.pop(name, None)
        else:
            names[name] = found


class Disk:
    """A tree as it lies on a disk whose power may be cut after any call."""

    def __init__(self, root: Path) -> None:
        """Take over what is there now, all of it flushed."""
        self._root = root
        self._inodes: dict[int, File] = {}
        self._top = self._read(root)

    def _read(self, path: Path) -> Folder:
        found = Folder()
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                found.now[entry.name] = self._read(Path(entry.path))
            else:
                content = File(bytearray(Path(entry.path).read_bytes()))
                found.now[entry.name] = self._inodes[entry.inode()] = content
        found.flushed = dict(found.now)
        return found

    def apply(self, call: Call) -> None:
        """Do what a call did."""
        parent, name = self._folder(os.path.dirname(call.path)), os.path.basename(call.path)
        match call.kind:
            case "create":
                self._inodes[call.inode] = File(bytearray())
                parent.change({name: self._inodes[call.inode]})
            case "write":
                self._inodes[call.inode].pending.append((call.offset, call.data))
            case "truncate":
                self._inodes[call.inode].pending.append((call.offset, None))
            case "sync" if call.is_folder:
                self._folder(call.path).flush()
            case "sync":
                self._inodes[call.inode].flush()
            case "mkdir":
                parent.change({name: Folder()})
            case "unlink" | "rmdir":
                parent.change({name: None})
            case "link":
                there = self._folder(os.path.dirname(call.other))
                there.change({os.path.basename(call.other): parent.now[name]})
            case "rename":
                assert os.path.dirname(call.other) == os.path.dirname(call.path), call
                parent.change({name: None, os.path.basename(call.other): parent.now[name]})

    def _folder(self, path: str) -> Folder:
        found = self._top
        for name in Path(path).relative_to(self._root).parts:
            inner = found.now[name]
            assert isinstance(inner, Folder), path
            found = inner
        return found

    def cut(
        self, names: Fate[dict[str, File | Folder | None]], data: Fate[tuple[int, bytes | None]]
    ) -> None:
        """Leave at the root what a disk has after the power was cut."""
        shutil.rmtree(self._root)
        self._write(self._root, self._top, names, data)

    def _write(
        self,
        path: Path,
        folder: Folder,
        names: Fate[dict[str, File | Folder | None]],
        data: Fate[tuple[int, bytes | None]],
    ) -> None:
        path.mkdir()
        for name, found in folder.surviving(names).items():
            if isinstance(found, Folder):
                self._write(path / name, found, names, data)
            else:
                (path / name).write_bytes(found.surviving(data))


def nothing(changes: list[Change]) -> list[Change]:
    """Lose all that was not flushed."""
    return []


def everything(changes: list[Change]) -> list[Change]:
    """Lose nothing."""
    return changes


def some(seed: int) -> Fate[Change]:
    """Lose every other change, wherever it is in the row."""
    chance = random.Random(seed)
    return lambda changes: [change for change in changes if chance.random() < 0.5]


def calls(log: Path) -> Iterator[Call]:
    """Read what the library recorded, in the order in which it happened."""
    with log.open("rb") as file:
        while head := file.read(_HEAD.size):
            kind, first, second, flags, inode, _device, offset, size = _HEAD.unpack(head)
            is_write = _KINDS[kind] == "write"
            path, other = file.read(first), file.read(second)
            yield Call(
                kind=_KINDS[kind],
                inode=inode,
                is_folder=bool(flags & _FOLDER),
                offset=offset,
                path=os.fsdecode(path).removesuffix(" (deleted)"),
                other=os.fsdecode(other),
                data=file.read(size) if is_write else b"",
            )
