"""A live cache lent to one request: the only way to a mutable cache."""

from dataclasses import dataclass
from typing import Final

from anyclaude.mlx.kv.causes import Cause
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv_explain.explain import Lookup
from anyclaude.mlx.kv_explain.remembered import Asked

# Room left behind a prompt so that an answer of usual length grows no buffer.
ANSWER_ROOM_TOKENS: Final = 512


@dataclass(eq=False)
class Lease:
    """A live cache lent to one request."""

    key: LineageKey
    live: LiveCache
    reused_tokens: int
    stable_tokens: int
    # Utility calls borrow and give nothing back.
    keep: bool
    # What the request was let in for: its live cache and its new tokens in the tree.
    expected_bytes: int
    # Why no more was reused, and what was asked, as the explainer takes it.
    lookup: Lookup
    cause: Cause
    asked: Asked | None = None
