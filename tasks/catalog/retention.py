"""Which snapshots are kept, and why: a pure decision over their times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from tasks.model.profile import Retention
from tasks.model.units import snapshot_time

Period = Callable[[datetime], object]
_PERIODS: dict[str, Period] = {
    "keep_daily": lambda t: t.date(),
    "keep_weekly": lambda t: t.isocalendar()[:2],
    "keep_monthly": lambda t: (t.year, t.month),
    "keep_yearly": lambda t: t.year,
}


def reasons(snapshots: Sequence[str], rules: Retention) -> dict[str, list[str]]:
    """Return for every snapshot why it is kept; one without a reason is not.

    Of each day (week, month, year; local time) the newest snapshot counts. The newest of all is
    always kept, and without any rule all are.
    """
    newest_first = sorted(snapshots, reverse=True)
    kept: dict[str, list[str]] = {snapshot: [] for snapshot in sorted(snapshots)}
    limits = rules.model_dump(exclude_none=True)
    if not limits:
        return {snapshot: ["no [retention]: everything is kept"] for snapshot in kept}
    if newest_first:
        kept[newest_first[0]].append("newest")
    for snapshot in newest_first[: rules.keep_last or 0]:
        kept[snapshot].append("keep_last")
    for name, period in _PERIODS.items():
        for snapshot in _newest_of_each(newest_first, period)[: limits.get(name, 0)]:
            kept[snapshot].append(name)
    return kept


def _newest_of_each(newest_first: Sequence[str], period: Period) -> list[str]:
    found: dict[object, str] = {}
    for snapshot in newest_first:
        found.setdefault(period(snapshot_time(snapshot).astimezone()), snapshot)
    return list(found.values())
