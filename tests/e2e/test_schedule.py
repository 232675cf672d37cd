"""Backups that run by themselves: units that systemd takes, lines that cron takes."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.schedule import times_of
from tasks.model.errors import UsageError
from tests.helpers.program import REPOSITORY, Program

MakeCartridges = Callable[[int], list[Path]]
ODD = '50%% off\'s "new" $HOME \\100% säge'


@pytest.fixture
def home(program: Program, source: Path, cartridges: MakeCartridges) -> Program:
    """A program with a profile named home."""
    return with_profile(program, source, cartridges(1)[0])


def with_profile(program: Program, source: Path, cartridge: Path) -> Program:
    (source / "letter.txt").write_text("Dear reader,\n")
    program.init("home", [source], [cartridge])
    return program


def prepared(program: Program, commons: Path) -> Program:
    source, cartridge = commons / "source", commons / "c1"
    for folder in (source, cartridge):
        folder.mkdir()
        folder.chmod(0o777)
    return with_profile(program, source, cartridge)


def oddly_named(program: Program) -> Program:
    """Move the workspace to a folder with every character that units and crontabs treat."""
    place = program.directory / ODD
    program.workspace.rename(place)
    program.workspace = place
    program.env["CARTRIDGE_WORKSPACE"] = str(place)
    return program


def has_run(program: Program) -> bool:
    return len(program.snapshots("home")) == 1


def run_bare(argv: list[str], folder: str = "/") -> None:
    """Run a command as a daemon would: elsewhere, with next to no environment."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8"}
    subprocess.run(argv, cwd=folder, env=env, check=True, capture_output=True, timeout=60)


# ---- systemd


def needs(tool: str) -> str:
    found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/lib/systemd:/lib/systemd")
    if not found:
        pytest.skip(f"{tool} is not installed")
    return found


def check_units(folder: Path, tmp_path: Path) -> None:
    """Have systemd read the units; it must have nothing to say about them."""
    command: list[str | Path] = [needs("systemd-analyze"), "verify", *folder.glob("cartridge-*")]
    (tmp_path / "run").mkdir(exist_ok=True)
    env = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "LC_ALL": "C"}
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("odd", [False, True])
def test_systemd_takes_the_units_as_they_are(home: Program, tmp_path: Path, odd: bool) -> None:
    found = (oddly_named(home) if odd else home).json("schedule", "home")
    folder = tmp_path / "units"
    folder.mkdir()
    for kind in ("service", "timer"):
        (folder / f"cartridge-home.{kind}").write_text(found[kind])
    check_units(folder, tmp_path)
    assert found["profile"] == "home"
    assert found["installed"] == []


def test_the_service_counts_a_wait_as_no_failure_and_gives_way_to_others(home: Program) -> None:
    service = home.json("schedule", "home")["service"].splitlines()
    wanted = {"Type=oneshot", "SuccessExitStatus=3 4", "Nice=19", "IOSchedulingClass=idle"}
    assert wanted <= set(service)


def test_the_timer_makes_up_for_what_was_missed(home: Program) -> None:
    timer = home.json("schedule", "home", "--weekly", "mon 3:05")["timer"].splitlines()
    assert {"OnCalendar=Mon *-*-* 03:05:00", "Persistent=true", "RandomizedDelaySec=60"} <= {*timer}


def test_people_see_both_units(home: Program) -> None:
    found = home.json("schedule", "home")
    told = home.run("schedule", "home").stdout
    assert found["service"] in told
    assert found["timer"] in told


def test_the_service_runs_the_backup_as_systemd_reads_its_command(
    as_nobody: Program, commons: Path
) -> None:
    """A systemd without rights says how it reads the unit; that is run with a bare environment."""
    systemd = needs("systemd")
    program = oddly_named(prepared(as_nobody, commons))
    program.run("schedule", "home", "--install")
    runtime = Path(program.env["XDG_RUNTIME_DIR"])
    subprocess.run([*program.prefix, "mkdir", "-m", "700", runtime], check=True)
    done = subprocess.run(
        [*program.prefix, systemd, "--user", "--test", "--unit=cartridge-home.timer"],
        env=program.env,
        check=False,
        capture_output=True,
        text=True,
    )
    read = [line.strip() for line in done.stdout.splitlines() if "cartridge-home" in line]
    assert "-> Unit cartridge-home.timer:" in read, done.stdout + done.stderr
    assert "-> Unit cartridge-home.service:" in read
    [line] = [
        line for line in done.stdout.splitlines() if "Command Line:" in line and ODD[:3] in line
    ]
    told = ["sh", "-c", f"printf '%s\\0' {line.partition('Command Line:')[2]}"]
    argv = subprocess.run(told, check=True, capture_output=True, text=True).stdout.split("\0")
    run_bare([word.replace("$$", "$") for word in argv[:-1]])
    program.prefix = ()
    assert has_run(program)


