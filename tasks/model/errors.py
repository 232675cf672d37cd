"""Everything that can go wrong, as one class each: a sentence, a help and an exit code.

CartridgeError
├── UsageError            2
├── ProfileMissing        2
├── ProfileExists         2
├── CatalogExists         2
├── ProfileInvalid        2
├── SourceMissing         1
├── SourceNotMounted      1
├── SourceEmpty           1
├── SourceShrunk          1
├── ForeignVolume         1
├── VolumeUnusable        1
├── LabelledAlready       1
├── NoCartridge           1
├── WrongCartridge        1
├── FormatUnsupported     1
├── FormatDamaged         1
├── SnapshotMissing       1
├── NothingSelected       1
├── DestinationUnusable   1
├── MountFailed           1
├── WorkspaceFull         1
├── CartridgeFailed       1
├── CartridgeFull         1
├── ArchiveNumbersUsedUp  1
├── HookFailed            1
├── PackAgain             1
├── StageFailed           1
├── CartridgeWanted       4
├── SpoolFull             4
├── DamageFound           5
├── RunActive             6
├── RunUnfinished         6
└── Interrupted         130
"""

from __future__ import annotations

import os
from typing import ClassVar


class CartridgeError(Exception):
    """The root of all errors that a user reads; `facts` fill the message template."""

    template: ClassVar[str] = "{reason}"
    help: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1

    def __init__(self, **facts: object) -> None:
        self.facts = {key: str(value) for key, value in facts.items()}
        text = self.template.format(**self.facts)
        is_twice = text.endswith("..") and self.template.endswith(".")  # a reason may have its own
        super().__init__(text[:-1] if is_twice else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the facts, and notes, when the error crosses a process border."""
        return (_rebuild, (type(self).__name__, self.facts), self.__dict__)

    @property
    def name(self) -> str:
        """The stable identifier that `--json` prints."""
        return type(self).__name__


class UsageError(CartridgeError):
    """The command line asks for something that does not exist or fit."""

    help = "See 'cartridge COMMAND --help'."
    exit_code = 2


class ProfileMissing(CartridgeError):
    """No profile of that name lies in the workspace."""

    template = "There is no profile '{profile}' in {folder}."
    help = "Write one with 'cartridge init', or name the workspace with --workspace."
    exit_code = 2


class ProfileExists(CartridgeError):
    """A profile is never overwritten."""

    template = "The profile '{profile}' exists already: {file}."
    help = "Edit that file, or choose another name."
    exit_code = 2


class CatalogExists(CartridgeError):
    """A catalog is never overwritten."""

    template = "The workspace has a catalog of '{profile}' already: {folder}."
    help = "Name another workspace with --workspace, or move that folder away."
    exit_code = 2


class ProfileInvalid(CartridgeError):
    """One or more mistakes in a profile, all reported at once."""

    template = "{file} has {count} mistake(s):\n{mistakes}"
    help = "Correct the file and run again; nothing was started."
    exit_code = 2


class SourceMissing(CartridgeError):
    """A source folder is not there."""

    template = "The source '{source}' is not a folder that can be read: {path} ({reason})."
    help = "Mount or create it, or correct its path in the profile; nothing was written."


class SourceNotMounted(CartridgeError):
    """`must_be_mount` is set and the path is not a mount point."""

    template = "The source '{source}' is not mounted: {path} is no mount point."
    help = "Mount it and run again; nothing was written."


class SourceEmpty(CartridgeError):
    """A source without a single entry is more often a missing mount than a wish."""

    template = "The source '{source}' is empty: {path}."
    help = "Is it mounted? If it is meant to be empty, run again with --allow-shrink."


class SourceShrunk(CartridgeError):
    """A source lost most of its files since the last snapshot."""

    template = (
        "The source '{source}' lost most of its files: {before} before, {now} now, in {path}."
    )
    help = "If that is meant, run again with --allow-shrink; nothing was written."


class ForeignVolume(CartridgeError):
    """A volume to be labelled holds something else."""

    template = "{path} is not empty and no cartridge ({found}); it was not labelled."
    help = "Empty it yourself if nothing on it is needed, or choose another volume."


class VolumeUnusable(CartridgeError):
    """A volume cannot be labelled or written."""

    template = "{path} cannot be used as a cartridge: {reason}."
    help = "Check that it is mounted, writable and has room."


class LabelledAlready(CartridgeError):
    """A volume that is to be labelled is a cartridge."""

    template = "{path} is cartridge {label} already."
    help = "It can be used as it is. To make another one of it, empty it: what it holds is lost."


class NoCartridge(CartridgeError):
    """A folder that is to be read as a cartridge is none."""

    template = "{path} is no cartridge: it has no label, CARTRIDGE.json."
    help = "Check that its volume is mounted there."


class WrongCartridge(CartridgeError):
    """A cartridge is present that must not be written."""

    template = "{path} holds {label}, which is refused: {reason}."
    help = "Insert the right cartridge and run again; this one was not written."


class FormatUnsupported(CartridgeError):
    """Something was written by a newer version of this program."""

    template = "{file} has format version {version}, and this program reads up to {known}."
    help = "Install a newer version of cartridge."


class FormatDamaged(CartridgeError):
    """A file of ours does not read as what it should be."""

    template = "{file} is damaged: {reason}."
    help = (
        "On a cartridge: run 'cartridge verify', or take the copy on another one. "
        "In the workspace: move that aside, and 'cartridge recover DIR...' makes it again."
    )


class SnapshotMissing(CartridgeError):
    """No snapshot answers to what was asked."""

    template = "The profile '{profile}' has no snapshot {wanted}."
    help = "See 'cartridge snapshots {profile}'."

    def __init__(self, **facts: object) -> None:
        super().__init__(**facts)
        self.help = type(self).help.format(**self.facts)  # type: ignore[misc]


class NothingSelected(CartridgeError):
    """The patterns match no entry of the snapshot."""

    template = "Nothing in snapshot {snapshot} matches {patterns}."
    help = "See 'cartridge ls' or 'cartridge find' for what is there."


class DestinationUnusable(CartridgeError):
    """The place to restore to cannot be written."""

    template = "Cannot write to {path}: {reason}."
    help = "Choose another destination, or make room there, and run again."


class MountFailed(CartridgeError):
    """The system did not mount the snapshots, or ended the mount by itself."""

    template = "The snapshots cannot be mounted at {path}: {reason}."
    help = "Check that this user may mount with FUSE, and that /dev/fuse is there."


class WorkspaceFull(CartridgeError):
    """The disk of the workspace has no room."""

    template = "The workspace disk is full: {path}."
    help = "Make room and run again; what was finished is kept."


class CartridgeFailed(CartridgeError):
    """The operating system refused to write or read a cartridge."""

    template = "Cartridge {label} at {path} failed: {reason}."
    help = "Check the medium and its cable, then run again; what was finished is kept."


class CartridgeFull(CartridgeError):
    """A cartridge has no room for what is needed to make it complete."""

    template = "Cartridge {label} at {path} is full: {reason}."
    help = "Free some room on it, or set it aside with 'cartridge lost', and run again."


class ArchiveNumbersUsedUp(CartridgeError):
    """One task makes so many archives that their numbers would be another's."""

    template = "More than {limit} archives would come of one bundle of files."
    help = "Set a larger [archive] archive_size, or larger cartridges, and begin a new run."


class HookFailed(CartridgeError):
    """A command of `[hooks]` ended badly; before the backup, that ends the run."""

    template = "The hook '{event}' failed: {reason} ({command})."
    help = "Run the command by hand and repair it, or take it out of [hooks]."


class RunUnfinished(CartridgeError):
    """An unfinished snapshot may refer to what would be removed."""

    template = "Snapshot {snapshot} of '{profile}' is unfinished and may need what would go."
    help = "Finish it with 'cartridge backup', or give it up with 'cartridge backup --abandon'."
    exit_code = 6


class PackAgain(CartridgeError):
    """A cartridge took less than it seemed to have room for; the run goes on by itself."""

    template = "Cartridge {label} took less than expected; some archives go to the next one."
    help = "Run the same command again to go on; everything finished is kept."


class StageFailed(CartridgeError):
    """A stage ended in a way that nobody foresaw."""

    template = "{stage} failed: {reason}"
    help = "Run again to go on from the last finished stage; --debug shows the traceback."

    @classmethod
    def from_error(cls, stage: str, error: Exception) -> StageFailed:
        """Tell of an error that is none of these."""
        if isinstance(error, MemoryError):
            return cls(stage=stage, reason="there was not enough memory for it")
        if isinstance(error, OSError) and error.strerror and error.filename:
            return cls(stage=stage, reason=f"{os.fsdecode(error.filename)}: {error.strerror}")
        return cls(stage=stage, reason=f"{type(error).__name__}: {error}")


class CartridgeWanted(CartridgeError):
    """The next cartridge is not there."""

    template = "Waiting for cartridge {label}: {reason}."
    help = "Insert it and run the same command again; everything so far is kept."
    exit_code = 4


class SpoolFull(CartridgeError):
    """Packing is ahead of writing by as much as it may be."""

    template = "The spool is full ({used} of {limit} bytes) and no cartridge takes from it."
    help = "Insert the next cartridge and run again; everything so far is kept."
    exit_code = 4


class DamageFound(CartridgeError):
    """Stored bytes are not what was written."""

    template = "Damage found: {damage}."
    help = "Restore what is needed from other snapshots or copies; replace the medium."
    exit_code = 5


class RunActive(CartridgeError):
    """Another run holds the profile."""

    template = "Another run holds the profile '{profile}': {holder}."
    help = "Wait for it to end, or stop it."
    exit_code = 6


class Interrupted(CartridgeError):
    """A signal ended the run."""

    template = "Interrupted."
    help = "Run the same command again to go on; everything finished is kept."
    exit_code = 130


def every_error() -> dict[str, type[CartridgeError]]:
    """Return all error classes by their stable names."""
    return {cls.__name__: cls for cls in CartridgeError.__subclasses__()}


def _rebuild(name: str, facts: dict[str, str]) -> CartridgeError:
    return rebuild(name, facts)


def rebuild(name: str, facts: dict[str, str]) -> CartridgeError:
    """Make an error again from the name and facts that a task recorded."""
    return every_error()[name](**facts)
