"""How texts and JSON values are compared."""

import marshal
from typing import Any


def shared_characters(first: str, second: str) -> int:
    """The length of what two texts begin with alike, by halving: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def exact_bytes(value: Any) -> bytes:
    """The same bytes for the same JSON value with its keys in the same order, and only then.

    Values that are equal may still print differently: the order of keys is kept, and 1, 1.0 and
    true are three.
    """
    # From version 3 on, the bytes depend on what else refers to the parts.
    return marshal.dumps(value, 2)
