"""A central scheduler: whether it is there, and what dead participants have left in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from luigi import rpc, worker
from luigi.task_status import FAILED, RUNNING

# Seconds to wait for an answer, and how often to ask: its loss must cost the view only.
_PATIENCE = 5.0
_LOOKING = 2.0
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
    A task has to fail in the name of the worker that ran it before it may be had again.
    """
    remote = connect(url)
    for name, task in remote.task_list(status=RUNNING, upstream_status="", limit=False).items():
        holder = task["worker_running"]
        if task["params"].get("token") == token and holder not in alive:
            remote.add_task(task_id=name, status=FAILED, worker=holder)
            remote.forgive_failures(task_id=name)


class Worker(worker.Worker):
    """A worker that looks around, every few seconds, before it asks for work."""

    def __init__(self, look: Callable[[], None], **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self._look = look
        self._next_look = 0.0

    def _get_work(self) -> Any:
        if time.monotonic() >= self._next_look:
            self._look()
            self._next_look = time.monotonic() + _LOOKING
        return super()._get_work()  # type: ignore[no-untyped-call]
