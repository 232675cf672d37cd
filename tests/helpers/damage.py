"""What happens to bytes at rest: one damage of each kind, done to a file on a cartridge."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 512

# Damages a file, given some luck; returns the files that are not what they were.
Damage = Callable[[Path, random.Random], list[Path]]


def flip_a_bit(file: Path, chance: random.Random) -> list[Path]:
    """Turn one bit over."""
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return [file]


def zero_a_block(file: Path, chance: random.Random) -> list[Path]:
    """Lose a sector, or all of a file that is shorter."""
    data = bytearray(file.read_bytes())
    while data == file.read_bytes():
        start = chance.randrange(0, len(data), BLOCK)
        stop = min(start + BLOCK, len(data))
        data[start:stop] = bytes(stop - start)
    file.write_bytes(data)
    return [file]


def truncate(file: Path, chance: random.Random) -> list[Path]:
    """Cut the end off."""
    os.truncate(file, chance.randrange(file.stat().st_size))
    return [file]


def truncate_to_lines(file: Path, chance: random.Random) -> list[Path]:
    """Cut the end off where a line ends, as a lost sector of a list may."""
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: chance.randrange(len(lines))]))
    return [file]


def empty(file: Path, chance: random.Random) -> list[Path]:
    """Leave a name without content, as a crash of a file system does."""
    os.truncate(file, 0)
    return [file]


def delete(file: Path, chance: random.Random) -> list[Path]:
    """Remove it."""
    file.unlink()
    return [file]


def swap(file: Path, chance: random.Random) -> list[Path]:
    """Let it change places with another file of the same kind, else with any."""
    top = next(above for above in file.parents if above.name.startswith("c") and _is_top(above))
    others = sorted(p for p in top.rglob("*") if p.is_file() and p != file)
    alike = [p for p in others if p.suffixes == file.suffixes and p.parent.parent != top]
    other = chance.choice([p for p in alike if p.name[0].isdigit()] or others)
    aside = file.with_name("aside")
    file.rename(aside)
    other.rename(file)
    aside.rename(other)
    return [file, other]


def _is_top(folder: Path) -> bool:
    return (folder / "SHA256SUMS").exists()


DAMAGES: dict[str, Damage] = {
    "bit": flip_a_bit,
    "block": zero_a_block,
    "cut": truncate,
    "empty": empty,
    "gone": delete,
    "swapped": swap,
}


@contextmanager
def put_back(*folders: Path) -> Iterator[None]:
    """Let folders be damaged while the block runs; after it they are as before."""
    copies = [(folder, folder.with_name(f".{folder.name}-sound")) for folder in folders]
    for folder, copy in copies:
        shutil.copytree(folder, copy, symlinks=True)
    try:
        yield
    finally:
        for folder, copy in copies:
            shutil.rmtree(folder)
            copy.rename(folder)
