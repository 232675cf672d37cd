"""A passing place is gone afterwards, whatever lies in it and however its process ended."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tasks.media.scratch import scratch

OLD = (0, 0)


@pytest.fixture(autouse=True)
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_ours_alone_and_gone_after_the_block(above: Path) -> None:
    with scratch("drill-") as folder:
        assert Path(folder).parent == above
        assert os.stat(folder).st_mode & 0o777 == 0o700
        inside = Path(folder) / "closed" / "below"
        inside.mkdir(parents=True)
        (inside / "file").touch(0o000)
        (inside / "link").symlink_to(above)
        inside.parent.chmod(0)
    assert list(above.iterdir()) == []


def test_it_is_gone_after_an_error(above: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch("drill-"):
        raise KeyboardInterrupt
    assert list(above.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(above: Path) -> None:
    left = above / "drill-left"
    (left / "folder").mkdir(parents=True)
    os.utime(left, OLD)
    fresh, other = above / "drill-fresh", above / "others"
    fresh.mkdir()
    other.mkdir()
    os.utime(other, OLD)
    with scratch("drill-"):
        assert not left.exists()
        assert fresh.exists(), "it may not be locked yet"
        assert other.exists()


def test_that_of_a_living_process_stays() -> None:
    with scratch("drill-") as folder:
        os.utime(folder, OLD)
        with scratch("drill-"):
            assert os.path.isdir(folder)


def test_a_planted_link_is_not_followed(
    above: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    precious = tmp_path_factory.mktemp("precious")
    (precious / "file").touch()
    (above / "drill-link").symlink_to(precious)
    with scratch("drill-"):
        assert (precious / "file").exists()


def test_a_signal_in_the_middle_of_the_end_leaves_nothing_behind(
    above: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmdir = os.rmdir

    def stopped(path: str, **where: int) -> None:
        signal.raise_signal(signal.SIGINT)
        rmdir(path, **where)

    with pytest.raises(KeyboardInterrupt), scratch("drill-") as folder:
        (Path(folder) / "below").mkdir()
        monkeypatch.setattr(os, "rmdir", stopped)
    assert list(above.iterdir()) == []
