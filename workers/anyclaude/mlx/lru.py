"""A cache that evicts the least recently used entries beyond a limit."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LRUCache(Generic[Key, Value]):
    """Values by key, limited in number, or in the size that `size_of` returns. Thread-safe."""

    def __init__(
        self,
        limit: int,
        size_of: Callable[[Key, Value], int] | None = None,
        *,
        max_entries: int = sys.maxsize,
    ) -> None:
        """`limit` is for the number of values, or with `size_of` for the sum of their sizes."""
        self._limit = limit
        self._max_entries = max_entries
        self._size_of = size_of or (lambda _key, _value: 1)
        self._size = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The cached value, or the result of `make`, which is called without the lock."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        self.put(key, value)
        return value

    @property
    def size(self) -> int:
        return self._size

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def items(self) -> list[tuple[Key, Value]]:
        """The entries, least recently used first; this does not count as a use."""
        with self._lock:
            return list(self._values.items())

    def discard(self, key: Key) -> None:
        """Forgets an entry, if there is one."""
        with self._lock:
            if key in self._values:
                self._size -= self._size_of(key, self._values.pop(key))

    def put(self, key: Key, value: Value) -> list[Key]:
        """Caches a value in place of any that the key had; returns the keys that were evicted."""
        evicted: list[Key] = []
        with self._lock:
            if key in self._values:
                self._size -= self._size_of(key, self._values.pop(key))
            self._values[key] = value
            self._size += self._size_of(key, value)
            while self._size > self._limit or len(self._values) > self._max_entries:
                oldest = self._values.popitem(last=False)
                self._size -= self._size_of(*oldest)
                evicted.append(oldest[0])
        return evicted
