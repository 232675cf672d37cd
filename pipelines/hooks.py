"""Hooks: commands of the profile that run before and after a backup, with the facts of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pipelines.report import complain
from tasks.media.processes import signals_held
from tasks.model.errors import HookFailed

# Seconds that hooks get after an interruption: who stops a run does not want to wait.
_HURRY = 5.0


def run_hooks(commands: Sequence[str], event: str, facts: Mapping[str, object]) -> None:
    """Run commands through the shell, one after the other; HookFailed where one fails.

    They get the facts as JSON on standard input and, as far as these are plain values, in variables
    `CARTRIDGE_<FACT>`; what they print goes to standard error.
    """
    known = {"event": event, **facts}
    plain = {k: v for k, v in known.items() if isinstance(v, str | int | float)}
    variables = {f"CARTRIDGE_{key.upper()}": str(value) for key, value in plain.items()}
    for command in commands:
        hook = None
        try:
            with signals_held():  # else one that comes just now would leave it running
                hook = subprocess.Popen(
                    command,
                    shell=True,
                    stdin=subprocess.PIPE,
                    stdout=sys.stderr.fileno(),
                    env={**os.environ, **variables},
                    start_new_session=True,
                )
            hurry = _HURRY if facts.get("error") == "Interrupted" else None
            hook.communicate(json.dumps(known).encode(), timeout=hurry)
        except subprocess.TimeoutExpired as error:
            raise HookFailed(event=event, command=command, reason="it took too long") from error
        finally:
            if hook is not None and hook.poll() is None:  # with all that the shell has started
                os.killpg(hook.pid, signal.SIGKILL)
                hook.wait()
        if hook.returncode:
            reason = f"it ended with code {hook.returncode}"
            raise HookFailed(event=event, command=command, reason=reason)


def try_hooks(commands: Sequence[str], event: str, facts: Mapping[str, object]) -> bool:
    """Run hooks whose failure is said and changes nothing any more; return whether none failed."""
    try:
        run_hooks(commands, event, facts)
    except HookFailed as error:
        complain(str(error))
        return False
    return True
