"""A central scheduler: whether it is there, and what dead participants have left in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from luigi import rpc
from luigi.task_status import FAILED, RUNNING

# Seconds to wait for an answer, and how often to ask: its loss must cost the view only.
_PATIENCE = 5.0
_ATTEMPTS, _WAIT = 2, 1


def connect(url: str) -> Any:
    """Return Luigi's proxy of a central scheduler; nothing is sent yet."""
    remote: Any = rpc.RemoteScheduler(url, connect_timeout=_PATIENCE)
    remote._rpc_retry_attempts = _ATTEMPTS
    remote._rpc_retry_wait = _WAIT
    remote._rpc_log_retries = False
    return remote


def answers(url: str) -> bool:
    """Whether a central scheduler is there."""
    try:
        connect(url).get_task_status_message(task_id="")
    except (rpc.RPCError, ValueError, KeyError):
        return False
    return True


def shown(url: str) -> str:
    """Return the address for people, without the password that may stand in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def release(url: str, token: str, alive: Collection[str]) -> None:
    """Take the running tasks of a run from workers that are no more, so that others get them.

    luigid itself would hold them for a minute, and then call them failed for a quarter of an hour.
    """
    remote = connect(url)
    for name, task in remote.task_list(status=RUNNING, upstream_status="", limit=False).items():
        worker = task["worker_running"]
        if task["params"].get("token") == token and worker not in alive:
            remote.add_task(task_id=name, status=FAILED, worker=worker)
