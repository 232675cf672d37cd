"""A profile is checked whole: every mistake at once, each with its file, key and remedy."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.model.errors import ProfileInvalid
from tasks.model.profile import Profile, free_name, is_source_name, parse_profile

FILE = "/w/profiles/home.toml"
SOURCE = '[[source]]\npath = "/data/letters"\n'
TABLES = ("cartridges", "archive", "retention", "run")


def parsed(text: str) -> Profile:
    return parse_profile("home", text, FILE)


def mistakes(text: str) -> dict[str, str]:
    """What a profile is refused for: key -> what is said of it."""
    with pytest.raises(ProfileInvalid) as caught:
        parsed(text)
    lines = caught.value.facts["mistakes"].split("\n")
    assert caught.value.facts["count"] == str(len(lines))
    assert caught.value.exit_code == 2
    assert all(line.startswith(f"{FILE}: ") for line in lines), lines
    return dict(line.removeprefix(f"{FILE}: ").split(": ", 1) for line in lines)


def sources(*paths: str) -> str:
    return "".join(f"[[source]]\npath = {path!r}\n" for path in paths)


def test_a_source_alone_makes_a_profile() -> None:
    profile = parsed(SOURCE)
    assert [(s.name, s.path) for s in profile.source] == [("letters", "/data/letters")]
    assert profile.cartridges.set == "home"
    assert profile.archive.archive_size is None
    assert profile.archive.split_size == 64 << 20
    assert profile.retention.model_dump(exclude_none=True) == {}
    assert profile.run.workers is None


def test_every_key_of_the_design_is_read() -> None:
    profile = parsed(
        """
        [[source]]
        name = "docs"
        path = "~/Documents"
        exclude = ["*.tmp", "cache/"]
        include = ["*"]
        exclude_caches = true
        exclude_if_present = [".nobackup"]
        one_file_system = true
        must_be_mount = true
        track = ["**"]
        change_detection = "mtime"
        [cartridges]
        set = "boxes"
        search = ["/media/*/*"]
        capacity = "25GB"
        auto_label = true
        copies = 1
        layout = "archive"
        [archive]
        archive_size = "auto"
        split_size = "1MiB"
        codec = "lz4"
        parity = "0%"
        [retention]
        keep_last = 3
        keep_daily = 7
        keep_weekly = 4
        keep_monthly = 12
        keep_yearly = 2
        [run]
        workers = 2
        scheduler = "local"
        spool_size = "4GB"
        """
    )
    (source,) = profile.source
    assert (source.exclude, source.change_detection) == (["*.tmp", "cache/"], "mtime")
    assert source.one_file_system and source.must_be_mount and source.exclude_caches
    assert (profile.cartridges.set, profile.cartridges.capacity) == ("boxes", 25_000_000_000)
    assert profile.archive.split_size == 1 << 20
    assert (profile.run.workers, profile.run.spool_size) == (2, 4_000_000_000)
    assert profile.retention.keep_yearly == 2


def test_every_mistake_is_told_at_once_with_its_key() -> None:
    found = mistakes(
        """
        colour = "blue"
        [[source]]
        path = "/a"
        exclude = "*.tmp"
        [[source]]
        name = "no/slashes please"
        must_be_mount = "yes"
        [cartridges]
        capacity = "large"
        [retention]
        keep_last = 0
        [run]
        workers = 0
        spool_size = "-1"
        """
    )
    assert set(found) == {
        "colour",
        "source[1].exclude",
        "source[2].path",
        "source[2].name",
        "source[2].must_be_mount",
        "cartridges.capacity",
        "retention.keep_last",
        "run.workers",
        "run.spool_size",
    }
    assert "[brackets]" in found["source[1].exclude"]
    assert "needed" in found["source[2].path"]
    assert "true or false" in found["source[2].must_be_mount"]
    assert "25GB" in found["cartridges.capacity"]
    assert "'auto'" in found["run.workers"]


@pytest.mark.parametrize("table", [*TABLES, "source"])
def test_an_unknown_key_is_a_mistake_in_every_table(table: str) -> None:
    text = SOURCE + "exlude = []\n" if table == "source" else f"{SOURCE}[{table}]\nexlude = []\n"
    key = "source[1].exlude" if table == "source" else f"{table}.exlude"
    assert "unknown key" in mistakes(text)[key]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("source[1].track", SOURCE + 'track = ["*.txt"]'),
        ("cartridges.copies", SOURCE + "[cartridges]\ncopies = 2"),
        ("cartridges.layout", SOURCE + '[cartridges]\nlayout = "tree"'),
        ("archive.codec", SOURCE + '[archive]\ncodec = "zstd"'),
        ("archive.codec", SOURCE + '[archive]\ncodec = "none"'),
        ("archive.parity", SOURCE + '[archive]\nparity = "10%"'),
        ("encryption", SOURCE + '[encryption]\nrecipients = ["age1xyz"]'),
        ("encryption", SOURCE + '[encryption]\npassphrase_env = "SECRET"'),
        ("encryption", SOURCE + "[encryption]\ngpg = true"),
    ],
)
def test_what_is_not_built_yet_is_refused_and_never_ignored(key: str, text: str) -> None:
    found = mistakes(text)
    assert list(found) == [key]
    assert "not yet supported" in found[key]


@pytest.mark.parametrize("text", ["", "[run]\nworkers = 1\n", "source = []\n"])
def test_a_profile_needs_a_source(text: str) -> None:
    assert list(mistakes(text)) == ["source"]


def test_what_is_not_toml_is_named_with_its_place() -> None:
    with pytest.raises(ProfileInvalid, match=r"home\.toml.*line 2"):
        parsed("[run]\nworkers = \n")


def test_a_size_of_nothing_is_a_mistake() -> None:
    assert "cartridges.capacity" in mistakes(f'{SOURCE}[cartridges]\ncapacity = "0GB"\n')
    assert "archive.archive_size" in mistakes(f'{SOURCE}[archive]\narchive_size = "0"\n')


def test_two_sources_of_one_name_are_a_mistake() -> None:
    text = '[[source]]\nname = "x"\npath = "/a"\n[[source]]\nname = "x"\npath = "/b"\n'
    assert "'x'" in mistakes(text)["source"]


def test_two_sources_of_one_name_are_told_with_the_other_mistakes() -> None:
    text = '[[source]]\nname = "x"\npath = "/a"\n[[source]]\nname = "x"\npath = "/b"\n'
    assert len(mistakes(f"{text}[run]\nworkers = 0\n")) == 2


def test_folders_of_one_name_get_names_that_differ() -> None:
    names = [s.name for s in parsed(sources("/a/docs", "/b/docs", "/c/docs/")).source]
    assert names == ["docs", "docs-2", "docs-3"]


def test_a_default_name_gives_way_to_one_that_was_chosen() -> None:
    text = '[[source]]\npath = "/a/docs"\n[[source]]\nname = "docs"\npath = "/b"\n'
    assert [s.name for s in parsed(text).source] == ["docs-2", "docs"]


@pytest.mark.parametrize("path", ["/", "/..", "/...", "/\u00fc", "/a b", "/" + "n" * 255, "/-rf"])
def test_a_folder_of_any_name_gives_a_valid_name(path: str) -> None:
    (source,) = parsed(sources(path)).source
    assert is_source_name(source.name)


@pytest.mark.parametrize("name", ["Fotos \u00e4\u00f6", ".config", "a [b] *", "n" * 190, "x y"])
def test_a_source_is_called_like_its_folder(name: str) -> None:
    assert [s.name for s in parsed(sources(f"/one/{name}", f"/two/{name}")).source] == [
        name,
        f"{name}-2",
    ]


PATHS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="'\\"), min_size=1)


@given(st.lists(PATHS, min_size=1, max_size=6))
def test_default_names_are_always_valid_and_unique(paths: Sequence[str]) -> None:
    names = [s.name for s in parsed(sources(*paths)).source]
    assert len(set(names)) == len(paths)
    assert all(is_source_name(name) for name in names)


@given(st.text(), st.sets(st.sampled_from(("source", "a", "a-2", "b"))))
def test_a_free_name_is_valid_and_not_taken(wanted: str, taken: set[str]) -> None:
    name = free_name(wanted, taken)
    assert is_source_name(name)
    assert name not in taken
