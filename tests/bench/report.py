"""What was measured, as a table, as JSON and as a picture."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from html import escape

from tests.bench.peers import PROGRAM, REFERENCES
from tests.bench.works import BARS, WORKS, Sample

_TOLD = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "changed": "1 % changed",
    "verify": "verify everything",
    "restore": "restore everything",
    "folder": "restore one folder",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One work on one corpus; seconds are medians, None where a contender failed or had no turn.

    `ratio` is the median of what the rounds gave one by one, `lowest` and `highest` are its
    extremes; `holds` is None without a bar. `start` seconds are taken off before a verification is
    compared, since its peer is a single command that reads.
    """

    corpus: str
    work: str
    seconds: float | None
    start: float
    peer: str
    peer_seconds: float | None
    ratio: float | None
    lowest: float | None
    highest: float | None
    bar: float | None
    holds: bool | None
    peak: int
    others: dict[str, float | None]


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Work out the table."""
    done = {(sample.corpus, sample.work) for sample in samples}
    names = dict.fromkeys(sample.corpus for sample in samples)
    works = [work for work in WORKS if work in _TOLD]
    return [_row(samples, c, w) for c in names for w in works if (c, w) in done]


def _row(samples: Sequence[Sample], corpus: str, work: str) -> Row:
    mine = [s for s in samples if s.corpus == corpus]
    peer = REFERENCES[work].name
    own, theirs = _times(mine, work, PROGRAM.name), _times(mine, work, peer)
    start = _median(_times(mine, "start", PROGRAM.name).values()) if work == "verify" else None
    both = [(own[n] - (start or 0)) / theirs[n] for n in sorted(own.keys() & theirs.keys())]
    ratio, bar = _median(both), BARS.get((corpus, work))
    shown = {s.contender for s in mine if s.work == work} - {PROGRAM.name, peer}
    peaks = [s.run.peak for s in mine if s.work == work and s.contender == PROGRAM.name]
    return Row(
        corpus=corpus,
        work=work,
        seconds=_median(own.values()),
        start=start or 0.0,
        peer=peer,
        peer_seconds=_median(theirs.values()),
        ratio=ratio,
        lowest=min(both, default=None),
        highest=max(both, default=None),
        bar=bar,
        holds=None if bar is None or ratio is None else ratio <= bar,
        peak=max(peaks, default=0),
        others={name: _median(_times(mine, work, name).values()) for name in sorted(shown)},
    )


def _times(samples: Iterable[Sample], work: str, contender: str) -> dict[int, float]:
    """Return the seconds of each round; none at all where one of them failed."""
    found = [s for s in samples if (s.work, s.contender) == (work, contender)]
    if any(s.run.code for s in found):
        return {}
    return {s.round: s.run.seconds for s in found if s.round}


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def markdown(table: Sequence[Row], notes: Iterable[str]) -> str:
    """Write the table for people, with notes below it."""
    others = sorted({name for row in table for name in row.others})
    heads = ["corpus", "work", "seconds", "peer", "its seconds", "ratio", "bar", "holds", "peak MB"]
    lines = [f"| {' | '.join(heads + others)} |", "|---" * len(heads + others) + "|"]
    lines += [f"| {' | '.join(_cells(row, others))} |" for row in table]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _cells(row: Row, others: Sequence[str]) -> list[str]:
    spread = "" if row.ratio is None else f" ({row.lowest:.2f} to {row.highest:.2f})"
    holds = {True: "yes", False: "**no**", None: ""}[row.holds]
    return [
        row.corpus,
        _TOLD[row.work],
        _number(row.seconds),
        row.peer,
        _number(row.peer_seconds),
        _number(row.ratio) + spread,
        "" if row.bar is None else f"{row.bar:g}",
        holds,
        f"{row.peak / 1e6:.0f}" if row.peak else "",
        *(_number(row.others[name]) if name in row.others else "" for name in others),
    ]


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.2f}"


def inserted(readme: str, text: str) -> str:
    """Return a README with another text between the marks for it."""
    begin, end = "<!-- bench -->\n", "<!-- /bench -->"
    before, rest = readme.split(begin)
    return f"{before}{begin}{text}{end}{rest.split(end)[1]}"


_LEFT, _WIDTH, _HEIGHT = 220, 420, 26
# A longer bar is cut off: one of a peer that does next to nothing would hide all others.
_LONGEST = 8.0
_COLOURS = {True: "#3a7d44", False: "#b5382a", None: "#7a8794"}


def picture(table: Sequence[Row]) -> str:
    """Draw the ratios as bars, each with a line where its bar is, as SVG."""
    known = [row for row in table if row.ratio is not None]
    most = max([1.0, *(row.ratio or 0 for row in known), *(row.bar or 0 for row in known)])
    most = min(most, _LONGEST)
    height = _HEIGHT * (len(known) + 1)
    drawn = [_drawn(row, number, _WIDTH / most) for number, row in enumerate(known)]
    head = "Time of cartridge as a multiple of its peer's; the line is what it may take"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 60}" '
            f'height="{height + 8}" font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="8" y="18" font-weight="bold">{head}</text>',
            *drawn,
            "</svg>",
            "",
        ]
    )


def _drawn(row: Row, number: int, scale: float) -> str:
    assert row.ratio is not None
    top, length = _HEIGHT * (number + 1), min(max(0.0, row.ratio) * scale, _WIDTH)
    name = escape(f"{row.corpus}: {_TOLD[row.work]}")
    parts = [
        f'<text x="8" y="{top + 17}">{name}</text>',
        f'<rect x="{_LEFT}" y="{top + 4}" width="{length:.1f}" height="{_HEIGHT - 8}" '
        f'fill="{_COLOURS[row.holds]}"/>',
        f'<text x="{_LEFT + length + 6:.1f}" y="{top + 17}">{row.ratio:.2f}</text>',
    ]
    if row.bar is not None:
        place = _LEFT + row.bar * scale
        parts.append(
            f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{top + 1}" y2="{top + _HEIGHT - 1}" '
            'stroke="#000000" stroke-width="2"/>'
        )
    return "\n".join(parts)
