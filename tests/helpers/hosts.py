"""Two hosts on one machine: network, name and mounted volumes of their own, one shared disk."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Host:
    """A host: commands behind `prefix` run on it; `hidden` folders are empty for them."""

    name: str
    namespace: str
    address: str
    hidden: tuple[Path, ...] = ()

    @property
    def network(self) -> tuple[str, ...]:
        """The prefix of a command that only needs the host's network."""
        return ("ip", "netns", "exec", self.namespace)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix of a command that runs on the host."""
        hide = "".join(f"mount -t tmpfs none '{folder}'; " for folder in self.hidden)
        script = f'hostname {self.name}; {hide}exec "$@"'
        return (*self.network, "unshare", "-u", "-m", "sh", "-ec", script, "sh")


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Connect two hosts by a cable; both see the disks of this machine."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("curl"):
        pytest.skip("needs root, ip and curl")
    hosts = tuple(
        Host(name, f"ct{os.getpid()}{name}", f"10.77.{os.getpid() % 250}.{number}")
        for number, name in enumerate(("north", "south"), 1)
    )
    with contextlib.ExitStack() as undo:
        for host in hosts:
            if subprocess.run(["ip", "netns", "add", host.namespace], check=False).returncode:
                pytest.skip("no network namespaces here")
            undo.callback(_ip, "netns", "del", host.namespace)
        ends = [("name", f"v{index}", "netns", host.namespace) for index, host in enumerate(hosts)]
        _ip("link", "add", *ends[0][1:], "type", "veth", "peer", *ends[1])
        for index, host in enumerate(hosts):
            within = ("-n", host.namespace)
            _ip(*within, "addr", "add", f"{host.address}/24", "dev", f"v{index}")
            for device in ("lo", f"v{index}"):
                _ip(*within, "link", "set", device, "up")
        yield hosts[0], hosts[1]


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
