"""The checks of this project, one after the other: `python -m tests`."""

from __future__ import annotations

import os
import subprocess
import sys

TOOLS = {
    "acl": "setfacl",
    "attr": "setfattr",
    "lz4": "lz4",
    "libarchive-tools": "bsdtar",
    "exfat-fuse": "mount.exfat-fuse",
    "exfatprogs": "mkfs.exfat",
    "e2fsprogs": "mkfs.ext4",
    "xfsprogs": "mkfs.xfs",
    "rsync": "rsync",
    "strace": "strace",
    "systemd": "systemd-analyze",
    "cron": "crontab",
}
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest", "-n", "auto", "--dist", "loadscope", "-m", "not slow and not night"),
)


def install_tools() -> None:
    """Install the system's tools that tests compare with, where we may; without, tests skip."""
    from shutil import which

    missing = [package for package, tool in TOOLS.items() if which(tool) is None]
    if missing and os.geteuid() == 0 and which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], check=False, **quiet)
        subprocess.run(["apt-get", "install", "-y", *missing], check=False, **quiet)


def main() -> int:
    """Run every check, and say at the end whether all passed."""
    install_tools()
    failed = []
    for check in CHECKS:
        extra = sys.argv[1:] if check[0] == "pytest" else []
        print(f"== {' '.join(check)} {' '.join(extra)}".rstrip(), flush=True)
        if subprocess.run([sys.executable, "-m", *check, *extra], check=False).returncode:
            failed.append(check[0])
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
