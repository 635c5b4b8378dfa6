"""Content blocks of every known type, whose fields hold any JSON value.

Hypothesis draws only a seed, from which the block is built: drawing nested values one by one takes
forty times as long as the code under test.
"""

import random
from typing import Any, Final

from hypothesis import strategies as st

TYPES: Final = (
    *("text", "image", "document", "search_result", "tool_use", "tool_result", "tool_reference"),
    *("thinking", "redacted_thinking", "compaction", "server_tool_use", "web_search_tool_result"),
)
_FIELDS: Final = (
    *("text", "source", "title", "content", "id", "name", "input", "tool_use_id", "tool_name"),
    *("is_error", "type", "data", "media_type", "url"),
)
# These contain blocks themselves, so they are drawn more often.
_DEEP: Final = ("search_result", "tool_result", "document")
_WORDS: Final = ("", "a", "é", "base64", "url", "text", "content", *TYPES)
_DEPTH: Final = 3


def _kind(rng: random.Random) -> str:
    return rng.choice(rng.choice((_DEEP, TYPES)))


def _value(rng: random.Random, depth: int = _DEPTH) -> Any:
    """Any JSON value, often a block or a list of blocks."""
    kind = rng.randrange(7 if depth else 4)
    match kind:
        case 0:
            return None
        case 1:
            return rng.choice((True, False, 0, -1, 7, 1 << 40))
        case 2 | 3:
            return rng.choice(_WORDS)
        case 4:
            return [_value(rng, depth - 1) for _ in range(rng.randrange(3))]
    fields = {rng.choice(_FIELDS): _value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return fields if kind == 5 else {**fields, "type": _kind(rng)}


def _source(rng: random.Random) -> Any:
    if rng.random() < 0.4:
        return rng.choice(("a", _value(rng)))
    likely = {
        "media_type": rng.choice(("text/plain", "image/png")),
        "data": rng.choice(_WORDS),
        "content": [_value(rng) for _ in range(rng.randrange(3))],
        "url": "url",
    }
    return {"type": rng.choice(_WORDS)} | {
        key: rng.choice((value, _value(rng))) for key, value in likely.items() if rng.random() < 0.5
    }


def odd_block(seed: int) -> dict[str, Any]:
    """A block with the fields that some kind of block has, so that code which reads them runs.

    Its type is always a text, since a request with a block of another type is refused earlier.
    """
    rng = random.Random(seed)
    block = {"content": _value(rng), "source": _source(rng)}
    if rng.random() < 0.5:
        block["content"] = [_value(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        block["tool_use_id"] = rng.choice(("t1", _value(rng)))
    for name in ("text", "title", "id", "name", "input", "tool_name"):
        if rng.random() < 0.5:
            block[name] = _value(rng)
    return block | {"type": _kind(rng)}


BLOCKS: Final = st.builds(odd_block, st.integers(0, 2**63))
