"""The command line, gathered from the commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from pipelines import __version__
from pipelines.report import Voice
from tasks.model.errors import CartridgeError, Interrupted, StageFailed, UsageError

Workspace = Annotated[
    str | None,
    typer.Option("--workspace", metavar="DIR", help="Where profiles and catalogs live."),
]
Snapshot = Annotated[
    str | None, typer.Option("--snapshot", metavar="ID", help="Not the newest one.")
]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="The newest one not later.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", hidden=True)]

app = typer.Typer(
    name="cartridge",
    help="Back up large trees onto many smaller removable volumes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


# Commands whose standard output is content.
_CONTENT = ("cat", "export")

# From an error to what is known of the work that it ended.
Facts = Callable[[CartridgeError], dict[str, Any]]


def _nothing(error: CartridgeError) -> dict[str, Any]:
    return {}


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"cartridge {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
]


@app.callback()
def cartridge(_version: Version = False) -> None:
    """Back up large trees onto many smaller removable volumes."""


# Click's own error for wrong words; the name under which typer has it is not always the same.
_WRONG_WORDS = cast("type[Exception]", typer.BadParameter.__base__)


def run_for_machines(command: typer.Typer) -> int:
    """Run the command line, and tell wrong words as JSON too; return the exit code."""
    try:
        return command(prog_name="cartridge", standalone_mode=False) or 0
    except _WRONG_WORDS as error:
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        wrong = UsageError(reason=said)
        Voice(json=True, aside=sys.argv[1] in _CONTENT).error(wrong)
        return wrong.exit_code


def finish(voice: Voice, action: Callable[[], int | None], facts: Facts = _nothing) -> None:
    """Run a command's action and leave with its exit code; errors become sentences.

    `facts` gives what the JSON of an error has besides the error itself.
    """
    try:
        code = action() or 0
    except CartridgeError as error:
        _debug(error)
        error = _interruption(error) or error
        voice.error(error, _known(facts, error))
        code = error.exit_code
    except KeyboardInterrupt:
        interrupted = Interrupted()
        voice.error(interrupted, _known(facts, interrupted))
        code = interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:  # what nobody foresaw is still told in a sentence
        if debugging():
            raise
        unforeseen = _interruption(error) or StageFailed.from_error("cartridge", error)
        voice.error(unforeseen, _known(facts, unforeseen))
        code = unforeseen.exit_code
    raise typer.Exit(code)


def _interruption(error: BaseException | None) -> Interrupted | None:
    """Return that it was interrupted where an error came of stopping: of what was half done."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return Interrupted()
        error = error.__context__
    return None


def _known(facts: Facts, error: CartridgeError) -> dict[str, Any]:
    """Return what is known besides the error, which a broken run folder must not hide."""
    try:
        return facts(error)
    except (OSError, CartridgeError):
        return {}


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return "--debug" in sys.argv or bool(os.environ.get("CARTRIDGE_DEBUG"))


def _debug(error: CartridgeError) -> None:
    if debugging():
        import traceback

        traceback.print_exception(error)
