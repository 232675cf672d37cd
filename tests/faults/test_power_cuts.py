"""The power is cut: whatever was not flushed is lost or comes in another order, and only that."""

import copy
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.faults import Fault, Faults
from tests.helpers.job import Job, assert_made_good, make_job
from tests.helpers.powercut import Call, Disk, Fate, calls, everything, nothing, some

# How names and contents fare that were not flushed.
FATES: dict[str, Callable[[int], tuple[Fate[Any], Fate[Any]]]] = {
    "all is lost": lambda seed: (nothing, nothing),
    "names come first": lambda seed: (everything, nothing),
    "contents come first": lambda seed: (nothing, everything),
    "some of each": lambda seed: (some(seed), some(seed + 1)),
}
MOMENTS = 12


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A backup, the disk it began with, and all of its calls that changed anything there."""

    job: Job
    disk: Disk
    calls: list[Call]

    def cut(self, after: int, fate: str) -> str:
        """Have the power cut after so many calls; return what this was, in words."""
        disk = copy.deepcopy(self.disk)
        for call in self.calls[:after]:
            disk.apply(call)
        disk.cut(*FATES[fate](after))
        last = self.calls[after - 1]
        return f"{fate}, after {last.kind} of {last.path} ({after} of {len(self.calls)})"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    base = tmp_path_factory.mktemp("cut")
    job = make_job(base)
    log = base / "calls"
    log.touch()
    job.reset()
    disk = Disk(job.live)
    faults = Faults(job.program, Fault(roots=(job.program.workspace, job.live / "media")), log)
    faults.program.backup("home")
    yield Record(job=job, disk=disk, calls=list(calls(log)))
    shutil.rmtree(base)


@pytest.mark.parametrize("fate", FATES)
def test_nothing_is_lost_when_the_power_is_cut_in_the_middle(record: Record, fate: str) -> None:
    assert_made_good(record.job, record.cut(len(record.calls) * 2 // 3, fate))


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.night
@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
def test_nothing_is_lost_whenever_the_power_is_cut(record: Record, fate: str, moment: int) -> None:
    assert_made_good(record.job, record.cut(len(record.calls) * moment // MOMENTS, fate))


def test_a_backup_that_has_ended_is_on_the_disk(record: Record) -> None:
    """All is lost that was not flushed when the command returned: the snapshot is not."""
    record.cut(len(record.calls), "all is lost")
    assert len(record.job.program.snapshots("home")) == 2
    assert_made_good(record.job, "at the end")
