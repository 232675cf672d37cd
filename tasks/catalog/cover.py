"""Which cartridges to read: those at hand before others, and as few as hold all that is needed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

# So many cartridges that could stand in for each other are tried in every combination.
_EXACT = 12

Group = frozenset[int]


def cover(holders: Iterable[Collection[int]], present: Collection[int]) -> list[int]:
    """Return the cartridges to read, by serial and in reading order, so that each thing is read.

    `holders` has, for each thing that is needed, the serials of all cartridges that hold it; what
    nothing holds is left out. As few absent cartridges as possible are chosen, and of such choices
    the one with the fewest in all. That is exact where no more than twelve of them could stand in
    for each other (without copies none can); where more could, each next one is that which holds
    most of what is left, and there may be ln(n) times as many as needed. Those present come first.
    """
    groups = {frozenset(serials) for serials in holders if serials}
    chosen = {serial for group in groups if len(group) == 1 for serial in group}
    for part in _parts({group for group in groups if not group & chosen}):
        candidates = sorted(frozenset[int]().union(*part))
        choose = _fewest if len(candidates) <= _EXACT else _greedy
        chosen |= choose(part, candidates, present)
    return sorted(chosen, key=lambda serial: (serial not in present, serial))


def shares(holders: Sequence[Collection[int]], chosen: Sequence[int]) -> dict[int, list[int]]:
    """Share things out among the chosen cartridges: each to the first that holds it, by index."""
    found: dict[int, list[int]] = {serial: [] for serial in chosen}
    for index, serials in enumerate(holders):
        first = next((serial for serial in chosen if serial in serials), None)
        if first is not None:
            found[first].append(index)
    return found


def _parts(groups: set[Group]) -> list[list[Group]]:
    """Split groups into parts that have no cartridge in common, to be decided one by one."""
    parts: list[tuple[Group, list[Group]]] = []
    for group in sorted(groups, key=sorted):
        touched = [part for part in parts if part[0] & group]
        parts = [part for part in parts if not part[0] & group]
        merged = group.union(*(serials for serials, _ in touched))
        parts.append((merged, [group, *itertools.chain(*(members for _, members in touched))]))
    return [members for _, members in parts]


def _fewest(groups: list[Group], candidates: list[int], present: Collection[int]) -> Group:
    """Try every combination."""
    sets = itertools.chain.from_iterable(
        itertools.combinations(candidates, size) for size in range(1, len(candidates) + 1)
    )
    enough = (s for s in map(frozenset, sets) if all(s & group for group in groups))
    return min(enough, key=lambda s: (len(s.difference(present)), len(s), sorted(s)))


def _greedy(groups: list[Group], candidates: list[int], present: Collection[int]) -> Group:
    """Take the best of those present as long as one helps, then the best of the others."""
    chosen: set[int] = set()
    left = groups
    while left:
        at_hand = [c for c in candidates if c in present and any(c in group for group in left)]
        best = max(at_hand or candidates, key=lambda c: (sum(c in g for g in left), -c))
        chosen.add(best)
        left = [group for group in left if best not in group]
    return frozenset(chosen)
