"""`python -m tests.bench`: how fast the program is, beside its peers and as its work grows."""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests.bench import growth, peers, report, works
from tests.bench.corpora import CORPORA
from tests.helpers.program import REPOSITORY

# Where the picture lies that the README shows.
_PICTURE = "tests/bench/bench.svg"


def main(args: Sequence[str]) -> int:
    """Measure, and write the tables; 1 where a command of the program failed."""
    chosen = _parser().parse_args(args)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cartridge-bench-", dir=chosen.on) as folder:
        if chosen.growth is not None:
            return _growth(chosen, Path(folder))
        return _works(chosen, Path(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--corpora", type=_list, default=list(CORPORA), help="small,mixed,large")
    add("--works", type=_list, default=list(works.WORKS), help=",".join(works.WORKS))
    names = [other.name for other in peers.OTHERS]
    add("--peers", type=_list, default=names, help=f"further columns, or none: {','.join(names)}")
    add("--scale", type=float, default=1.0, help="0.01 makes everything a hundred times smaller")
    add("--rounds", type=int, default=5, help="the table has their median")
    add("--on", type=Path, default=None, help="where the trees are made; tens of GB are needed")
    add("--out", type=Path, default=Path("bench-results"), help="where the tables are written")
    add("--fill-memory", action="store_true", help="before each command; for virtual machines")
    add("--readme", action="store_true", help="put the table into the README, too")
    measures = ",".join(growth.MEASURES)
    add("--growth", type=_list, nargs="?", const=list(growth.MEASURES), help=measures)
    add("--entries", type=_numbers, default=[100_000, 1_000_000, 2_000_000], help="of `files`")
    return parser


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word and word != "none"]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _list(text)]


def _works(chosen: argparse.Namespace, folder: Path) -> int:
    plan = works.Plan(
        folder=folder,
        corpora=chosen.corpora,
        works=_with_what_they_need(chosen.works),
        contenders=peers.contenders(chosen.peers),
        scale=chosen.scale,
        rounds=chosen.rounds,
        fill=chosen.fill_memory,
    )
    machine = _machine()
    samples = list(works.measured(plan))
    table = report.rows(samples)
    facts = {
        **machine,
        "scale": plan.scale,
        "rounds": plan.rounds,
        "tools": peers.versions(plan.contenders),
        "table": [dataclasses.asdict(row) for row in table],
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    text = report.markdown(table, _notes(chosen, facts))
    _write(chosen.out, "bench", text, facts)
    picture = report.picture(table)
    (chosen.out / "bench.svg").write_text(picture, "utf-8")
    if chosen.readme:
        (REPOSITORY / _PICTURE).write_text(picture, "utf-8")
        readme = REPOSITORY / "README.md"
        shown = f"{text}\n![Ratios of the table as bars]({_PICTURE})\n"
        readme.write_text(report.inserted(readme.read_text("utf-8"), shown), "utf-8")
    failed = [s for s in samples if s.run.code and s.contender == peers.PROGRAM.name]
    return 1 if failed else 0


def _with_what_they_need(wanted: list[str]) -> list[str]:
    """Return works in the order in which they are done: nothing goes without a first backup."""
    needed = {"first", *(["start"] if "verify" in wanted else []), *wanted}
    return [work for work in works.WORKS if work in needed]


def _growth(chosen: argparse.Namespace, folder: Path) -> int:
    facts = _machine()
    entries = [int(count * chosen.scale) for count in chosen.entries]
    found = growth.measured(chosen.growth, folder, chosen.scale, entries)
    facts |= {"scale": chosen.scale, "growth": [dataclasses.asdict(one) for one in found]}
    _write(chosen.out, "growth", growth.markdown(found), facts)
    return 0


def _write(out: Path, name: str, text: str, facts: dict[str, Any]) -> None:
    (out / f"{name}.md").write_text(text, "utf-8")
    (out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(text)


def _machine() -> dict[str, Any]:
    """Describe where and when this is measured; a load above 0 says that others work there, too."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "load": round(os.getloadavg()[0], 2),
    }


def _notes(chosen: argparse.Namespace, facts: dict[str, Any]) -> list[str]:
    told = ", ".join(f"{tool} {version}" for tool, version in facts["tools"].items())
    absent = sorted({t for o in peers.OTHERS if o.name in chosen.peers for t in peers.missing(o)})
    starts = [row["start"] for row in facts["table"] if row["start"]]
    notes = [
        f"{facts['date']}, {facts['system']}, {facts['processors']} processors, "
        f"{facts['memory'] / 1e9:.0f} GB, Python {facts['python']}, load {facts['load']} before.",
        f"Scale {facts['scale']:g}, medians of {facts['rounds']} rounds, the program and its peers "
        "in turn; the ratio is the median of the rounds' own, its extremes in brackets.",
        f"Peers: {told}.",
    ]
    if starts:
        shown = " to ".join(f"{start:.2f}" for start in sorted({min(starts), max(starts)}))
        notes.append(f"Of a verification {shown} s of start-up are taken off for the ratio.")
    return [*notes, *([f"Not installed: {', '.join(absent)}."] if absent else [])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
