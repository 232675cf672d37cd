"""A name stands for a whole file or for nothing; a journal loses at most its torn last line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.media import durable
from tasks.model.errors import WorkspaceFull


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    durable.write_whole(str(tmp_path / "x"), b"old")
    durable.write_whole(str(tmp_path / "x"), b"new")
    assert files(tmp_path) == {"x": b"new"}


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file_and_no_draft(
    tmp_path: Path, error: type[BaseException]
) -> None:
    durable.write_whole(str(tmp_path / "x"), b"old")
    with pytest.raises(error), durable.replacing(str(tmp_path / "x")) as draft:
        Path(draft).write_bytes(b"half")
        assert (tmp_path / "x").read_bytes() == b"old"
        raise error
    assert files(tmp_path) == {"x": b"old"}


def test_a_block_that_writes_no_draft_fails_and_leaves_the_old_file(tmp_path: Path) -> None:
    durable.write_whole(str(tmp_path / "x"), b"old")
    with pytest.raises(FileNotFoundError), durable.replacing(str(tmp_path / "x")):
        pass
    assert files(tmp_path) == {"x": b"old"}


def test_the_name_is_absent_until_the_block_has_ended(tmp_path: Path) -> None:
    with durable.replacing(str(tmp_path / "x")) as draft:
        Path(draft).write_bytes(b"new")
        assert not (tmp_path / "x").exists()
        assert os.path.dirname(draft) == str(tmp_path)
    assert files(tmp_path) == {"x": b"new"}


def test_file_and_folder_are_flushed_around_the_rename(tmp_path: Path) -> None:
    script = "import sys; from tasks.media import durable; durable.write_whole(sys.argv[1], b'x')"
    command = ["strace", "-y", "-e", "trace=fsync,rename", sys.executable, "-c", script]
    try:
        done = subprocess.run(
            [*command, tmp_path / "x"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"strace does not work here: {error.stderr[-200:]}")
    calls = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert [line.split("(")[0] for line in calls] == ["fsync", "rename", "fsync"]
    assert "x.tmp>" in calls[0]
    assert f"{tmp_path}>" in calls[2]


LINE = st.binary(max_size=50).map(lambda raw: raw.replace(b"\n", b"") + b"\n")


@given(st.lists(LINE, max_size=4), st.binary(max_size=40), st.lists(LINE, min_size=1, max_size=3))
def test_a_torn_line_is_cut_off_when_the_next_is_appended(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], torn: bytes, added: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    path.write_bytes(b"".join(before) + torn.replace(b"\n", b""))
    for line in added:
        durable.append_line(str(path), line)
    assert path.read_bytes() == b"".join([*before, *added])


def test_a_line_is_appended_to_a_journal_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "j"
    before = b"".join(b"%0120d\n" % number for number in range(5000))
    path.write_bytes(before + b"torn" * 1000)
    durable.append_line(str(path), b"last\n")
    assert path.read_bytes() == before + b"last\n"


def test_the_first_line_makes_the_file(tmp_path: Path) -> None:
    durable.append_line(str(tmp_path / "j"), b"first\n")
    assert files(tmp_path) == {"j": b"first\n"}


def test_a_line_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from tasks.media import durable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "durable.append_line(sys.argv[1], b'0123456789\\n')\n"
        "durable.append_line(sys.argv[1], b'0123456789\\n')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "j")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    durable.append_line(str(tmp_path / "j"), b"next\n")
    assert files(tmp_path) == {"j": b"0123456789\nnext\n"}


def test_a_file_larger_than_any_honest_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert durable.read_whole(str(tmp_path / "x"), limit=5) == b"12345"
    with pytest.raises(OSError, match="too large") as caught:
        durable.read_whole(str(tmp_path / "x"), limit=4)
    assert caught.value.errno == errno.EFBIG


def test_removing_what_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    durable.remove(str(tmp_path / "x"))
    assert files(tmp_path) == {}


def test_a_full_workspace_is_its_own_error() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(WorkspaceFull, match="/w/x"), durable.in_workspace():
            raise OSError(number, os.strerror(number), "/w/x")
    with pytest.raises(PermissionError), durable.in_workspace():
        raise PermissionError(errno.EACCES, "no")
