"""Labels, journals and sums: read back as written, and refused by name where they are not ours."""

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.formats import records
from tasks.model.errors import FormatDamaged, FormatUnsupported
from tasks.model.words import FORMAT_VERSION, JournalLine, Label, WriteReceipt

FILE = "/media/c1/CARTRIDGE.json"
FACTS: dict[str, Any] = {
    "format_version": FORMAT_VERSION,
    "set": "home",
    "serial": 3,
    "uuid": "8a0e2c1e-0000-4000-8000-000000000000",
    "profile": "home",
    "capacity": 25_000_000_000,
    "created": "2026-11-21T01:32:00Z",
    "codec": "lz4",
    "encryption": "none",
}
LINES = st.builds(
    JournalLine,
    archive=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)
    .filter(lambda name: ".." not in name)
    .map("archives/{}".format),
    bytes=st.integers(0, 2**62),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    snapshot=st.text(st.sampled_from("0123456789TZ\n\u2028"), max_size=16),
)


def label(**facts: Any) -> bytes:
    return json.dumps({**FACTS, **facts}).encode()


def test_a_label_reads_as_it_was_written() -> None:
    written = Label(**FACTS)
    assert records.read_label(records.to_json(written, indent=2), FILE) == written
    assert json.loads(records.to_json(written)) == FACTS
    assert written.title == "home 3"


def test_a_label_has_exactly_the_fields_of_the_design() -> None:
    assert [field.name for field in dataclasses.fields(Label)] == list(FACTS)


def test_a_label_without_a_capacity_is_sound() -> None:
    assert records.read_label(label(capacity=None), FILE).capacity is None


def test_what_a_later_release_adds_to_a_label_does_no_harm() -> None:
    assert records.read_label(label(colour="blue"), FILE) == Label(**FACTS)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 99, 2**70])
def test_a_label_of_a_newer_format_is_refused_and_says_which(version: int) -> None:
    with pytest.raises(FormatUnsupported, match=f"{FILE} has format version {version}"):
        records.read_label(label(format_version=version), FILE)


def test_a_newer_label_is_refused_as_newer_though_its_fields_are_others() -> None:
    with pytest.raises(FormatUnsupported):
        records.read_label(b'{"format_version": 2, "who": "home/3"}', FILE)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 512,
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"format_version": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        label()[:-1],
        label(serial="three"),
        label(serial=0),
        label(serial=-1),
        label(serial=10**9),
        label(uuid=None),
        label(capacity="large"),
        label(format_version="one"),
    ],
)
def test_nonsense_is_no_label_and_the_file_is_named(text: bytes) -> None:
    with pytest.raises(FormatDamaged, match=FILE):
        records.read_label(text, FILE)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_label_or_are_refused(text: bytes) -> None:
    with pytest.raises(FormatDamaged):
        records.read_label(text, FILE)


@given(st.lists(LINES, max_size=5))
def test_a_journal_reads_as_it_was_written(lines: list[JournalLine]) -> None:
    text = records.journal_text(lines)
    assert records.read_journal(text, FILE) == lines
    assert [json.loads(line) for line in text.split(b"\n")[:-1]] == [
        dataclasses.asdict(line) for line in lines
    ]


@given(st.lists(LINES, min_size=1, max_size=4), st.data())
def test_a_torn_last_line_does_not_count(lines: list[JournalLine], data: st.DataObject) -> None:
    text = records.journal_text(lines)
    last = len(records.journal_text(lines[-1:]))
    torn = text[: -data.draw(st.integers(1, last))]
    assert records.read_journal(torn, FILE) == lines[:-1]


@pytest.mark.parametrize("middle", [b"{}", b"nonsense", b"\0" * 40, b'{"archive": 1}'])
def test_a_damaged_line_amid_others_is_named(middle: bytes) -> None:
    line = records.to_json(
        JournalLine(archive="archives/a", bytes=1, sha256="0" * 64, snapshot="s")
    )
    with pytest.raises(FormatDamaged, match=FILE):
        records.read_journal(line + middle + b"\n" + line, FILE)


NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1)
SUMS = st.dictionaries(
    NAMES.filter(lambda name: not name.startswith(("./", "/")) and ".." not in name),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    max_size=6,
)


@given(SUMS)
def test_sums_read_as_they_were_written(sums: dict[str, str]) -> None:
    assert records.read_sums(records.sums_text(sums), FILE) == sums


def test_the_sums_are_what_sha256sum_writes_and_checks(tmp_path: Path) -> None:
    names = ["a", "b c", "catalog.d"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    command = ["sha256sum", *names]
    written = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert records.sums_text(sums) == written
    assert records.read_sums(written, FILE) == sums
    binary = subprocess.run([*command, "-b"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert records.read_sums(binary, FILE) == sums


@pytest.mark.parametrize("text", [b"abc\n", b"0" * 64 + b"\n", b"0" * 64 + b" x\n", b"\0" * 100])
def test_nonsense_is_no_list_of_sums(text: bytes) -> None:
    with pytest.raises(FormatDamaged, match=FILE):
        records.read_sums(text, FILE)


def test_a_receipt_of_a_run_that_an_earlier_version_began_is_read() -> None:
    facts = {"sequence": 1, "serial": 1, "uuid": "u", "path": "/m", "archives": []}
    text = json.dumps(facts | {"bytes": 0, "last": True}).encode()
    assert records.from_json(WriteReceipt, text, "receipt").already_read == {}
