"""Conversations as names on the prefix tree."""

from dataclasses import dataclass

from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.tree import Node


@dataclass(frozen=True)
class LineageKey:
    """One conversation: requests that extend one another."""

    session_id: str
    agent_id: str
    # Digest of the stable prefix: with other tools or instructions it is another conversation.
    stable_digest: str


@dataclass(eq=False)
class Lineage:
    """What is known of a conversation between its requests."""

    key: LineageKey
    create_time: float
    last_use: float
    # Where its tokens end in the tree; None until its first request is over.
    tip: Node | None = None
    # The cache of its latest request, kept while the next is likely to continue it in place.
    # Everything in it is in the tree as well.
    live: LiveCache | None = None
    hits: int = 0
    running: int = 0

    @property
    def name(self) -> str:
        agent = self.key.agent_id or "main"
        return f"lineages/{self.key.session_id}/{agent}/{self.key.stable_digest}"

    @property
    def tokens(self) -> int:
        return self.tip.end if self.tip else 0