def test_where_the_program_is_not_installed_the_service_starts_in_its_folder(
    home: Program, tmp_path: Path
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    home.env["PYTHONPATH"] += f":{sysconfig.get_path('purelib')}"
    command = [python, "-m", "pipelines", "schedule", "home"]
    found = subprocess.run(command, env=home.env, check=True, capture_output=True, text=True).stdout
    start = f"ExecStart={python} -m pipelines backup home --batch --workspace {home.workspace}\n"
    assert f"WorkingDirectory={REPOSITORY}\n{start}" in found


# ---- installed


def test_a_user_gets_the_units_in_their_own_folder_and_is_told_what_to_run(
    as_nobody: Program, commons: Path
) -> None:
    home = prepared(as_nobody, commons)
    found = home.json("schedule", "home", "--install")
    folder = Path(home.env["XDG_CONFIG_HOME"]) / "systemd" / "user"
    assert found["installed"] == [
        str(folder / "cartridge-home.service"),
        str(folder / "cartridge-home.timer"),
    ]
    assert (folder / "cartridge-home.service").read_text() == found["service"]
    assert (folder / "cartridge-home.timer").read_text() == found["timer"]
    assert sorted(os.listdir(folder)) == ["cartridge-home.service", "cartridge-home.timer"]
    assert found["commands"] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now cartridge-home.timer",
    ]
    told = home.run("schedule", "home", "--install").stdout
    assert all(line in told.splitlines() for line in found["commands"])


def test_where_systemctl_works_the_timer_is_switched_on(as_nobody: Program, commons: Path) -> None:
    """There is no systemd to talk to in a test: a script takes down what it would be told."""
    home = prepared(as_nobody, commons)
    script, heard = commons / "bin" / "systemctl", commons / "program" / "tmp" / "heard"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {heard}\n')
    script.chmod(0o755)
    home.env["PATH"] = f"{script.parent}:{home.env['PATH']}"
    assert home.json("schedule", "home", "--install")["commands"] == []
    assert heard.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable --now cartridge-home.timer",
    ]


def test_a_new_time_replaces_the_units(as_nobody: Program, commons: Path) -> None:
    home = prepared(as_nobody, commons)
    home.run("schedule", "home", "--install")
    [_, timer] = home.json("schedule", "home", "--daily", "18:30", "--install")["installed"]
    assert "OnCalendar=*-*-* 18:30:00" in Path(timer).read_text()


def test_the_units_of_another_workspace_are_not_replaced(as_nobody: Program, commons: Path) -> None:
    home = prepared(as_nobody, commons)
    [service, _] = home.json("schedule", "home", "--install")["installed"]
    before = Path(service).read_bytes()
    found = oddly_named(home).json("schedule", "home", "--install", code=2)
    assert service in found["message"]
    assert Path(service).read_bytes() == before


