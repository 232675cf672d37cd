"""A run calls the commands, and sends the news, that its profile asks for; neither spoils it."""

import base64
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.hooks import run_hooks
from tests.conftest import MakeCartridges
from tests.helpers import processes
from tests.helpers.media import fill
from tests.helpers.news import Postbox, postbox
from tests.helpers.processes import Process
from tests.helpers.program import Program

PASSWORD = "open-sesame-7261"


class Desk:
    """A profile over some small files, and a folder for what hooks leave behind."""

    def __init__(self, program: Program, source: Path, cartridge: Path, folder: Path) -> None:
        self.program, self.source, self.cartridge, self.notes = program, source, cartridge, folder
        folder.mkdir()

    def hooks(self, **commands: Any) -> None:
        self.program.edit_profile("home", {"hooks": commands})

    def notify(self, **settings: Any) -> None:
        self.program.edit_profile("home", {"notify": settings})

    def note(self, name: str) -> str:
        """Return a command that writes down what it was given."""
        return f"env > '{self.notes}/{name}.env'; cat > '{self.notes}/{name}.json'"

    def told(self, name: str) -> dict[str, Any]:
        """Return the facts that a hook got on standard input."""
        found: dict[str, Any] = json.loads((self.notes / f"{name}.json").read_text())
        return found

    def variables(self, name: str) -> dict[str, str]:
        """Return the facts that a hook got as variables, without their prefix."""
        lines = (self.notes / f"{name}.env").read_text().splitlines()
        pairs = [line.partition("=") for line in lines if line.startswith("CARTRIDGE_")]
        return {key.removeprefix("CARTRIDGE_"): value for key, _, value in pairs}

    def called(self) -> set[str]:
        return {path.stem for path in self.notes.iterdir()}

    def starve(self) -> None:
        """Take the cartridge away, so that the next run waits for it."""
        self.cartridge.rename(self.cartridge.with_name("away"))


@pytest.fixture
def desk(program: Program, source: Path, cartridges: MakeCartridges, tmp_path: Path) -> Desk:
    fill(source, files=5, size=1000)
    [cartridge] = cartridges(1)
    program.init("home", [source], [cartridge])
    return Desk(program, source, cartridge, tmp_path / "notes")


@pytest.fixture
def box() -> Iterator[Postbox]:
    with postbox() as made:
        yield made


# ---- hooks


def test_hooks_around_a_backup_get_its_facts(desk: Desk) -> None:
    desk.hooks(before=desk.note("before"), after=desk.note("after"), on_error=desk.note("on_error"))
    outcome = desk.program.backup("home")
    assert desk.called() == {"before", "after"}
    workspace = str(desk.program.workspace)
    assert desk.told("before") == {"event": "before", "profile": "home", "workspace": workspace}
    told = desk.told("after")
    known = outcome | {"event": "after", "profile": "home", "workspace": workspace}
    assert told == {name: known[name] for name in told}
    variables = desk.variables("after")
    for name in ("event", "profile", "workspace", "snapshot", "status", "added", "bytes_stored"):
        assert variables[name.upper()] == str(known[name])
    assert desk.variables("before")["PROFILE"] == "home"


@pytest.mark.slow
def test_hooks_are_called_in_turn_and_before_anything_is_looked_at(desk: Desk) -> None:
    mounted = desk.source.rename(desk.source.with_name("unmounted"))
    log = desk.notes / "log"
    desk.hooks(
        before=[f"echo one >> '{log}'", f"mv '{mounted}' '{desk.source}'; echo two >> '{log}'"],
        after=[f"mv '{desk.source}' '{mounted}'; echo three >> '{log}'"],
    )
    assert desk.program.backup("home")["added"] == 5
    assert log.read_text().split() == ["one", "two", "three"]
    assert desk.program.backup("home")["status"] == "unchanged"


def test_a_hook_before_that_fails_stops_the_run_and_nothing_is_written(desk: Desk) -> None:
    desk.hooks(before=["echo no snapshot today >&2; exit 3", desk.note("second")])
    error = desk.program.backup("home", code=1)
    assert error["error"] == "HookFailed"
    assert "code 3" in error["message"]
    assert desk.called() == set()
    assert desk.program.snapshots("home") == []
    assert desk.program.json("status", "home")["unfinished"] is None
    assert Program.cartridge_files(desk.cartridge) == ["CARTRIDGE.json"]
    desk.hooks(before="true")
    assert desk.program.backup("home")["status"] == "complete"


