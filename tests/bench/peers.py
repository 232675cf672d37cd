"""The program and its peers: what each is told to do for each work."""

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.program import Program

# What each command is given in its environment: SOURCE, its NAME and a FOLDER in it; HERE, a folder
# of the contender's own; DEST, an empty one to restore to; MEDIUM, the program's cartridge.
_CARTRIDGE = f'"{sys.executable}" -m pipelines'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program and its commands by work; `needs` are the tools without which it is left out."""

    name: str
    needs: tuple[str, ...]
    commands: Mapping[str, str]
    setup: str = "true"
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)


PROGRAM = Contender(
    name="cartridge",
    needs=(),
    setup=f'mkdir "$MEDIUM" && {_CARTRIDGE} init bench --source "$SOURCE" --cartridge "$MEDIUM"',
    commands={
        "first": f"{_CARTRIDGE} backup bench --batch -q",
        "unchanged": f"{_CARTRIDGE} backup bench --batch -q",
        "verify": f"{_CARTRIDGE} verify bench",
        "start": f"{_CARTRIDGE} cartridges bench",
        "restore": f'{_CARTRIDGE} restore bench "$DEST"',
        "folder": f'{_CARTRIDGE} restore bench "$DEST" "$NAME/$FOLDER/"',
        "changed": f"{_CARTRIDGE} backup bench --batch -q",
    },
)
_TAR = Contender(
    name="tar",
    needs=("tar", "lz4"),
    commands={
        "first": 'tar -C "$SOURCE" -cf - . | lz4 -1 -q > "$HERE/all" && sync "$HERE/all"',
        "restore": 'lz4 -dcq "$HERE/all" | tar -C "$DEST" -xf -',
        "folder": 'lz4 -dcq "$HERE/all" | tar -C "$DEST" -xf - "./$FOLDER"',
    },
)
_LISTED = 'tar -C "$SOURCE" --listed-incremental="$HERE/list" -cf - . | lz4 -1 -q >'
_AGAIN = f'cp "$HERE/first list" "$HERE/list" && {_LISTED} "$HERE/more" && sync "$HERE/more"'
_TAR_LISTED = Contender(
    name="tar listed",
    needs=("tar", "lz4"),
    commands={
        "first": f'{_LISTED} "$HERE/all" && mv "$HERE/list" "$HERE/first list" && sync "$HERE/all"',
        "unchanged": _AGAIN,
        "changed": _AGAIN,
    },
)
_OPENSSL = Contender(
    name="openssl",
    needs=("openssl",),
    commands={
        "verify": 'find "$MEDIUM/archives" -type f -exec openssl dgst -sha256 {} + > /dev/null'
    },
)
# For each work the peer that it is held against; the others are there to be looked at.
REFERENCES = {
    "first": _TAR,
    "unchanged": _TAR_LISTED,
    "changed": _TAR_LISTED,
    "verify": _OPENSSL,
    "restore": _TAR,
    "folder": _TAR,
}
_RESTIC = 'cd "$SOURCE" && restic -q backup .'
_BORG = 'cd "$SOURCE" && borg create --compression lz4 "$HERE/repository::'
_DAR = '-Q -q -R "$SOURCE" -zlz4:1'
_RSYNC = "rsync -aHXS --numeric-ids"
OTHERS = (
    Contender(
        name="restic",
        needs=("restic",),
        setup="restic -q init",
        env={"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": "$HERE/repository"},
        commands={
            "first": _RESTIC,
            "unchanged": _RESTIC,
            "verify": "restic -q check --read-data",
            "restore": 'restic -q restore latest --target "$DEST"',
        },
    ),
    Contender(
        name="borg",
        needs=("borg",),
        setup='borg init -e none "$HERE/repository"',
        env={"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"},
        commands={
            "first": f'{_BORG}first" .',
            "unchanged": f'{_BORG}unchanged" .',
            "verify": 'borg check --verify-data "$HERE/repository"',
            "restore": 'cd "$DEST" && borg extract "$HERE/repository::first"',
        },
    ),
    Contender(
        name="dar",
        needs=("dar",),
        commands={
            "first": f'dar -c "$HERE/first" {_DAR}',
            "unchanged": f'dar -c "$HERE/unchanged" -A "$HERE/first" {_DAR}',
            "verify": 'dar -Q -q -t "$HERE/first"',
            "restore": 'dar -Q -q -x "$HERE/first" -R "$DEST"',
        },
    ),
    Contender(
        name="rsync",
        needs=("rsync",),
        commands={
            "first": f'{_RSYNC} "$SOURCE/" "$HERE/first/"',
            "unchanged": f'{_RSYNC} --link-dest=../first "$SOURCE/" "$HERE/unchanged/"',
            "verify": f'{_RSYNC} -nc "$SOURCE/" "$HERE/first/"',
            "restore": f'{_RSYNC} "$HERE/first/" "$DEST/"',
        },
    ),
    Contender(
        name="cp",
        needs=("cp",),
        commands={
            "first": 'cp -a "$SOURCE/." "$HERE/first"',
            "restore": 'cp -a "$HERE/first/." "$DEST"',
        },
    ),
)


def contenders(wanted: list[str]) -> list[Contender]:
    """Return the program, those it is held against, and the wanted others where installed.

    SystemExit where there is nothing to hold it against.
    """
    needed = (PROGRAM, _TAR, _TAR_LISTED, _OPENSSL)
    lacking = sorted({tool for one in needed for tool in missing(one)})
    if lacking:
        sys.exit(f"install {', '.join(lacking)} first: the program is held against them")
    return [*needed, *(o for o in OTHERS if o.name in wanted and not missing(o))]


def missing(contender: Contender) -> list[str]:
    """Return the tools that a contender needs and that are not installed."""
    return [tool for tool in contender.needs if shutil.which(tool) is None]


def environment(contender: Contender, home: Path) -> dict[str, str]:
    """Return the environment of a contender: a home of its own, and nothing of the caller's."""
    env = Program(home).env
    env.pop("PYTHONDONTWRITEBYTECODE")  # the program is measured as it is once installed
    own = {key: value.replace("$HERE", str(home)) for key, value in contender.env.items()}
    return {**env, "HERE": str(home), "LC_ALL": "C.UTF-8", **own}


def versions(chosen: list[Contender]) -> dict[str, str]:
    """Return the version of each tool that is used."""
    return {tool: _version(tool) for tool in sorted({t for one in chosen for t in one.needs})}


def _version(tool: str) -> str:
    argument = "version" if tool in ("openssl", "restic") else "--version"
    done = subprocess.run([tool, argument], check=False, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else ""
