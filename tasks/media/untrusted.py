"""Files of a cartridge, which is untrusted: any of them may be a link, a pipe, or without end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterator

from tasks.model.errors import FormatDamaged

_PIECE = 4 << 20
_LARGEST_FILE = 4 << 30


def drop_cached(path: str) -> None:
    """Forget what memory has of a file on a cartridge, so that the medium is read next.

    One that cannot be opened is left to whoever reads it.
    """
    with contextlib.suppress(OSError, FormatDamaged), open_untrusted(path) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_out(source: str, target: str) -> str:
    """Copy a file off a cartridge; return its SHA-256 as the medium has it.

    Raises FileNotFoundError, and FormatDamaged where it cannot be read or is no file of ours; other
    errors of the operating system are those of the target.
    """
    digest, size = hashlib.sha256(), 0
    with open_untrusted(source) as reader, open(target, "wb") as writer:
        for piece in _pieces(reader, source):
            size += len(piece)
            if size > _LARGEST_FILE:
                raise FormatDamaged(file=source, reason="it is larger than any file of ours")
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def open_untrusted(path: str) -> io.FileIO:
    """Open a regular file that no link leads to; FormatDamaged for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FormatDamaged(file=path, reason=error.strerror or error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatDamaged(file=path, reason="it is no regular file")
    return io.FileIO(fd)


def _pieces(file: io.FileIO, path: str) -> Iterator[bytes]:
    """Read a file to its end; what cannot be read is damage."""
    try:
        while piece := file.read(_PIECE):
            yield piece
    except OSError as error:
        raise FormatDamaged(file=path, reason=error.strerror or error) from error
