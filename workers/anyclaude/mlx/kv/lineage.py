"""Conversations as names in the prefix tree, and the caches lent to their requests."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.tree import Match, Node
from anyclaude.mlx.tokens import TokenArray, common_prefix

# Buffer space behind a prompt, so that a response of usual length grows no buffer.
RESPONSE_TOKENS: Final = 512


@dataclass(frozen=True)
class LineageKey:
    """One conversation: requests that extend one another."""

    session_id: str
    agent_id: str
    # Digest of the stable prefix: with other tools or instructions it is another conversation.
    stable_digest: str


@dataclass(frozen=True, eq=False)
class Ahead:
    """The part of a conversation's next prompt that was computed before its question came."""

    # Where it ends in the tree, and the length of the prompt before it.
    node: Node
    start: int

    def used_tokens(self, prompt: TokenArray, reused: int) -> int:
        """How many of its tokens a request reuses that reuses so many of its prompt."""
        shared = common_prefix(self.node.token_ids(), prompt)
        return max(0, min(shared, reused) - self.start)


@dataclass(eq=False)
class Lineage:
    """The state of a conversation between its requests."""

    key: LineageKey
    create_time: float
    last_use: float
    # Where its tokens end in the tree; None until its first request is over.
    tip: Node | None = None
    # The cache of its latest request, kept while the next is likely to continue it in place.
    # Everything in it is in the tree as well.
    live: LiveCache | None = None
    # Until its next request.
    ahead: Ahead | None = None
    hits: int = 0
    running: int = 0

    @property
    def name(self) -> str:
        agent = self.key.agent_id or "main"
        return f"lineages/{self.key.session_id}/{agent}/{self.key.stable_digest}"

    @property
    def tokens(self) -> int:
        return self.tip.end if self.tip else 0

    @property
    def ends(self) -> tuple[Node, ...]:
        """The segments at which what was computed for it ends."""
        return tuple(
            node for node in (self.tip, self.ahead.node if self.ahead else None) if node is not None
        )


@dataclass(frozen=True)
class Lookup:
    """What the store found for a prompt."""

    key: LineageKey
    prompt: TokenArray
    stable_tokens: int
    # The part of the prompt that is in the tree, even if no cache can be made of it.
    match: Match
    reused: int
    from_live: bool
    disk_tokens: int
    # False for a utility call, which reuses caches and leaves none.
    keep: bool
    lineages: Collection[Lineage]
    # Whether it is no request, but computes what the next one will begin with.
    ahead: bool = False
    # The reused tokens that were computed ahead.
    ahead_tokens: int = 0


@dataclass(eq=False)
class Lease:
    """A live cache lent to one request: the only way to a mutable cache."""

    lookup: Lookup
    live: LiveCache
    # The request's claim on the memory budget: its live cache and its new tokens in the tree.
    claimed_bytes: int
