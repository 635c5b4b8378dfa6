"""The interfaces that the store calls: storage beyond memory, and listeners to its events.

All calls are made on the MLX thread.
"""

from collections.abc import Collection, Iterable
from enum import Enum, auto
from typing import Protocol

from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.tree import Content, Node, PrefixTree
from anyclaude.mlx.tokens import TokenArray


class Loss(Enum):
    """Why segments left the tree."""

    EVICTED = auto()
    PRUNED = auto()
    CORRUPT_RECORD = auto()


class Listener(Protocol):
    """Follows what enters and leaves the tree."""

    def adopted(self, nodes: Collection[Node], lineages: Collection[Lineage]) -> None:
        """Segments and conversations were added that no request of this process computed."""

    def lost(self, nodes: Collection[Node], loss: Loss) -> None:
        """Segments are about to leave the tree."""


class Storage:
    """A slower copy of the tree's segments that outlives the process.

    This class stores nothing, for caches that are kept in memory only.
    """

    def restore(self, _tree: PrefixTree) -> list[Lineage]:
        """Adds every stored segment to the empty tree; returns their conversations."""
        return []

    def save(self, _node: Node, _prefix: TokenArray, _key: LineageKey) -> None:
        """Queues a segment to be written; replaces its record from before a split or new state.

        The prefix is all token ids up to the node's end.
        """

    def holds(self, _node: Node) -> bool:
        """Whether the segment can be read back: a storage may drop records for its own budget."""
        return False

    def has_dropped(self) -> bool:
        """Whether records were dropped for the storage's own budget since the last call."""
        return False

    def read(self, _node: Node) -> Content | None:
        """A segment's KV, verified; None if the record cannot be trusted."""
        return None

    def forget(self, _nodes: Iterable[Node]) -> None:
        """Deletes the records of segments."""

    def quarantine(self, _node: Node, _reason: str) -> None:
        """Quarantines a record whose bytes are sound but whose content is wrong."""

    def touch(self, _nodes: Iterable[Node]) -> None:
        """Marks records as used now."""

    def pin(self, _nodes: Iterable[Node], *, pinned: bool) -> None:
        """Pins or unpins records: pinned ones are exempt from eviction."""

    def flush(self) -> None:
        """Waits a little for writes in progress: written segments can be evicted from memory."""

    def reap(self) -> None:
        """Frees arrays that have been written, since MLX frees memory on its own thread only."""
