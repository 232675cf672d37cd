"""The program as a person or a script meets it: commands, exit codes, JSON, files on cartridges."""

import copy
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.helpers.zygote import HungError, Zygote, zygote

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534

Arg = str | bytes | Path
Completed = subprocess.CompletedProcess[str]


class Measured(NamedTuple):
    """How a command ended: exit code, what it printed, and the most memory it took in bytes."""

    code: int
    out: str
    err: str
    memory: int


class Program:
    """Runs `python -m pipelines` with a workspace and a home of its own; nothing else is shared.

    Standard input is empty and there is no terminal, so the program can ask nobody.
    """

    def __init__(self, directory: Path, prefix: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.workspace = directory / "workspace"
        self.prefix = prefix
        self.env = _environment(directory)
        for folder in ("workspace", "home", "tmp"):
            (directory / folder).mkdir(parents=True, exist_ok=True)

    def as_user(self, uid: int = NOBODY) -> "Program":
        """Return the same program run by another user; its directory must be theirs."""
        ids = (f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
        other = Program(self.directory, ("setpriv", *ids, "--"))
        other.env = dict(self.env)
        return other

    def start(self, *args: Arg, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, for tests that kill it."""
        command: list[Arg] = [*self.prefix, sys.executable, "-m", "pipelines", *args]
        settings: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            "errors": "surrogateescape",
            "cwd": self.workspace,
            "env": self.env,
            "start_new_session": True,
        }
        return subprocess.Popen(command, **(settings | options))

    def run(self, *args: Arg, code: int | None = 0, timeout: float = 120) -> Completed:
        """Run a command to its end and check its exit code; None takes any."""
        __tracebackhide__ = True
        is_forked = _zygote().suits(self.env) and not self.prefix
        done = self._forked(args, timeout) if is_forked else self._started(args, timeout)
        if "Traceback" in done.stderr:
            raise AssertionError(_told(args, "a traceback was shown", done.stdout, done.stderr))
        if code is not None and done.returncode != code:
            what = f"exit code {done.returncode}, expected {code}"
            raise AssertionError(_told(args, what, done.stdout, done.stderr))
        return done

    def measure(self, *args: Arg, timeout: float = 60, limit: int = 0) -> Measured:
        """Run a command to its end in a fork of the loaded program, whatever comes of it.

        `limit` is how many bytes of address space it gets beyond what it begins with.
        """
        words = [os.fsdecode(arg) for arg in args]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            files = out.fileno(), err.fileno()
            try:
                end = _zygote().run(words, str(self.workspace), self.env, files, timeout, limit)
            except HungError as error:
                raise AssertionError(_told(args, str(error), _text(out), _text(err))) from None
            return Measured(end.code, _text(out), _text(err), end.memory)

    def _forked(self, args: tuple[Arg, ...], timeout: float) -> Completed:
        done = self.measure(*args, timeout=timeout)
        return Completed(args, done.code, done.out, done.err)

    def _started(self, args: tuple[Arg, ...], timeout: float) -> Completed:
        process = self.start(*args)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(_told(args, f"no end after {timeout} s", out, err)) from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Completed(process.args, process.returncode, out, err)

    def json(
        self, command: str, *args: Arg, code: int | None = 0, timeout: float = 120
    ) -> dict[str, Any]:
        """Run a command with --json; standard output must be one JSON object and nothing else."""
        __tracebackhide__ = True
        done = self.run(command, "--json", *args, code=code, timeout=timeout)
        try:
            found = json.loads(done.stdout)
        except ValueError as error:
            what = f"standard output is not one JSON object: {error}"
            raise AssertionError(_told((command, *args), what, done.stdout, done.stderr)) from None
        if not isinstance(found, dict):
            raise AssertionError(f"{command} --json gave a {type(found).__name__}, not an object")
        return found

    def init(
        self, name: str, sources: list[Path], cartridges: list[Path], capacity: str | None = None
    ) -> Completed:
        """Write a profile over some sources, and label empty directories as its cartridges."""
        args: list[Arg] = ["init", name]
        args += [arg for source in sources for arg in ("--source", source)]
        args += [arg for cartridge in cartridges for arg in ("--cartridge", cartridge)]
        args += ["--capacity", capacity] if capacity else []
        return self.run(*args)

    def backup(
        self, name: str, *args: Arg, code: int | None = 0, timeout: float = 300
    ) -> dict[str, Any]:
        """Back up a profile and return what the program says about it."""
        return self.json("backup", name, *args, code=code, timeout=timeout)

    def restore(
        self, name: str, dest: Path, *args: Arg, code: int | None = 0, timeout: float = 300
    ) -> dict[str, Any]:
        """Restore into `dest` and return what the program says about it."""
        return self.json("restore", name, dest, *args, code=code, timeout=timeout)

    def snapshots(self, name: str) -> list[str]:
        """Return the ids of all snapshots, oldest first."""
        return [snapshot["id"] for snapshot in self.json("snapshots", name)["snapshots"]]

    def listed(self, name: str) -> set[str]:
        """Return the paths that `ls` shows of the newest snapshot."""
        return {entry["path"] for entry in self.json("ls", name)["entries"]}

    def catalog(self, name: str) -> Path:
        """Return the directory of the catalog in the workspace."""
        return self.workspace / "state" / name / "catalog"

    def profile(self, name: str) -> Path:
        """Return the file of a profile."""
        return self.workspace / "profiles" / f"{name}.toml"

    def edit_profile(self, name: str, changes: Mapping[str, Any]) -> None:
        """Merge tables and keys into a profile; None removes a key, a list merges item by item."""
        path = self.profile(name)
        merged = _merged(tomllib.loads(path.read_text("utf-8")), changes)
        path.write_text(to_toml(merged), "utf-8")

    @staticmethod
    def cartridge_files(directory: Path) -> list[str]:
        """Return the paths of all files on a cartridge, relative to it and sorted."""
        found = (path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink())
        return sorted(str(path.relative_to(directory)) for path in found)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What lies on one cartridge, read without the program."""

    path: Path

    @property
    def label(self) -> dict[str, Any]:
        """The content of CARTRIDGE.json."""
        found: dict[str, Any] = json.loads((self.path / "CARTRIDGE.json").read_text("utf-8"))
        return found

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The lines of journal.jsonl; none where nothing was placed yet."""
        file = self.path / "journal.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def archives(self) -> list[Path]:
        """The archives in the order of their names."""
        return sorted(path for path in self.path.glob("archives/*/*") if ".tar" in path.name)

    def manifest(self, snapshot: str) -> Path:
        """Return where the manifest of a snapshot lies."""
        return self.path / "catalog" / "manifests" / f"{snapshot}.parquet"


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write plain values, tables and lists of tables as TOML."""
    plain = {key: value for key, value in tables.items() if not _is_table(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in tables.items():
        if _is_table(value):
            head = f"[{_key(key)}]" if isinstance(value, Mapping) else f"[[{_key(key)}]]"
            for table in [value] if isinstance(value, Mapping) else value:
                lines += ["", head, *(f"{_key(k)} = {_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _environment(directory: Path) -> dict[str, str]:
    home = directory / "home"
    kept = {key: os.environ[key] for key in ("PATH", "COVERAGE_PROCESS_START") if key in os.environ}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "XDG_RUNTIME_DIR": str(home / ".run"),
        "TMPDIR": str(directory / "tmp"),
        "CARTRIDGE_WORKSPACE": str(directory / "workspace"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def _zygote() -> Zygote:
    return zygote(tuple(_environment(REPOSITORY).items()), str(REPOSITORY))


def _text(file: IO[bytes]) -> str:
    """Return what was written to a file, as what a command printed."""
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")


def _told(args: tuple[Arg, ...], what: str, out: str, err: str) -> str:
    command = " ".join(os.fsdecode(arg) for arg in args)
    return (
        f"cartridge {command}: {what}\n"
        f"--- standard output\n{out[-6000:]}\n--- standard error\n{err[-6000:]}"
    )


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, Mapping):
        both = old | {key: _merged(old.get(key), value) for key, value in new.items()}
        return {key: value for key, value in both.items() if value is not None}
    if _is_table(old) and _is_table(new):
        longer = max(len(old), len(new))
        pairs = zip(old + [{}] * (longer - len(old)), new + [{}] * (longer - len(new)), strict=True)
        return [_merged(mine, theirs) for mine, theirs in pairs]
    return copy.deepcopy(new)


def _is_table(value: Any) -> bool:
    tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    return isinstance(value, Mapping) or bool(tables)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