def inside(program: Program, place: str, shown: Path) -> Program:
    """The program, seeing a folder of ours at some place of the system's; nothing else changes."""
    inner = ("sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(shown), place)
    shown.mkdir()
    other = Program(program.directory, ("unshare", "--mount", *inner))
    tried = subprocess.run([*other.prefix, "true"], check=False, capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"{place} cannot be replaced here")
    other.env = program.env
    return other


def test_root_gets_the_units_of_the_system(needs_root: None, home: Program, tmp_path: Path) -> None:
    shown = tmp_path / "etc"
    found = inside(home, "/etc/systemd/system", shown).json("schedule", "home", "--install")
    assert found["installed"][0] == "/etc/systemd/system/cartridge-home.service"
    assert (shown / "cartridge-home.timer").read_text() == found["timer"]
    check_units(shown, tmp_path)


# ---- cron


def as_cron_reads(line: str) -> str:
    """Return the command of a line: behind five fields, up to a % that no backslash precedes."""
    command, escaped = "", False
    for character in line.split(" ", 5)[5]:
        if escaped and character == "%":
            command = command[:-1]
        elif character == "%":
            break
        command += character
        escaped = character == "\\" and not escaped
    return command


@pytest.mark.parametrize("odd", [False, True])
def test_the_line_for_cron_runs_the_backup(home: Program, odd: bool) -> None:
    home = oddly_named(home) if odd else home
    line = home.json("schedule", "home", "--cron", "--daily", "18:05")["cron"]
    assert line.startswith("5 18 * * * ")
    run_bare(["sh", "-c", as_cron_reads(line)])
    assert has_run(home)


def test_people_see_the_line_alone(home: Program) -> None:
    line = home.json("schedule", "home", "--cron", "--weekly", "Sunday 03:00")["cron"]
    assert line.startswith("0 3 * * 0 ")
    assert home.run("schedule", "home", "--cron", "--weekly", "sun 3:00").stdout == f"{line}\n"


@pytest.fixture
def crontab(needs_root: None, home: Program, tmp_path: Path) -> Program:
    """The program with an empty crontab of its own."""
    needs("crontab")
    return inside(home, "/var/spool/cron/crontabs", tmp_path / "crontabs")


def lines_of(program: Program) -> list[str]:
    """Return the lines of the crontab but for the comments that `crontab` puts before them."""
    [file] = (program.directory.parent / "crontabs").iterdir()
    return [line for line in file.read_text().splitlines() if not line.startswith("# ")]


def test_a_line_is_put_into_the_crontab_and_replaced_there(crontab: Program) -> None:
    first = crontab.json("schedule", "home", "--cron", "--install")
    assert lines_of(crontab) == [first["cron"]]
    assert first["installed"] == ["crontab"]
    second = crontab.json("schedule", "home", "--cron", "--install", "--daily", "18:30")["cron"]
    assert lines_of(crontab) == [second] != [first["cron"]]


def test_other_lines_of_the_crontab_stay(crontab: Program) -> None:
    line = crontab.json("schedule", "home", "--cron")["cron"]
    others = ["MAILTO=me", f"#{line}", f"{line}2", "0 1 * * * date +\\%F"]
    given = "\n".join([*others, line, ""])
    subprocess.run([*crontab.prefix, "crontab", "-"], input=given, text=True, check=True)
    crontab.run("schedule", "home", "--cron", "--install")
    assert lines_of(crontab) == [*others, line]


def test_without_cron_there_is_a_sentence(home: Program, tmp_path: Path) -> None:
    home.env["PATH"] = str(tmp_path)
    found = home.json("schedule", "home", "--cron", "--install", code=2)
    assert "There is no 'crontab' here" in found["message"]


# ---- mistakes


@pytest.mark.parametrize(
    ("daily", "weekly", "calendar", "right"),
    [
        ("24:00", None, None, "03:00"),
        ("3:60", None, None, "03:00"),
        ("noon", None, None, "03:00"),
        ("", None, None, "03:00"),
        (None, "Mon", None, "Mon 03:00"),
        (None, "03:00", None, "Mon 03:00"),
        (None, "Moon 03:00", None, "Mon 03:00"),
        (None, None, "Mon..Fri\nExecStart=/bin/sh", "man systemd.time"),
        (None, None, "%i", "man systemd.time"),
        (None, None, "", "man systemd.time"),
        ("03:00", "Mon 03:00", None, "one of"),
    ],
)
def test_a_time_that_is_none_is_refused_with_what_is_right(
    daily: str | None, weekly: str | None, calendar: str | None, right: str
) -> None:
    with pytest.raises(UsageError, match=right):
        times_of(daily, weekly, calendar)


@pytest.mark.parametrize("calendar", ["Moon 03:00", "--help", "2001-01-01 03:00"])
def test_what_systemd_does_not_know_or_never_sees_is_refused(calendar: str) -> None:
    needs("systemd-analyze")
    with pytest.raises(UsageError, match="man systemd"):
        times_of(None, None, calendar)


def test_a_calendar_expression_of_systemd_is_taken(home: Program) -> None:
    timer = home.json("schedule", "home", "--calendar", "Mon..Fri *-*-1..7 18:00")["timer"]
    assert "\nOnCalendar=Mon..Fri *-*-1..7 18:00\n" in timer
    found = home.json("schedule", "home", "--calendar", "Mon..Fri 18:00", "--cron", code=2)
    assert "--daily" in found["message"]


def test_a_profile_has_to_be_there_and_to_be_right(home: Program) -> None:
    assert home.json("schedule", "absent", code=2)["error"] == "ProfileMissing"
    home.profile("home").write_text("[[source]]\n")
    assert home.json("schedule", "home", code=2)["error"] == "ProfileInvalid"
    assert home.json("schedule", "../home", code=2)["error"] == "UsageError"