def test_a_hook_before_that_fails_is_told_like_any_other_error(desk: Desk, box: Postbox) -> None:
    """Of a backup that does not even begin, night after night, somebody must hear."""
    desk.hooks(before="false", on_error=desk.note("on_error"))
    desk.notify(urls=box.address())
    desk.program.backup("home", code=1)
    assert desk.told("on_error")["error"] == "HookFailed"
    assert box.titles() == ["cartridge: home failed"]


def test_a_hook_after_that_fails_is_said_and_changes_nothing(desk: Desk) -> None:
    desk.hooks(after=["exit 7", desk.note("second")])
    done = desk.program.run("backup", "home")
    assert "Snapshot " in done.stdout
    assert "The hook 'after' failed" in done.stderr
    assert "code 7" in done.stderr
    assert len(desk.program.snapshots("home")) == 1


def test_a_hook_for_errors_learns_what_was_wrong(desk: Desk) -> None:
    desk.hooks(after=desk.note("after"), on_error=[desk.note("on_error"), "exit 9"])
    desk.source.rename(desk.source.with_name("unplugged"))
    done = desk.program.run("backup", "home", "--json", code=1)
    error = json.loads(done.stdout)
    assert error["error"] == "SourceMissing"
    assert "The hook 'on_error' failed" in done.stderr
    assert desk.called() == {"on_error"}
    told = desk.told("on_error")
    assert (told["event"], told["profile"]) == ("on_error", "home")
    for name in ("error", "message", "exit_code"):
        assert told[name] == error[name]
        assert desk.variables("on_error")[name.upper()] == str(error[name])


def test_to_wait_for_a_cartridge_is_no_error(desk: Desk) -> None:
    desk.hooks(on_error=desk.note("on_error"), waiting=desk.note("waiting"))
    desk.starve()
    assert desk.program.backup("home", code=4)["status"] == "waiting"
    assert desk.called() == {"waiting"}


def test_what_hooks_print_never_gets_into_the_result(desk: Desk) -> None:
    chatty = 'echo "{\\"status\\": \\"nonsense\\"}"'
    desk.hooks(before=chatty, after=[chatty, "false"], on_error=chatty, waiting=chatty)
    done = desk.program.run("backup", "home", "--json")
    assert json.loads(done.stdout)["status"] == "complete"
    assert done.stderr.count("nonsense") == 2
    (desk.source / "new").write_text("x")
    desk.starve()
    assert desk.program.backup("home", code=4)["status"] == "waiting"
    desk.source.rename(desk.source.with_name("unplugged"))
    assert desk.program.backup("home", "--abandon")["abandoned"]
    assert desk.program.backup("home", code=1)["error"] == "SourceMissing"


@pytest.mark.slow
def test_a_hook_need_not_listen(desk: Desk) -> None:
    """Though it is told more than a pipe can hold."""
    for number in range(400):
        os.mknod(desk.source / f"{number:03}{'x' * 200}", stat.S_IFSOCK | 0o600)
    desk.hooks(after="exec <&-; true")
    done = desk.program.run("backup", "home", "--json")
    assert len(json.loads(done.stdout)["skipped"]) == 400
    assert done.stderr == ""


def interrupted(desk: Desk) -> Process:
    """Start a run and interrupt it while it packs."""
    fill(desk.source / "more", files=60, size=400_000)
    process = desk.program.start("backup", "home", "--json")
    runs = desk.program.workspace / "state" / "home" / "runs"
    assert processes.wait_for(lambda: any(runs.glob("*/packed/*.json")), process)
    os.kill(process.pid, signal.SIGTERM)
    return process


def test_a_run_that_is_interrupted_tells_its_hook_and_does_not_wait_for_it(desk: Desk) -> None:
    desk.hooks(on_error=[desk.note("on_error"), "exec sleep 100"])
    process = interrupted(desk)
    code, out, err = processes.end_of(process, timeout=30)
    assert (code, json.loads(out)["error"]) == (130, "Interrupted"), err
    assert desk.told("on_error")["error"] == "Interrupted"
    assert "The hook 'on_error' failed: it took too long" in err
    processes.assert_none_left(process, within=3)
    assert desk.program.backup("home", code=None)["status"] == "complete"


@pytest.mark.slow
def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_has_started(desk: Desk) -> None:
    desk.hooks(on_error="sleep 100; true")
    process = interrupted(desk)
    assert process.wait(30) == 130
    try:
        processes.assert_none_left(process, within=3)
    finally:
        processes.kill_all(process)


