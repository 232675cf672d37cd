"""News of a run for people who do not watch it, through Apprise."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from pipelines.report import complain
from tasks.model.errors import UsageError
from tasks.model.profile import Notify


def check(wanted: Notify) -> None:
    """Raise UsageError where news is wanted that could not be sent; nothing is sent yet."""
    if wanted.is_empty:
        return
    try:
        import apprise
    except ImportError:
        raise UsageError(
            reason="[notify] needs Apprise: pip install 'cartridge-backup[notify]'."
        ) from None
    for number, url in enumerate(_urls(wanted), 1):
        if apprise.Apprise.instantiate(url) is None:
            raise UsageError(
                reason=f"[notify]: address number {number} is none that Apprise knows."
            )


def send(wanted: Notify, event: str, title: str, body: str) -> None:
    """Send news where the profile asks for this event; a failure is said, and changes nothing.

    Addresses hold passwords: no message names one.
    """
    if wanted.is_empty or event not in wanted.events:
        return
    import apprise

    courier: Any = apprise.Apprise()
    kinds = {"done": apprise.NotifyType.SUCCESS, "trouble": apprise.NotifyType.FAILURE}
    try:
        for url in _urls(wanted):
            courier.add(url)
        kind = kinds.get(event, apprise.NotifyType.WARNING)
        sent = courier.notify(title=title, body=body, notify_type=kind)
    except (UsageError, OSError):
        sent = False
    if not sent:
        complain(f"The news '{event}' could not be sent to every address of [notify].")


def _urls(wanted: Notify) -> list[str]:
    """Collect the addresses; those that are secret come from outside of the profile."""
    found = list(wanted.urls)
    if wanted.urls_env:
        found += os.environ.get(wanted.urls_env, "").split()
    if wanted.urls_file:
        try:
            with open(os.path.expanduser(wanted.urls_file), encoding="utf-8") as file:
                found += file.read().split()
        except OSError as error:
            reason = f"[notify] urls_file cannot be read: {error.strerror}."
            raise UsageError(reason=reason) from None
    if wanted.urls_command:
        done = subprocess.run(wanted.urls_command, shell=True, check=False, capture_output=True)
        if done.returncode:
            raise UsageError(reason=f"[notify] urls_command ended with code {done.returncode}.")
        found += done.stdout.decode("utf-8", "replace").split()
    if not found:
        raise UsageError(reason="[notify] names no address; set urls, urls_env or urls_file.")
    return found
