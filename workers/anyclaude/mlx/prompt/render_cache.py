"""A least-recently-made cache of values that were computed from growing lists of messages.

A conversation is sent again with every request, with a few messages more. A lookup therefore finds
the value whose list shares the longest beginning with the new one, so that only the rest has to be
computed.
"""

import marshal
import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Generic, TypeVar

# Enough for the main conversations and their subagents; more would make lookups slow.
_MAX_ENTRIES: Final = 32

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Entry(Generic[Value]):
    """A value and the list that it was computed from."""

    # What the value depends on besides the list.
    group: object
    # One hashable value for each message, such as its `exact_bytes`.
    items: Sequence[object]
    value: Value
    nbytes: int


class RenderCache(Generic[Value]):
    """The latest entries, limited in number and bytes. Safe to share between threads."""

    def __init__(self, limit_bytes: int, max_entries: int = _MAX_ENTRIES) -> None:
        self._limit_bytes = limit_bytes
        self._max_entries = max_entries
        # The latest entry is the last.
        self._entries: list[Entry[Value]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        with self._lock:
            self._entries = []

    def find(self, group: object, items: Sequence[object]) -> tuple[int, Entry[Value] | None]:
        """The entry of `group` that shares most leading items with `items`.

        Returns:
            The number of shared items, and the entry; 0 and None if no entry shares an item.
        """
        with self._lock:
            entries = [entry for entry in reversed(self._entries) if entry.group == group]
        counted = ((_common(entry.items, items), entry) for entry in entries)
        common, best = max(counted, key=operator.itemgetter(0), default=(0, None))
        return common, best if common else None

    def add(self, entry: Entry[Value]) -> list[Value]:
        """Adds an entry, and removes those whose lists it continues; returns what was removed."""
        with self._lock:
            before = [*self._entries, entry]
            entries = [one for one in self._entries if not _continues(entry, one)]
            entries = [*entries, entry][-self._max_entries :]
            total = sum(one.nbytes for one in entries)
            while entries and total > self._limit_bytes:
                total -= entries.pop(0).nbytes
            self._entries = entries
        return [one.value for one in before if one not in entries]

    def remove(self, is_unwanted: Callable[[Value], bool]) -> list[Value]:
        """Removes and returns values."""
        with self._lock:
            removed = [one for one in self._entries if is_unwanted(one.value)]
            self._entries = [one for one in self._entries if one not in removed]
        return [one.value for one in removed]


def _continues(entry: Entry[Any], before: Entry[Any]) -> bool:
    return entry.group == before.group and entry.items[: len(before.items)] == before.items


def _common(first: Sequence[object], second: Sequence[object]) -> int:
    if second[: len(first)] == first:
        return len(first)
    return sum(takewhile(bool, map(operator.eq, first, second)))


def exact_bytes(value: Any) -> bytes:
    """Bytes that are equal only for JSON values that a template prints alike.

    Python values that are equal may still print differently: here the order of keys counts, and
    1, 1.0 and true are three values.
    """
    # From version 3 on, the bytes also depend on references between the parts of a value.
    return marshal.dumps(value, 2)
