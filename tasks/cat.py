"""Cat: write the content of one file out, stretch by stretch, each checked before it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from tasks.catalog.selection import Selected
from tasks.catalog.stored import StoredFiles
from tasks.media.outlet import Outlet
from tasks.media.stable import zeros


def cat(selected: Selected, folders: Mapping[int, str], out: Outlet) -> None:
    """Write the content of the one file that is selected; `folders` are cartridges by serial.

    Raises FormatDamaged before the first wrong byte. All stretches may be right and the file wrong
    as a whole, where the catalog is damaged: then it is raised at the end.
    """
    with closing(StoredFiles(selected, folders)) as files:
        file = files.file(0)
        position = 0
        for offset, pieces in files.stretches(file):
            _write_hole(out, offset - position)
            position = offset
            with out.checked() as stretch:
                for piece in pieces:
                    stretch.write(piece)
                    position += len(piece)
        _write_hole(out, file.size - position)


def _write_hole(out: Outlet, size: int) -> None:
    for piece in zeros(size):
        with out.checked() as stretch:
            stretch.write(piece)
