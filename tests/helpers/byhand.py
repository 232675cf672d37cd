"""restore.sh as a stranger runs it: a shell and standard tools, nothing else, and an empty home."""

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.helpers.program import NOBODY

TOOLS = (
    *("sh", "tar", "lz4", "sha256sum", "cat", "chmod", "cp", "cut", "date", "dd", "dirname"),
    *("grep", "head", "id", "mkdir", "mv", "pwd", "rm", "sed", "sort", "sync", "tail", "tr"),
    *("uniq", "wc", "xargs"),
)
NEVER_BUSYBOX = ("tar", "lz4")
Completed = subprocess.CompletedProcess[str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Somebody with `folder` for a home and for all the tools that there are."""

    folder: Path
    prefix: tuple[str, ...] = ()

    @classmethod
    def with_tools(cls, folder: Path, *, busybox: bool = False) -> "Stranger":
        """Provide the tools, those of busybox where they may be."""
        (folder / "bin").mkdir(parents=True)
        (folder / "home").mkdir()
        other = shutil.which("busybox") if busybox else None
        for tool in TOOLS:
            found = other if other and tool not in NEVER_BUSYBOX else shutil.which(tool)
            if found:
                (folder / "bin" / tool).symlink_to(found)
        return cls(folder=folder)

    def as_nobody(self) -> "Stranger":
        """Return the same without rights."""
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        setpriv = shutil.which("setpriv")
        return dataclasses.replace(self, prefix=(setpriv, *ids, "--") if setpriv else ())

    def start(self, cartridge: Path, *args: str | Path, answers: str = "") -> subprocess.Popen[str]:
        """Start the script that lies on a cartridge, with answers to what it may ask."""
        (self.folder / "answers").write_text(answers)
        env = {"PATH": str(self.folder / "bin"), "HOME": str(self.folder / "home")}
        with (self.folder / "answers").open() as stdin:
            return subprocess.Popen(
                [*self.prefix, self.folder / "bin" / "sh", cartridge / "restore.sh", *args],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="surrogateescape",
                cwd=self.folder,
                env=env,
                start_new_session=True,
            )

    def restore(
        self, cartridge: Path, *args: str | Path, answers: str = "", code: int = 0
    ) -> Completed:
        """Run the script to its end and check its exit code."""
        __tracebackhide__ = True
        process = self.start(cartridge, *args, answers=answers)
        try:
            out, err = process.communicate(timeout=120)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        told = f"exit code {process.returncode}, expected {code}\n{out[-4000:]}\n{err[-6000:]}"
        assert process.returncode == code, told
        return Completed(process.args, process.returncode, out, err)
