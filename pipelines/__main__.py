"""Entry point: `cartridge` and `python -m pipelines`."""

from __future__ import annotations

import importlib
import sys

from pipelines.cli import app

COMMANDS = (
    "init",
    "label",
    "backup",
    "restore",
    "snapshots",
    "ls",
    "find",
    "diff",
    "cartridges",
    "status",
    "verify",
    "prune",
)


@app.callback()
def cartridge() -> None:
    """Back up large trees onto many smaller removable volumes."""


def main() -> None:
    """Run the command line; only the module of the command that is asked for is loaded."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        importlib.import_module(f"pipelines.{name}")
    app(prog_name="cartridge")


if __name__ == "__main__":
    main()
