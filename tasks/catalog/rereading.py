"""Which archives of a cartridge are read back once a run has written to it."""

from __future__ import annotations

import random

from tasks.catalog.runs import Run
from tasks.media.cartridge import Cartridge

# Bytes of earlier archives that are read at least.
_EARLIER = 256 << 20


def to_be_read(run: Run, cartridge: Cartridge) -> dict[str, str]:
    """Return digests by name: of what the run wrote, the newest first, and of earlier archives.

    A stick that lies about its size overwrites what it had: of earlier ones as much is read as was
    written, and always some, chosen anew in each run. Of a tape the newest are at hand.
    """
    lines = cartridge.journal()
    mine = [line for line in lines if line.snapshot == run.snapshot]
    earlier = [line for line in lines if line.snapshot != run.snapshot]
    random.Random(run.snapshot).shuffle(earlier)
    chosen, budget = mine[::-1], max(_EARLIER, sum(line.bytes for line in mine))
    for line in earlier:
        budget -= line.bytes
        if budget >= 0:
            chosen.append(line)
    return {line.archive: line.sha256 for line in chosen}
