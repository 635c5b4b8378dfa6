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


class Storage(Protocol):
    """A slower copy of the tree's segments, which outlives memory and the process."""

    def restore(self, tree: PrefixTree) -> list[Lineage]:
        """Puts every stored segment into the empty `tree`; returns the conversations they were."""

    def save(self, node: Node, prefix: TokenArray, key: LineageKey) -> None:
        """Writes a segment behind, in place of the record it had before a split or a new state.

        Args:
            prefix: all token ids up to the node's end.
        """

    def holds(self, node: Node) -> bool:
        """Whether the segment can be read back: a storage may drop records for its own budget."""

    def read(self, node: Node) -> Content | None:
        """A segment's KV, verified; None if the record cannot be trusted."""

    def forget(self, nodes: Iterable[Node]) -> None:
        """Deletes the records of segments."""

    def quarantine(self, node: Node, reason: str) -> None:
        """Puts a record aside whose bytes are sound and whose content is wrong."""

    def touch(self, nodes: Iterable[Node]) -> None:
        """Marks records as used now."""

    def pin(self, nodes: Iterable[Node], *, pinned: bool) -> None:
        """Exempts records from eviction, or no longer."""

    def flush(self) -> None:
        """Waits a little for writes under way, so that more segments can leave memory."""

    def reap(self) -> None:
        """Frees arrays that are written: MLX frees memory on its own thread only."""


class NoStorage:
    """Memory is all there is: what leaves it is computed again."""

    def restore(self, tree: PrefixTree) -> list[Lineage]:
        return []

    def save(self, node: Node, prefix: TokenArray, key: LineageKey) -> None: ...

    def holds(self, node: Node) -> bool:
        return False

    def read(self, node: Node) -> Content | None:
        return None

    def forget(self, nodes: Iterable[Node]) -> None: ...

    def quarantine(self, node: Node, reason: str) -> None: ...

    def touch(self, nodes: Iterable[Node]) -> None: ...

    def pin(self, nodes: Iterable[Node], *, pinned: bool) -> None: ...

    def flush(self) -> None: ...

    def reap(self) -> None: ...
