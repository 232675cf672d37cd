"""`cartridge schedule`: the systemd timer, or the line for cron, that runs a backup by itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from pipelines.cli import Debug, Json, Workspace, app, finish
from pipelines.report import Voice
from pipelines.workspace import find_workspace, load_profile
from tasks.media import durable
from tasks.model.errors import StageFailed, UsageError
from tasks.model.profile import NAME

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_SERVICE = """\
# {mark}
[Unit]
Description=Backup of the profile {name} with cartridge

[Service]
Type=oneshot
{folder}ExecStart={command}
# 3: some files could not be read; 4: a cartridge has to be inserted
SuccessExitStatus=3 4
Nice=19
IOSchedulingClass=idle
"""
_TIMER = """\
# {mark}
[Unit]
Description=Times of the backup of the profile {name} with cartridge

[Timer]
OnCalendar={calendar}
Persistent=true
RandomizedDelaySec=60

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True, slots=True)
class Times:
    """When to run: as systemd's OnCalendar, and as cron's five fields where these can say it."""

    calendar: str
    cron: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """A backup as a command with absolute paths; `folder` is where it must start, if anywhere."""

    program: tuple[str, ...]
    arguments: tuple[str, ...]
    folder: str | None


@app.command(epilog="Example: cartridge schedule home --weekly 'Mon 03:00' --install")
def schedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The profile.")],
    daily: Annotated[
        str | None, typer.Option("--daily", metavar="HH:MM", help="Each day; else at 03:00.")
    ] = None,
    weekly: Annotated[
        str | None, typer.Option("--weekly", metavar="'DAY HH:MM'", help="Such as 'Mon 03:00'.")
    ] = None,
    calendar: Annotated[
        str | None, typer.Option("--calendar", metavar="EXPR", help="As in man systemd.time.")
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="Write it and switch it on.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="A line for cron, not systemd.")] = False,
    workspace: Workspace = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print or install what backs a profile up by itself: a systemd timer or a line for cron."""
    voice = Voice(json)
    folder = find_workspace(workspace)

    def action() -> None:
        if not NAME.fullmatch(name):
            raise UsageError(reason=f"'{name}' is no name for a profile; use letters and digits.")
        times = times_of(daily, weekly, calendar)
        load_profile(folder, name)
        if cron:
            _with_cron(voice, name, times, call_of(name, folder), install=install)
        else:
            units = units_of(name, folder, times, call_of(name, folder))
            _with_systemd(voice, name, units, install=install)

    finish(voice, action)


def times_of(daily: str | None, weekly: str | None, calendar: str | None) -> Times:
    """Read when to run, daily at 03:00 where nothing is said; UsageError where it is no time."""
    if sum(given is not None for given in (daily, weekly, calendar)) > 1:
        raise UsageError(reason="Give one of --daily, --weekly and --calendar.")
    if calendar is not None:
        return Times(_checked(calendar), None)
    if weekly is not None:
        day, _, time = weekly.strip().partition(" ")
        number = next((n for n, d in enumerate(_DAYS) if day.lower() in (d, d[:3])), None)
        clock = _TIME.fullmatch(time.strip())
        if number is None or clock is None:
            raise UsageError(reason=f"--weekly '{weekly}' is no time; write it like 'Mon 03:00'.")
        return _times(clock, f"{_DAYS[number][:3].title()} ", str(number))
    clock = _TIME.fullmatch((daily or "03:00").strip()) if daily != "" else None
    if clock is None:
        raise UsageError(reason=f"--daily '{daily}' is no time; write it like 03:00 or 18:30.")
    return _times(clock, "", "*")


def _times(clock: re.Match[str], day: str, weekday: str) -> Times:
    hour, minute = int(clock[1]), int(clock[2])
    return Times(f"{day}*-*-* {hour:02}:{minute:02}:00", f"{minute} {hour} * * {weekday}")


def _checked(calendar: str) -> str:
    """Have systemd check a calendar expression, where it is installed."""
    right = "write it like 'Mon..Fri 03:00' (see man systemd.time)"
    if not calendar.strip() or "%" in calendar or _CONTROL.search(calendar):
        raise UsageError(reason=f"--calendar {calendar!a} is no time; {right}.")
    if shutil.which("systemd-analyze"):
        done = _run("systemd-analyze", "calendar", "--", calendar)
        if done.returncode != 0:
            raise UsageError(reason=f"--calendar '{calendar}' is no time for systemd; {right}.")
        if "elapse: never" in done.stdout:
            raise UsageError(reason=f"--calendar '{calendar}' never comes again; {right}.")
    return calendar.strip()


def call_of(name: str, workspace: str) -> Call:
    """Return the command of a backup; it needs neither PATH nor a current folder."""
    script = os.path.join(os.path.dirname(sys.executable), "cartridge")
    program: tuple[str, ...] = (script,)
    folder = None
    if not os.access(script, os.X_OK):
        program = (sys.executable, "-m", "pipelines")
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    arguments = ("backup", name, "--batch", "--workspace", workspace)
    for text in (*program, workspace, folder or ""):
        if _CONTROL.search(text):
            raise UsageError(reason=f"{text!a} cannot stand in a timer; rename that folder.")
    return Call(program, arguments, folder)


# ---- systemd


def units_of(name: str, workspace: str, times: Times, call: Call) -> dict[str, str]:
    """Write the service and the timer of a profile, by their file names."""
    mark = f"Written by 'cartridge schedule' for the workspace {workspace}: it may write it anew."
    first, *others = call.program
    words = [_unit_word(first)]
    words += [_unit_word(word).replace("$", "$$") for word in (*others, *call.arguments)]
    start = f"WorkingDirectory={call.folder.replace('%', '%%')}\n" if call.folder else ""
    service = _SERVICE.format(mark=mark, name=name, folder=start, command=" ".join(words))
    timer = _TIMER.format(mark=mark, name=name, calendar=times.calendar)
    return {f"cartridge-{name}.service": service, f"cartridge-{name}.timer": timer}


def _unit_word(text: str) -> str:
    """Quote a word of a command as systemd reads it; `$` is left to the caller."""
    if re.fullmatch(r"[A-Za-z0-9/._+,:=@-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _with_systemd(voice: Voice, name: str, units: dict[str, str], *, install: bool) -> None:
    service, timer = units
    facts = {"profile": name, "service": units[service], "timer": units[timer]}
    if not install:
        told = [line for unit, text in units.items() for line in (f"# {unit}", text)]
        told.append("# --install writes these files and switches the timer on.")
        voice.result({**facts, "installed": []}, told)
        return
    written = _write(units)
    left = _switch_on(timer)
    told = [f"Wrote {path}." for path in written]
    told += ["To switch the timer on, run:", *left] if left else [f"{timer} is on."]
    if os.geteuid() != 0:
        told.append("It runs while you are logged in; always after 'loginctl enable-linger'.")
    voice.result({**facts, "installed": written, "commands": left}, told)


def _write(units: dict[str, str]) -> list[str]:
    """Write units where systemd looks for them; those of somebody else are never replaced."""
    folder = _unit_folder()
    paths = {os.path.join(folder, unit): text for unit, text in units.items()}
    try:
        os.makedirs(folder, exist_ok=True)
        for path, text in paths.items():
            if os.path.exists(path) and _first_line(path) != text.partition("\n")[0].encode():
                raise UsageError(
                    reason=f"{path} is there already, and not from 'cartridge schedule' for this "
                    "workspace; remove it, or name the profile otherwise."
                )
        for path, text in paths.items():
            durable.write_whole(path, text.encode())
    except OSError as error:
        reason = f"{error.filename or folder} cannot be written: {error.strerror}."
        raise StageFailed(stage="schedule --install", reason=reason) from error
    return list(paths)


def _first_line(path: str) -> bytes:
    return durable.read_whole(path).partition(b"\n")[0]


def _unit_folder() -> str:
    if os.geteuid() == 0:
        return "/etc/systemd/system"
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(os.path.abspath(config), "systemd", "user")


def _switch_on(timer: str) -> list[str]:
    """Switch a timer on; return the commands that are still to be run where that cannot be."""
    systemctl = ["systemctl"] if os.geteuid() == 0 else ["systemctl", "--user"]
    commands = [[*systemctl, "daemon-reload"], [*systemctl, "enable", "--now", timer]]
    while commands and _run(*commands[0]).returncode == 0:
        del commands[0]
    return [shlex.join(command) for command in commands]


# ---- cron


def _with_cron(voice: Voice, name: str, times: Times, call: Call, *, install: bool) -> None:
    if times.cron is None:
        raise UsageError(reason="--calendar is for systemd; with --cron give --daily or --weekly.")
    what = _cron_words(call.arguments)
    start = f"cd {_cron_words([call.folder])} && " if call.folder else ""
    line = f"{times.cron} {start}{_cron_words(call.program)} {what}"
    told = [line]
    if install:
        _into_crontab(line, what)
        told = ["The crontab now has this line:", line]
    facts = {"profile": name, "cron": line, "installed": ["crontab"] if install else []}
    voice.result(facts, told)


def _cron_words(words: Sequence[str]) -> str:
    """Quote words for the shell, behind cron: to that a bare % is the end of the line.

    It takes the backslash before a % away; one that was there before needs a gap between the two.
    """
    quoted = shlex.join(words)
    return re.sub(r"\\?%", lambda found: "\\''\\%" if len(found[0]) > 1 else "\\%", quoted)


def _into_crontab(line: str, what: str) -> None:
    """Put a line into the user's crontab, in place of older ones that run the same backup."""
    if shutil.which("crontab") is None:
        raise UsageError(
            reason="There is no 'crontab' here; without --cron this makes a timer of systemd."
        )
    found = _run("crontab", "-l")
    if found.returncode != 0 and not re.search(r"no crontab|no such file", found.stderr.lower()):
        raise StageFailed(stage="crontab -l", reason=found.stderr.strip())
    kept = [old for old in found.stdout.splitlines() if not _runs(old, what)]
    done = _run("crontab", "-", given="\n".join([*kept, line, ""]))
    if done.returncode != 0:
        raise StageFailed(stage="crontab", reason=done.stderr.strip())


def _runs(line: str, what: str) -> bool:
    """Whether a line of a crontab runs a backup; one that is commented out runs nothing."""
    return f" {what} " in f"{line} " and not line.lstrip().startswith("#")


def _run(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the system; where there is none, it is as if it had failed."""
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: {error.strerror}")
