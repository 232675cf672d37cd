"""A person with a browser can follow a run on luigid's own pages."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.luigid import Luigid
from tests.helpers.media import fill
from tests.helpers.program import Program

MakeCartridges = Callable[[int], list[Path]]

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


def seen(url: str, profile: Path) -> str:
    """Return the text of a page after its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
    command = [BROWSER, *flags, f"--user-data-dir={profile}", "--dump-dom", url]
    page = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_a_run_is_followed_in_a_browser(
    program: Program,
    source: Path,
    cartridges: MakeCartridges,
    luigid: Luigid,
    tmp_path: Path,
) -> None:
    fill(source / "private-folder", files=40, size=400_000)
    boxes = cartridges(2)
    program.init("photos", [source], boxes[:1], capacity="10MB")
    program.edit_profile("photos", {"archive": {"archive_size": "500kB"}})
    process = program.start("backup", "photos", "--wait", "--scheduler", luigid.url)
    waits = program.workspace / "state" / "photos" / "waiting.json"
    assert processes.wait_for(waits.exists, process)
    page = f"{luigid.url}/static/visualiser/index.html"
    text = seen(page, tmp_path / "browser")
    for word in ("ScanSource", "PackArchive", "WriteCartridge", "profile = photos"):
        assert word in text
    assert re.search(r"Failed Tasks 1\b", text), "the cartridge that is missing shows"
    assert "private-folder" not in text

    program.run("label", boxes[1], "--set", "photos", "--capacity", "10MB")
    program.edit_profile("photos", {"cartridges": {"search": [str(boxes[0].parent / "*")]}})
    code, out, err = processes.end_of(process, timeout=60)
    assert code == 0, (out, err)
    text = seen(page, tmp_path / "browser")
    assert re.search(r"Failed Tasks 0\b", text)
    assert re.search(r"Running Tasks 0\b", text)
    assert "PruneBackups" in text
    messages = {task["name"]: task["status_message"] for task in luigid.tasks("DONE").values()}
    assert messages["WriteCartridge"].endswith("cartridge photos 2")
    assert messages["ScanSource"] == "41 entries"
    percent = {task["progress_percentage"] for task in luigid.tasks().values()}
    assert 100 in percent
