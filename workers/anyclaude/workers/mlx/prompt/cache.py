"""What was made before, by what it was made from, bounded in bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Values by key, the least recently used going first; safe between threads."""

    def __init__(self, limit_bytes: int, cost_bytes: Callable[[Key, Value], int]) -> None:
        self._limit_bytes = limit_bytes
        self._cost_bytes = cost_bytes
        self._bytes = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
                return value
        made = make()
        with self._lock:
            self._keep(key, made)
        return made

    def _keep(self, key: Key, value: Value) -> None:
        if key in self._values:
            return
        self._values[key] = value
        self._bytes += self._cost_bytes(key, value)
        while self._bytes > self._limit_bytes:
            self._bytes -= self._cost_bytes(*self._values.popitem(last=False))
