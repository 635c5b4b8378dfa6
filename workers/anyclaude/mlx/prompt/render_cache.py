"""What was made lately of lists that grow, so that only what is new in them has to be made."""

import threading
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

# Main conversations and their subagents; beyond, looking through them would cost.
_LIMIT_COUNT: Final = 32

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Made(Generic[Value]):
    """One value and what it was made of."""

    # What it depends on beside the items.
    group: object
    # As `exact_bytes`.
    items: list[bytes]
    value: Value
    nbytes: int


class Lately(Generic[Value]):
    """The latest values, bounded in number and bytes; safe between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # The latest made last.
        self._kept: list[Made[Value]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        with self._lock:
            self._kept = []

    def find(self, group: object, items: list[bytes]) -> tuple[int, Made[Value] | None]:
        """What begins with most of these items, how many, and at least one."""
        with self._lock:
            kept = [one for one in reversed(self._kept) if one.group == group]
        counted = ((_common(one.items, items), one) for one in kept)
        common, best = max(counted, key=lambda pair: pair[0], default=(0, None))
        return common, best if common else None

    def add(self, made: Made[Value]) -> None:
        """Keeps a value in place of those that it goes on from."""
        with self._lock:
            kept = [one for one in self._kept if not _goes_on(made, one)]
            kept = [*kept, made][-_LIMIT_COUNT:]
            while kept and sum(one.nbytes for one in kept) > self._limit_bytes:
                kept.pop(0)
            self._kept = kept


def _goes_on(made: Made[Value], before: Made[Value]) -> bool:
    return made.group == before.group and made.items[: len(before.items)] == before.items


def _common(first: list[bytes], second: list[bytes]) -> int:
    if second[: len(first)] == first:
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
