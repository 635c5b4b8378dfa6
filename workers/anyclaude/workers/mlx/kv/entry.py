"""One kept cache and what is known of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from anyclaude.workers.mlx.kv import layers as kinds
from anyclaude.workers.mlx.kv.live import LiveCache


@dataclass(frozen=True)
class LineageKey:
    """One conversation: requests that extend one another."""

    session_id: str
    agent_id: str
    # Digest of the stable prefix: with other tools or instructions it is another conversation.
    stable_digest: str


class Kind(Enum):
    """A conversation's cache, or a system-and-tools cache that new conversations fork from."""

    LINEAGE = auto()
    PREFIX = auto()


@dataclass(eq=False)
class Entry:
    """A cache in the store."""

    key: LineageKey
    kind: Kind
    live: LiveCache
    # Length of the part that every new conversation with these tools and instructions shares.
    stable_tokens: int
    create_time: float
    last_use: float
    hits: int = 0
    in_use: bool = False

    @property
    def name(self) -> str:
        digest = self.key.stable_digest
        if self.kind is Kind.PREFIX:
            return f"prefixes/{digest}"
        return f"lineages/{self.key.session_id}/{self.key.agent_id or 'main'}/{digest}"

    @property
    def nbytes(self) -> int:
        return total_bytes([self])


def total_bytes(entries: Iterable[Entry]) -> int:
    """Bytes of the entries' buffers, each counted once though forks share saved states."""
    unique = {id(leaf): leaf for entry in entries for leaf in entry.live.leaves()}
    return sum(kinds.nbytes(leaf) for leaf in unique.values())
