"""A central scheduler, as `luigid` starts it, and what it lets others see."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


class Luigid:
    """A central scheduler on this machine, as `luigid` starts it."""

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", prefix: tuple[str, ...] = ()
    ) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://{address}:{self.port}"
        self._prefix = prefix
        self._command = [
            *(*prefix, str(Path(sys.executable).with_name("luigid")), "--port", str(self.port)),
            *("--address", address, "--state-path", str(folder / "state.pickle")),
        ]
        self._folder = folder
        folder.mkdir()
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        log = (self._folder / "luigid.log").open("ab")
        process = subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask("task_list", status="", upstream_status="")
                return process
            except OSError:
                assert time.monotonic() < deadline, "luigid does not answer"
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def ask(self, method: str, **data: object) -> Any:
        """Call the API that luigid's own pages use."""
        query = urllib.parse.urlencode({"data": json.dumps(data)})
        command = [*self._prefix, "curl", "-sSf", "-m", "10", f"{self.url}/api/{method}?{query}"]
        if not self._prefix:
            with urllib.request.urlopen(command[-1], timeout=10) as answer:
                return json.load(answer)["response"]
        done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode:
            raise OSError(done.stderr.decode())
        return json.loads(done.stdout)["response"]

    def tasks(self, status: str = "") -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.ask("task_list", status=status, upstream_status="")
        return found

    def all_it_knows(self) -> str:
        """Everything that somebody who looks at luigid can see."""
        tasks = self.tasks()
        errors = [self.ask("fetch_error", task_id=task) for task in tasks]
        graphs = [self.ask("dep_graph", task_id=task) for task in tasks]
        workers = self.ask("worker_list")
        return json.dumps([tasks, errors, graphs, workers, self.ask("resource_list")])
