"""The copy of a profile on a cartridge means what the profile does, and holds no secrets."""

import pytest

from tasks.model.profile import Profile, parse_profile
from tasks.model.profile_text import public_text, sections_left_out, sketched_text

FULL = """
[[source]]
name = "docs"
path = "~/Doc\\u00fcments \\"quoted\\" \\\\ back"
exclude = ["*.tmp", "caf\\u00e9/", "tab\\there"]
exclude_caches = true
[[source]]
path = "/srv/photos"
change_detection = "mtime"
[cartridges]
set = "home"
search = ["/media/*/*"]
capacity = "25GB"
[archive]
archive_size = "64MiB"
[retention]
keep_last = 3
[run]
workers = 2
"""


def profile(text: str) -> Profile:
    return parse_profile("home", text, "home.toml")


def test_the_copy_means_the_same() -> None:
    before = profile(FULL)
    assert profile(public_text("home", before)) == before


def test_a_copy_of_the_copy_is_the_copy() -> None:
    once = public_text("home", profile(FULL + '[hooks]\nafter = "x"\n'))
    left_out = sections_left_out(once)
    assert left_out == ["hooks"]
    assert public_text("home", profile(once), left_out) == once


@pytest.mark.parametrize(
    "section",
    ['[hooks]\nbefore = "curl -u me:pa55"', '[notify]\nurls = ["json://me:pa55@host"]'],
)
def test_what_may_be_secret_is_left_out_and_said_to_be(section: str) -> None:
    text = public_text("home", profile(f"{FULL}{section}\n"))
    assert "pa55" not in text
    assert sections_left_out(text) == [section[1:].split("]", maxsplit=1)[0]]


def test_a_password_in_an_address_is_left_out() -> None:
    with_address = FULL + 'scheduler = "http://me:pa55@host:8082"\n'
    copy = profile(public_text("home", profile(with_address)))
    assert copy.run.scheduler == "http://host:8082"


def test_a_sketch_is_a_profile_to_be_filled_in() -> None:
    text, paths = sketched_text("home", "disks", ["docs", "photos"])
    found = profile(text)
    assert {source.name: source.path for source in found.source} == paths
    assert found.cartridges.set == "disks"
