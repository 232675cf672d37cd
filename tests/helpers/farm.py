"""A backup of everything odd over several cartridges, which many tests look at."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.helpers.compare import snapshot_of
from tests.helpers.media import fill
from tests.helpers.program import Medium, Program
from tests.helpers.trees import funny_farm

Row = dict[str, Any]


class Farm:
    """A funny farm and 24 MB of random files, backed up over several small cartridges."""

    def __init__(self, directory: Path) -> None:
        self.program = Program(directory / "program")
        self.source = directory / "farm"
        funny_farm(self.source, sockets=True)
        fill(self.source / "filler", files=48, size=500_000)
        self.cartridges = [directory / "media" / f"c{number}" for number in range(1, 9)]
        for cartridge in self.cartridges:
            cartridge.mkdir(parents=True)
        self.facts = snapshot_of(self.source)
        self.program.init("home", [self.source], self.cartridges, capacity="8MB")
        self.outcome = self.program.backup("home")

    @property
    def written(self) -> list[Medium]:
        """The cartridges that hold archives, in the order of their serial numbers."""
        media = (Medium(path=path) for path in self.cartridges)
        return sorted((m for m in media if m.archives), key=lambda m: int(m.label["serial"]))

    @property
    def manifest(self) -> Path:
        return self.written[-1].manifest(self.outcome["snapshot"])

    @property
    def rows(self) -> list[Row]:
        # as plain Python: times before 1970 and beyond 2262 mean nothing to what is asked here
        table = pq.read_table(self.manifest).drop_columns(["mtime", "ctime", "xattrs"])
        rows: list[Row] = table.to_pylist()
        return rows