@pytest.mark.parametrize("event", ["before", pytest.param("waiting", marks=pytest.mark.slow)])
def test_a_run_can_be_interrupted_while_a_hook_is_at_work(desk: Desk, event: str) -> None:
    started = desk.notes / "started"
    desk.starve()
    desk.hooks(**{event: f"touch '{started}'; exec sleep 100"})
    process = desk.program.start("backup", "home", "--json")
    assert processes.wait_for(started.exists, process)
    os.kill(process.pid, signal.SIGTERM)
    code, out, err = processes.end_of(process, timeout=10)
    assert (code, json.loads(out)["error"]) == (130, "Interrupted"), err
    processes.assert_none_left(process, within=3)


def test_a_signal_that_comes_just_as_a_hook_has_started_leaves_none_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the start of a process and the note of it, nobody would know of it."""
    started: list[int] = []

    class Signalled(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    with pytest.raises(KeyboardInterrupt):
        run_hooks(["exec sleep 100"], "before", {})
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.slow
def test_a_dry_run_calls_no_hook(desk: Desk, box: Postbox) -> None:
    desk.hooks(before=desk.note("before"), after=desk.note("after"))
    desk.notify(urls=box.address(), events=["done", "trouble"])
    desk.program.backup("home", "--dry-run")
    assert desk.called() == set()
    assert box.letters == []


# ---- news


def test_news_of_a_backup_is_sent_where_it_is_wanted(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=[box.address()], events=["done"])
    done = desk.program.run("backup", "home")
    [letter] = box.letters
    assert letter["title"] == "cartridge: home complete"
    assert letter["type"] == "success"
    assert letter["message"].strip() == done.stdout.strip()
    desk.notify(events=["trouble", "waiting"])
    desk.program.backup("home")
    assert len(box.letters) == 1


def test_news_of_trouble_is_sent_without_being_asked_for(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=box.address())
    desk.source.rename(desk.source.with_name("unplugged"))
    error = desk.program.backup("home", code=1)
    [letter] = box.letters
    assert (letter["title"], letter["type"]) == ("cartridge: home failed", "failure")
    assert error["message"] in letter["message"]


@pytest.mark.slow
def test_files_that_cannot_be_read_are_trouble(barred: Program, box: Postbox) -> None:
    barred.edit_profile("home", {"notify": {"urls": box.address()}})
    barred.backup("home", code=3)
    [letter] = box.letters
    assert letter["title"] == "cartridge: home partial"
    assert "source/001.bin" in letter["message"]


def test_news_that_a_run_waits_is_sent(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=box.address())
    desk.starve()
    desk.program.backup("home", code=4)
    [letter] = box.letters
    assert letter["type"] == "warning"
    assert "Waiting for cartridge home 1" in letter["message"]


def test_addresses_come_from_wherever_they_are_kept(desk: Desk, box: Postbox) -> None:
    file = desk.notes / "addresses"
    file.write_text(f"{box.address('file:x')}\n\n{box.address('second:x')}\n")
    desk.program.env["ADDRESSES"] = box.address("env:x")
    desk.notify(
        urls=[box.address("profile:x")],
        urls_env="ADDRESSES",
        urls_file=str(file),
        urls_command=f"echo '{box.address('command:x')}'",
        events=["done"],
    )
    desk.program.backup("home")
    names = {base64.b64decode((key or "").split()[1]).decode().split(":")[0] for key in box.keys}
    assert names == {"profile", "env", "file", "second", "command"}


def test_a_password_in_an_address_is_left_nowhere(desk: Desk, box: Postbox) -> None:
    desk.program.env["ADDRESSES"] = box.address(f"me:{PASSWORD}")
    desk.notify(urls_env="ADDRESSES", events=["done", "trouble", "waiting", "stale"])
    (desk.source / "large").write_bytes(bytes(1_000_000))
    desk.starve()
    outputs = []
    for more in ((), ("--json",), ("-v", "--debug")):
        process = desk.program.start("backup", "home", *more)
        outputs += process.communicate(timeout=60)
        assert process.returncode == 4
    assert "Traceback" in outputs[-1]
    desk.cartridge.with_name("away").rename(desk.cartridge)
    outputs.append(desk.program.run("backup", "home").stdout)
    desk.source.rename(desk.source.with_name("unplugged"))
    outputs.append(desk.program.run("backup", "home", code=1).stderr)
    assert len(box.letters) == 5
    wanted = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"
    assert box.keys == [wanted] * 5
    assert not [text for text in outputs if PASSWORD in text]
    for folder in (desk.program.directory, desk.cartridge):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_a_nonsense_address_is_told_before_anything_runs_and_not_shown(desk: Desk) -> None:
    desk.hooks(before=desk.note("before"))
    desk.program.env["ADDRESSES"] = f"json://127.0.0.1/ nonsense://{PASSWORD}@host"
    desk.notify(urls_env="ADDRESSES")
    done = desk.program.run("backup", "home", code=2)
    assert "address number 2" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert desk.called() == set()
    assert desk.program.snapshots("home") == []
    assert desk.program.json("status", "home")["unfinished"] is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"urls_env": "NOT_SET"}, "names no address"),
        ({"urls_file": "/nowhere/addresses"}, "urls_file cannot be read"),
        ({"urls_command": f"echo {PASSWORD} >&2; exit 5"}, "urls_command ended with code 5"),
    ],
)
def test_addresses_that_cannot_be_had_are_told_before_anything_runs(
    desk: Desk, settings: dict[str, str], told: str
) -> None:
    desk.notify(**settings)
    done = desk.program.run("backup", "home", code=2)
    assert told in done.stderr
    assert PASSWORD not in done.stderr
    assert desk.program.snapshots("home") == []


def test_news_that_cannot_be_sent_changes_nothing(desk: Desk) -> None:
    desk.notify(urls=f"json://me:{PASSWORD}@127.0.0.1:1/", events=["done"])
    done = desk.program.run("backup", "home")
    assert "could not be sent" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert len(desk.program.snapshots("home")) == 1


def test_without_apprise_it_is_said_how_to_get_it(desk: Desk, box: Postbox) -> None:
    hide_apprise(desk)
    desk.notify(urls=box.address())
    error = desk.program.backup("home", code=2)
    assert "pip install" in error["message"]
    assert desk.program.snapshots("home") == []


def hide_apprise(desk: Desk) -> None:
    """Have the program live without it, as most users do."""
    (desk.notes / "apprise.py").write_text("raise ImportError\n")
    desk.program.env["PYTHONPATH"] = f"{desk.notes}:{desk.program.env['PYTHONPATH']}"


# ---- being reminded


def stale_since(desk: Desk, moment: str) -> None:
    """Have the profile last looked at long ago."""
    state = desk.program.workspace / "state" / "home"
    state.mkdir(parents=True, exist_ok=True)
    (state / "looked.json").write_text(json.dumps({"looked": moment}) + "\n")


def test_a_profile_that_was_never_backed_up_is_reminded_of(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=box.address(), stale_days=3)
    done = desk.program.run("remind", code=1)
    assert done.stdout == "home: nothing was ever backed up.\n"
    [letter] = box.letters
    assert letter["title"] == "cartridge: home"
    assert letter["message"] == "nothing was ever backed up."


def test_a_profile_that_was_not_looked_at_for_its_days_is_reminded_of(
    desk: Desk, box: Postbox
) -> None:
    desk.notify(urls=box.address(), stale_days=3)
    stale_since(desk, "2026-01-02T03:04:05Z")
    [facts] = desk.program.json("remind", "home", code=1)["profiles"]
    assert (facts["profile"], facts["stale"], facts["stale_days"]) == ("home", True, 3)
    assert facts["last"] == "2026-01-02T03:04:05Z"
    assert facts["days"] > 3
    [letter] = box.letters
    assert "2026-01-02" in letter["message"]


def test_whoever_was_just_backed_up_is_not_reminded(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=box.address(), stale_days=1)
    stale_since(desk, "2026-01-02T03:04:05Z")
    desk.program.backup("home")
    [facts] = desk.program.json("remind")["profiles"]
    assert (facts["stale"], facts["days"]) == (False, 0)
    assert box.letters == []


@pytest.mark.slow
def test_without_days_nobody_is_reminded(desk: Desk, box: Postbox) -> None:
    desk.notify(urls=box.address())
    assert desk.program.json("remind")["profiles"][0]["stale"] is False
    assert box.letters == []


@pytest.mark.slow
def test_who_does_not_want_the_news_is_still_told_by_the_exit_code(
    desk: Desk, box: Postbox
) -> None:
    desk.notify(urls=box.address(), events=["trouble"], stale_days=3)
    assert "nothing was ever backed up" in desk.program.run("remind", code=1).stdout
    assert box.letters == []


def test_one_wrong_profile_does_not_keep_others_from_being_reminded_of(
    desk: Desk, box: Postbox
) -> None:
    desk.notify(urls=box.address(), stale_days=3)
    desk.program.profile("broken").write_text("[[source]\n")
    desk.program.run("remind", code=None)
    assert box.titles() == ["cartridge: home"]


def test_without_apprise_the_reminder_says_how_to_get_it(desk: Desk, box: Postbox) -> None:
    hide_apprise(desk)
    desk.notify(urls=box.address(), stale_days=3)
    assert "pip install" in desk.program.run("remind", code=2).stderr
