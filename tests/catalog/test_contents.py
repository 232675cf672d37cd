"""What is stored already: the index finds all and only, and each claim is given once."""

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.catalog import contents
from tasks.catalog.contents import BUNDLE, CONTENTS, Claims, StoredIndex, trim, write_index

# Digests that meet in their first word, and such as end in zeros, which numpy likes to drop.
ODD = [
    bytes(32),
    b"\xff" * 32,
    b"\1" + bytes(31),
    b"\0" * 31 + b"\1",
    *(b"\7" * 8 + bytes([n]) * 24 for n in range(5)),
    *(b"\x80" + bytes(30) + bytes([n]) for n in range(3)),
]
DIGESTS = st.sampled_from(ODD) | st.binary(min_size=32, max_size=32)


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def stored(found: Sequence[tuple[bytes, str]]) -> pa.RecordBatch:
    rows = [{"sha256": one, "archive": archive} for one, archive in found]
    return pa.RecordBatch.from_pylist(rows, schema=CONTENTS)


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> StoredIndex:
    path = str(tmp_path_factory.mktemp("index") / "stored.idx")
    assert write_index(path, [], set()) == 0
    return StoredIndex(path)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(DIGESTS, st.sampled_from(("a1", "a2", "dead"))), max_size=20),
    st.lists(DIGESTS, max_size=10),
)
def test_the_index_finds_all_that_is_alive_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[bytes, str]], others: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    half = len(found) // 2
    lists = [stored(found[:half]), stored(found[half:])]
    alive = [d for d, archive in found if archive != "dead"]
    count = write_index(str(folder / "idx"), lists, {"a1", "a2", "a3"})
    index = StoredIndex(str(folder / "idx"))
    assert count == len(alive)
    for one in [*others, *ODD, *(d for d, _ in found)]:
        assert (one in index) == (one in alive)


def test_a_large_index_is_searched_in_its_file(tmp_path: Path) -> None:
    found = [(digest(number), "a") for number in range(100_000)]
    write_index(str(tmp_path / "idx"), [stored(found)], {"a"})
    index = StoredIndex(str(tmp_path / "idx"))
    assert os.path.getsize(tmp_path / "idx") == 3_200_000
    chance = random.Random(1)
    assert all(digest(chance.randrange(100_000)) in index for _ in range(500))
    assert not any(digest(chance.randrange(100_000, 10**9)) in index for _ in range(500))


def number(bundle: int, archive: int = 0) -> int:
    return bundle * BUNDLE + archive


def test_what_was_claimed_is_not_to_be_stored_again(tmp_path: Path, nothing: StoredIndex) -> None:
    one, other = (Claims(str(tmp_path / "claims"), bundle, set()) for bundle in (1, 2))
    assert one.claim([digest(1), digest(2)], number(1), nothing) == [True, True]
    assert other.claim([digest(2), digest(3)], number(2), nothing) == [False, True]
    assert one.claim([digest(3), digest(1), digest(4)], number(1), nothing) == [False, False, True]


def test_a_content_met_twice_at_once_is_stored_once(tmp_path: Path, nothing: StoredIndex) -> None:
    claims = Claims(str(tmp_path / "claims"), 1, set())
    assert claims.claim([digest(1)] * 3, number(1), nothing) == [True, False, False]


def test_what_earlier_snapshots_store_is_not_claimed(tmp_path: Path) -> None:
    write_index(str(tmp_path / "idx"), [stored([(digest(1), "a")])], {"a"})
    claims = Claims(str(tmp_path / "claims"), 1, set())
    index = StoredIndex(str(tmp_path / "idx"))
    assert claims.claim([digest(1), digest(2)], number(1), index) == [False, True]
    assert os.path.getsize(tmp_path / "claims") == 40


def test_claims_of_a_killed_packer_do_not_count_for_itself(
    tmp_path: Path, nothing: StoredIndex
) -> None:
    killed = Claims(str(tmp_path / "claims"), 1, set())
    killed.claim([digest(1)], number(1, 0), nothing)
    killed.claim([digest(2)], number(1, 1), nothing)
    killed.close()
    again = Claims(str(tmp_path / "claims"), 1, {number(1, 0)})
    assert again.claim([digest(1), digest(2)], number(1, 1), nothing) == [False, True]


