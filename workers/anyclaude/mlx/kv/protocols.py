"""What the store uses without knowing it: storage beyond memory, and listeners to what happens.

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
        """Segments and conversations entered that no request of this process computed."""

    def lost(self, nodes: Collection[Node], loss: Loss) -> None:
        """Segments are about to leave the tree."""


class Storage:
    """A slower copy of the tree's segments, which outlives memory and the process.

    This one keeps nothing, for a store whose caches are in memory alone.
    """

    def restore(self, _tree: PrefixTree) -> list[Lineage]:
        """Puts every stored segment into the empty tree; returns the conversations they were."""
        return []

    def save(self, _node: Node, _prefix: TokenArray, _key: LineageKey) -> None:
        """Writes a segment behind, in place of the record it had before a split or a new state.

        The prefix is all token ids up to the node's end.
        """

    def holds(self, _node: Node) -> bool:
        """Whether the segment can be read back: a storage may drop records for its own budget."""
        return False

    def read(self, _node: Node) -> Content | None:
        """A segment's KV, verified; None if the record cannot be trusted."""
        return None

    def forget(self, _nodes: Iterable[Node]) -> None:
        """Deletes the records of segments."""

    def quarantine(self, _node: Node, _reason: str) -> None:
        """Puts a record aside whose bytes are sound and whose content is wrong."""

    def touch(self, _nodes: Iterable[Node]) -> None:
        """Marks records as used now."""

    def pin(self, _nodes: Iterable[Node], *, pinned: bool) -> None:
        """Exempts records from eviction, or no longer."""

    def flush(self) -> None:
        """Waits a little for writes under way, so that more segments can leave memory."""

    def reap(self) -> None:
        """Frees arrays that are written: MLX frees memory on its own thread only."""
