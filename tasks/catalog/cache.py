"""A cache that makes each value once, and keeps those that were used last within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by key, `limit` of them together as `weigh` weighs each; threads may share it.

    The value that was made last stays, even where it alone is over the limit.
    """

    def __init__(self, limit: int, weigh: Callable[[Value], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._coming: dict[Hashable, Future[Value]] = {}
        self.weight = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return a value, making it where it is not there; others who want it wait meanwhile.

        What `make` raises all of them get, and the next one tries again.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            others = self._coming.get(key)
            if others is None:
                mine = self._coming[key] = Future()
        if others is not None:
            return others.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        self._keep(key, value)
        mine.set_result(value)
        return value

    def _keep(self, key: Hashable, value: Value) -> None:
        with self._lock:
            del self._coming[key]
            self._kept[key] = value
            self.weight += self._weigh(value)
            while self.weight > self._limit and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self.weight -= self._weigh(oldest)

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._kept.clear()
            self.weight = 0
