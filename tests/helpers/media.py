"""What lies on cartridges, as the system's own tools see it, and what is put on them."""

import hashlib
import random
import subprocess
from pathlib import Path

from tests.helpers.program import Medium, Program


def fill(folder: Path, files: int, size: int, seed: int = 1) -> None:
    """Write files of random bytes, which neither compress nor repeat."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (folder / f"{number:03}.bin").write_bytes(chance.randbytes(size))


def used(folder: Path) -> int:
    """Return the bytes that a folder and all in it take, as `du` counts them."""
    command = ["du", "-s", "--block-size=1", folder]
    return int(subprocess.run(command, check=True, capture_output=True).stdout.split()[0])


def check_cartridge(folder: Path) -> None:
    """Fail where SHA256SUMS is not right and complete, or anything unfinished lies around."""
    __tracebackhide__ = True
    files = set(Program.cartridge_files(folder))
    drafts = [name for name in files if name.endswith(".tmp")]
    assert not drafts, f"{folder} has drafts: {drafts}"
    lines = (folder / "SHA256SUMS").read_text("ascii").splitlines()
    odd = {*(line[66:] for line in lines), "SHA256SUMS"} ^ files
    assert not odd, f"{folder}: not both there and in SHA256SUMS: {sorted(odd)}"
    command = ["sha256sum", "--strict", "--check", "--quiet", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{folder}: {done.stdout}{done.stderr}"
    medium = Medium(path=folder)
    strange = {folder / line["archive"] for line in medium.journal} ^ set(medium.archives)
    assert not strange, f"{folder}: not both there and in the journal: {sorted(strange)}"


def archives_on(*folders: Path) -> dict[str, tuple[int, int, str]]:
    """Return inode, mtime and SHA-256 of the archives that journals name, by their names."""
    found = {}
    for folder in folders:
        for line in Medium(path=folder).journal:
            archive = folder / line["archive"]
            status, digest = archive.stat(), hashlib.sha256(archive.read_bytes()).hexdigest()
            assert line["archive"] not in found, f"{archive} lies on two cartridges"
            found[line["archive"]] = (status.st_ino, status.st_mtime_ns, digest)
    return found
