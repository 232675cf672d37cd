"""Manifests drawn at random, and catalogs to put them into."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tasks.catalog.store import Store
from tests.helpers.catalogs import archive_name, part
from tests.helpers.rows import WHEN, Row, key, row

DAYS = [f"202601{day:02}T000000Z" for day in range(1, 29)]
NAMES = (b"a", b"b", b"A", b"a-", b"a.b", b"a b", b"\n", b"*", b"[a]", b"\xff", b"\xfe", b"-", b"!")
TWINS = ("\N{REPLACEMENT CHARACTER}".encode(), "caf\u00e9".encode(), "\N{SNOWMAN}".encode())


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    """The rows of a snapshot: two sources, odd names, every kind of content."""
    name = st.sampled_from(NAMES + TWINS)
    raw = st.lists(name, min_size=1, max_size=3).map(b"/".join)
    places = draw(st.sets(st.tuples(st.sampled_from(("s", "s-2", "a")), raw), max_size=25))
    return sorted((draw(_rows(*place)) for place in places), key=key)


@st.composite
def _rows(draw: st.DrawFn, source: str, raw: bytes) -> Row:
    kind = draw(st.sampled_from(("file", "file", "file", "dir", "symlink", "hardlink")))
    facts: dict[str, Any] = {
        "mtime": WHEN + draw(st.integers(-3, 3)),
        "ctime": WHEN + draw(st.integers(0, 1)),
        "inode": draw(st.integers(1, 5)),
        "mode": draw(st.sampled_from((0o644, 0o600))),
    }
    if kind == "file":
        facts["size"] = draw(st.integers(0, 5))
        names = st.none() | st.integers(0, 4).map(archive_name)
        facts["parts"] = [part(name) for name in draw(st.lists(names, max_size=3))]
        facts["sha256"] = bytes([facts["size"]]) * 32
        facts["xattrs"] = draw(st.sampled_from((None, [("user.a", b"1")])))
    elif kind != "dir":
        facts["link_target"] = draw(st.sampled_from(NAMES))
    return row(raw, kind, source=source, **facts)


def raw_name(of: Row) -> bytes:
    return key(of).removesuffix(b"/")


def new_store(folder: Path) -> Store:
    """Make an empty catalog in a folder."""
    store = Store(str(folder / "catalog"))
    store.create()
    return store
