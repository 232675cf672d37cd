"""A cartridge that is present: its label, its journal, and writing it archive by archive."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping

from tasks.formats.records import (
    journal_text,
    read_journal,
    read_label,
    read_sums,
    sums_text,
    to_json,
)
from tasks.media import durable, layout
from tasks.media.layout import JOURNAL, LABEL, SUMS
from tasks.model.errors import (
    CartridgeError,
    CartridgeFailed,
    CartridgeFull,
    CartridgeWanted,
    FormatDamaged,
    RunActive,
)
from tasks.model.words import FORMAT_VERSION, JournalLine, Label

_SUMS_DRAFT = SUMS + durable.DRAFT
_BLOCK = 4096
_JOURNAL_LINE = 256
_COPY = 8 << 20
# Bytes: more than the lists of a million archives take.
_LARGEST_LIST = 256 << 20
# Another file system, one without hard links, or one whose count of them is used up.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def rounded(size: int) -> int:
    """Return the bytes that a file of `size` takes on a volume with 4 KiB blocks."""
    return -(-size // _BLOCK) * _BLOCK


class Cartridge:
    """A labelled volume at `path`; what its journal names lies whole on it, nothing else counts.

    Errors of the operating system become CartridgeFull, CartridgeFailed or CartridgeWanted.
    """

    def __init__(self, path: str, label: Label) -> None:
        self.path = path
        self.label = label
        # While it is written, its files are named below the open folder, so that all go to this
        # volume and none to the folder that it was mounted on.
        self._base = path
        self._used = -1

    @classmethod
    def open(cls, path: str) -> Cartridge:
        """Read the label at `path`; FileNotFoundError where there is none."""
        file = os.path.join(path, LABEL)
        return cls(path, read_label(durable.read_untrusted(file, limit=1 << 20), file))

    @classmethod
    def nameless(cls, path: str) -> Cartridge:
        """Return the cartridge at `path`, whose label cannot be read."""
        unknown = Label(
            format_version=FORMAT_VERSION,
            set="unknown",
            serial=0,
            uuid="",
            profile="",
            capacity=None,
            created="",
            codec="",
            encryption="",
        )
        return cls(path, unknown)

    def file(self, name: str) -> str:
        """Name a file on the cartridge; `name` is relative to its top."""
        return os.path.join(self._base, name)

    def journal(self) -> list[JournalLine]:
        """Read which archives lie here, in the order they were placed."""
        try:
            with self._medium():
                text = durable.read_untrusted(self.file(JOURNAL), limit=_LARGEST_LIST)
        except FileNotFoundError:
            return []
        return read_journal(text, self.file(JOURNAL))

    def sums(self) -> dict[str, str]:
        """Read what SHA256SUMS says, {} where the cartridge was never sealed."""
        try:
            with self._medium():
                text = durable.read_untrusted(self.file(SUMS), limit=_LARGEST_LIST)
        except FileNotFoundError:
            return {}
        return read_sums(text, self.file(SUMS))

    def has_its_label(self) -> bool:
        """Whether the label is the one that was sealed, as far as the list of sums can tell."""
        try:
            sealed = self.sums().get(LABEL)
        except (CartridgeError, OSError):
            return True
        return sealed is None or sealed == file_digest(self.file(LABEL))

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield (name, size in bytes) of every regular file of the cartridge."""
        with self._medium():
            for name, facts in layout.files(self._base):
                yield name, facts.st_size

    def lists(self) -> dict[str, tuple[int, int]]:
        """Return size and time of all files but the archives: name -> (bytes, nanoseconds)."""
        with self._medium():
            return {
                name: (facts.st_size, facts.st_mtime_ns)
                for name, facts in layout.files(self._base)
                if not name.startswith("archives/")
            }

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the cartridge against other writers while the block runs.

        The lock lies on the directory itself, so that nothing is added to the medium. Raises
        CartridgeWanted where the volume is taken away meanwhile.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._base = f"/proc/self/fd/{fd}"
            self._require_label()
            yield
            self._require_mounted()
        except BlockingIOError as error:
            holder = f"somebody writes cartridge {self.label.title}"
            raise RunActive(profile=self.label.profile, holder=holder) from error
        finally:
            self._base = self.path
            os.close(fd)

    def is_being_sealed(self) -> bool:
        """Whether somebody puts a seal here; the draft that a killed one left is no such sign."""
        if not self._is_half_sealed:
            return False
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    @contextlib.contextmanager
    def _medium(self) -> Iterator[None]:
        """Turn errors of the operating system into those of this cartridge.

        Raises CartridgeFull, CartridgeFailed, and CartridgeWanted where the volume is gone.
        """
        try:
            yield
        except FileNotFoundError:
            self._require_mounted()
            raise
        except OSError as error:
            self._require_mounted()
            kind = CartridgeFull if error.errno in _FULL else CartridgeFailed
            reason = error.strerror or error
            raise kind(label=self.label.title, path=self.path, reason=reason) from error

    def _require_label(self) -> None:
        """Raise CartridgeWanted where what was opened is not this volume, but where it was."""
        try:
            found = Cartridge.open(self._base).label.uuid
        except (OSError, CartridgeError):
            found = None
        if found != self.label.uuid:
            reason = f"it was taken away from {self.path} before it was written"
            raise CartridgeWanted(label=self.label.title, reason=reason)

    def _require_mounted(self) -> None:
        """Raise CartridgeWanted where `path` does not lead to the volume that is written."""
        try:
            there = os.path.samestat(os.stat(self._base), os.stat(self.path))
        except OSError:
            there = False
        if not there:
            reason = f"it was taken away from {self.path} while it was in use"
            raise CartridgeWanted(label=self.label.title, reason=reason)

    def tidy(self, snapshots: Collection[str]) -> None:
        """Remove what an interrupted write or prune of some snapshots left.

        These are drafts of ours, and archives of these snapshots that the journal does not name.
        The draft of SHA256SUMS stays until the next seal, which has to know of it.
        """
        known = {line.archive for line in self.journal()}
        ours = tuple(f"archives/{snapshot}/" for snapshot in snapshots)
        with self._medium():
            for name, _size in list(self.files()):
                is_left = layout.is_draft(name) and name != _SUMS_DRAFT
                if is_left or (name.startswith(ours) and name not in known):
                    os.unlink(self.file(name))
        self._used = -1

    def unaccounted(self) -> list[str]:
        """Return archives that are here, or should be, and that the journal does not name."""
        known = {line.archive for line in self.journal()}
        here = {name for name, _ in self.files() if name.endswith(".lz4")} | self.sums().keys()
        return sorted(n for n in here if n.startswith("archives/") and n not in known)

    def used(self) -> int:
        """Return the bytes that the cartridge takes, in whole blocks, directories included."""
        if self._used < 0:
            with self._medium():
                self._used = sum(rounded(size) for _, size in self.files())
                self._used += sum(_BLOCK for _ in layout.folders(self._base))
        return self._used

    def room(self, cap: int | None) -> int:
        """Return the bytes that may still be written, below the caps and the real free space."""
        facts = os.statvfs(self._base)
        total = facts.f_blocks * facts.f_frsize
        free = facts.f_bavail * facts.f_frsize - min(1 << 20, total // 256)
        for limit in (cap, self.label.capacity):
            if limit is not None:
                free = min(free, limit - self.used())
        return free

    def cost(self, size: int) -> int:
        """Return the room that an archive of `size` bytes needs, with its lines in the lists."""
        return rounded(size) + _BLOCK + _JOURNAL_LINE

    def place(self, line: JournalLine, spooled: str) -> None:
        """Bring an archive here, flush it, then say so in the journal.

        On the spool's own file system it gets a second name instead of a copy: it is flushed there
        already, and the spool only ever removes its name, or puts another file in its place.
        """
        with self._medium():
            durable.make_folders(os.path.dirname(self.file(line.archive)))
            try:
                with durable.replacing(self.file(line.archive)) as draft:
                    durable.remove(draft)  # a killed run's: writing to it would write to the spool
                    if not _link(spooled, draft):
                        _copy(spooled, draft)
                    there = os.path.getsize(draft)
                    if there != line.bytes:
                        raise OSError(errno.EIO, f"{there} of {line.bytes} bytes arrived")
                durable.append_line(self.file(JOURNAL), to_json(line))
            except OSError:
                durable.remove(self.file(line.archive))  # nobody would know of it
                raise
        self._used = self.used() + self.cost(line.bytes)

    def drop(self, archives: set[str]) -> int:
        """Remove archives, the journal lines before the data; return the bytes freed."""
        lines = self.journal()
        dead = [line for line in lines if line.archive in archives]
        if not dead:
            return 0
        with self._medium():
            kept = journal_text(line for line in lines if line.archive not in archives)
            if durable.read_untrusted(self.file(JOURNAL), _LARGEST_LIST).startswith(kept):
                durable.cut(self.file(JOURNAL), len(kept))  # on a full volume too
            else:
                durable.write_whole(self.file(JOURNAL), kept)
            for line in dead:
                durable.remove(self.file(line.archive))
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(self.file(line.archive)))
        self._used = -1
        return sum(line.bytes for line in dead)

    def seal(self, files: Mapping[str, str | bytes], stale: set[str]) -> None:
        """Put the catalog's files here (name -> path or content), and the list of all sums.

        `stale` are names that go. All is written before any of it gets its name: where there is no
        room for it, the cartridge is as it was. The draft of the list stays to the end: as long as
        it lies there, the list that has its name need not be right.
        """
        with self._medium():
            drafts = self._drafts(files, stale)
            for name in files:
                durable.publish(drafts[name], self.file(name))
            for name in stale:
                durable.remove(self.file(name))
            durable.publish(drafts[SUMS], self.file(SUMS))
        self._used = -1

    def _drafts(self, files: Mapping[str, str | bytes], stale: set[str]) -> dict[str, str]:
        """Write files and the list of sums as drafts; return name -> draft."""
        drafts = {name: self.file(name) + durable.DRAFT for name in [*files, SUMS]}
        made = [drafts[name] for name in drafts if not self._is_half_sealed or name != SUMS]
        try:
            for name, content in files.items():
                durable.make_folders(os.path.dirname(drafts[name]))
                _put(content, drafts[name])
            sums = self._sums_of({*files, *stale})
            sums |= {name: file_digest(drafts[name]) for name in files}
            _put(sums_text(sums), drafts[SUMS])
        except BaseException:
            for draft in made:
                durable.remove(draft)
            raise
        return drafts

    def write_sums(self) -> None:
        """Write SHA256SUMS, where the seal that was to do it failed."""
        with self._medium():
            durable.write_whole(self.file(SUMS), sums_text(self._sums_of(set())))

    def _sums_of(self, but: set[str]) -> dict[str, str]:
        """Return the sums of what is here, but for some names.

        Archives are what the journal says, and earlier manifests what they were when they were
        sealed: to read them all again would take longer with every snapshot, and call that right
        which has been damaged since.
        """
        archives = {line.archive: line.sha256 for line in self.journal()}
        known = self._lasting() | archives
        names = [n for n, _ in self.files() if layout.is_listed(n) and n not in but]
        return archives | {n: known.get(n) or file_digest(self.file(n)) for n in names}

    @property
    def _is_half_sealed(self) -> bool:
        """Whether a seal was cut short, so that the list of sums need not be right."""
        return os.path.lexists(self.file(_SUMS_DRAFT))

    def _lasting(self) -> dict[str, str]:
        """Return the sums of what keeps its content, {} where the list of them may be wrong."""
        if self._is_half_sealed:
            return {}
        with contextlib.suppress(FormatDamaged):
            return {n: digest for n, digest in self.sums().items() if layout.is_lasting(n)}
        return {}


def volume_size(path: str) -> int:
    """Return the size of the volume at a path, in bytes."""
    facts = os.statvfs(path)
    return facts.f_blocks * facts.f_frsize


def file_digest(path: str) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(content: str | bytes, target: str) -> None:
    """Write a file, or copy the one of that path, and flush it."""
    if isinstance(content, bytes):
        with open(target, "wb") as file:
            file.write(content)
    else:
        _copy(content, target)
    durable.sync_file(target)


def _link(source: str, target: str) -> bool:
    """Give a file a second name; False where the two file systems are not one that can."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copy(source: str, target: str) -> None:
    """Copy a file inside the kernel."""
    copied = 0
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while count := os.sendfile(writer.fileno(), reader.fileno(), copied, _COPY):
            copied += count
