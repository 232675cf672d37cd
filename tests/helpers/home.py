"""A profile `home` over one source, with its cartridges, and what its unfinished run has left."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.helpers.program import Program


class Home(NamedTuple):
    """The base of what tests of runs that stop have at hand."""

    program: Program
    source: Path
    cartridges: list[Path]

    @property
    def state(self) -> Path:
        """The profile's folder in the workspace."""
        return self.program.workspace / "state" / "home"

    def left(self, pattern: str) -> Callable[[], bool]:
        """Whether the unfinished run has left a file."""
        return lambda: any(self.state.glob(f"runs/*/{pattern}"))

    def states(self) -> dict[int, str]:
        """Return the states of the cartridges, by serial."""
        rows = self.program.json("cartridges", "home")["cartridges"]
        return {row["serial"]: row["state"] for row in rows}