def test_claims_of_a_killed_packer_count_for_the_others(
    tmp_path: Path, nothing: StoredIndex
) -> None:
    """It will store them when its bundle is packed again; what it cannot is a trouble then."""
    killed = Claims(str(tmp_path / "claims"), 1, set())
    killed.claim([digest(1)], number(1), nothing)
    other = Claims(str(tmp_path / "claims"), 2, set())
    assert other.claim([digest(1)], number(2), nothing) == [False]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.lists(DIGESTS | st.integers(0, 30).map(digest), max_size=8))
    ),
    st.integers(0, 10),
)
def test_claims_are_given_as_by_one_set_whenever_arrays_are_merged(
    tmp_path_factory: pytest.TempPathFactory,
    nothing: StoredIndex,
    batches: list[tuple[int, list[bytes]]],
    merge: int,
) -> None:
    path = str(tmp_path_factory.mktemp("claims") / "claims")
    before = contents._MERGE
    contents._MERGE = merge
    try:
        packers = {bundle: Claims(path, bundle, set()) for bundle in (1, 2, 3)}
        known: set[bytes] = set()
        for bundle, digests in batches:
            expected = []
            for one in digests:
                expected.append(one not in known)
                known.add(one)
            assert packers[bundle].claim(digests, number(bundle), nothing) == expected
        assert os.path.getsize(path) == 40 * len(known)
    finally:
        contents._MERGE = before
        for packer in packers.values():
            packer.close()


def in_child(work: Callable[[], bytes]) -> tuple[int, int]:
    """Run `work` in a forked process; return its id, and where its answer can be read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(work())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    return child, reading


@pytest.mark.parametrize("merge", [1 << 15, 200])
def test_processes_that_claim_at_once_get_each_content_exactly_once(
    tmp_path: Path, nothing: StoredIndex, monkeypatch: pytest.MonkeyPatch, merge: int
) -> None:
    monkeypatch.setattr(contents, "_MERGE", merge)
    wanted = [digest(n) for n in range(3000)]

    def packer(bundle: int) -> Callable[[], bytes]:
        def work() -> bytes:
            claims = Claims(str(tmp_path / "claims"), bundle, set())
            chance = random.Random(bundle)
            mine = chance.sample(wanted, len(wanted))
            got = []
            while mine:
                some, mine = mine[:50], mine[50:]
                verdicts = claims.claim(some, number(bundle), nothing)
                got += [one for one, fresh in zip(some, verdicts, strict=True) if fresh]
            return b"".join(got)

        return work

    children = [in_child(packer(bundle)) for bundle in (1, 2, 3, 4)]
    given_to: Counter[bytes] = Counter()
    for child, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        given_to.update(answer[start : start + 32] for start in range(0, len(answer), 32))
    assert given_to == Counter(wanted)
    assert os.path.getsize(tmp_path / "claims") == 40 * len(wanted)


@pytest.mark.parametrize("torn", [1, 8, 31, 32, 39])
def test_a_torn_claim_is_cut_off(tmp_path: Path, nothing: StoredIndex, torn: int) -> None:
    path = tmp_path / "claims"
    claims = Claims(str(path), 1, set())
    claims.claim([digest(1)], number(1), nothing)
    claims.close()
    path.write_bytes(path.read_bytes() + b"x" * torn)
    trim(str(path))
    assert path.stat().st_size == 40
    other = Claims(str(path), 2, set())
    assert other.claim([digest(1), digest(2)], number(2), nothing) == [False, True]


@pytest.mark.parametrize("torn", [1, 39])
def test_a_torn_claim_does_no_harm_to_who_did_not_trim(
    tmp_path: Path, nothing: StoredIndex, torn: int
) -> None:
    path = tmp_path / "claims"
    path.write_bytes(b"x" * torn)
    one, other = (Claims(str(path), bundle, set()) for bundle in (1, 2))
    assert one.claim([digest(1)], number(1), nothing) == [True]
    assert other.claim([digest(1)], number(2), nothing) == [False]


def test_trimming_what_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    trim(str(tmp_path / "claims"))
