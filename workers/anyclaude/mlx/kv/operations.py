"""An operator's changes to the caches: prune and pin. Used on the MLX thread only.

A prune removes conversations and the segments that only they use. It is planned before anything is
removed. The segments of a stable prefix stay for the next conversation unless everything is pruned.
Conversations with a running request always stay, and pinned caches stay unless the selection names
them. With a byte target, segments are removed only until it is met, from the end of a conversation
upward, and what would free nothing in that tier stays.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from anyclaude.mlx.kv.lineage import Lineage
from anyclaude.mlx.kv.protocols import Loss
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node, PrefixTree


class Tier(Enum):
    """Where a prune removes caches."""

    BOTH = auto()
    # Removes from memory; records stay.
    MEMORY = auto()
    # Removes from disk; what is in memory stays.
    DISK = auto()


@dataclass(frozen=True)
class Selection:
    """What to prune: everything that meets all given conditions; nothing if none is given."""

    session_id: str | None = None
    older_than_seconds: float | None = None
    # Stop once this many bytes or fewer remain in memory, or on disk for that tier.
    to_bytes: int | None = None
    # Select everything, stable prefixes included; of one session, those that no other one uses.
    all: bool = False
    # Select pinned caches as well.
    pinned: bool = False
    tier: Tier = Tier.BOTH

    @property
    def is_empty(self) -> bool:
        given = (self.session_id, self.older_than_seconds, self.to_bytes)
        return not self.all and given == (None, None, None)


@dataclass(frozen=True)
class Removal:
    """Segments that are removed together, and the conversation or stable prefix they belong to."""

    nodes: tuple[Node, ...]
    freed_bytes: int
    lineage: Lineage | None = None
    prefix: Node | None = None


class PinnedTooMuchError(Exception):
    """Pinned caches may not fill the memory that conversations need."""

    def __init__(self, needed_bytes: int, pinned_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"That would pin {needed_bytes} bytes more beside {pinned_bytes}; pinned caches may "
            f"take {limit_bytes} bytes, which is cache.max_pinned_fraction of the memory limit. "
            "Unpin another cache, or raise the setting."
        )


def prune(
    store: KVStore,
    selection: Selection,
    *,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> list[Removal]:
    """Removes what `selection` selects; with `dry_run` only returns it."""
    removals = plan(
        store.tree,
        store.lineages(),
        selection,
        now=clock(),
        used_bytes=used_bytes(store, selection.tier),
    )
    if not dry_run:
        for removal in removals:
            _remove(store, removal, selection.tier)
    return removals


def pin(store: KVStore, tip: Node, *, pinned: bool) -> list[Node]:
    """Pins or unpins a segment and all that it builds on; returns the segments that changed.

    Unpinning leaves segments pinned that other pinned ones build on.

    Raises:
        PinnedTooMuchError: pinned segments would exceed their limit; nothing is changed.
    """
    changed = _to_pin(store, tip) if pinned else _to_unpin(tip)
    for node in changed:
        node.pinned = pinned
    store.storage.pin(changed, pinned=pinned)
    return changed


def pinned_bytes(store: KVStore) -> int:
    """Bytes of all pinned segments, as if all were in memory."""
    return sum(node.kv_bytes for node in store.tree.nodes() if node.pinned)


def used_bytes(store: KVStore, tier: Tier) -> int:
    """Bytes that a prune of that tier can free at most."""
    return store.stored_bytes if tier is Tier.DISK else store.budget.nbytes


def _remove(store: KVStore, removal: Removal, tier: Tier) -> None:
    if removal.lineage is not None:
        if tier is Tier.BOTH:
            store.drop_lineage(removal.lineage.key)
        elif tier is Tier.MEMORY:
            removal.lineage.live = None
    if tier is Tier.DISK:
        store.storage.forget(removal.nodes)
    # From the end of a branch upward, so that each segment is a leaf when it is removed.
    for node in removal.nodes:
        if tier is Tier.MEMORY:
            store.budget.evict(node, Loss.PRUNED)
            continue
        if tier is Tier.DISK:
            node.record = None
        if tier is Tier.BOTH or not node.in_memory:
            store.forget(node, Loss.PRUNED)


def _to_pin(store: KVStore, tip: Node) -> list[Node]:
    changed = [node for node in tip.path() if not node.pinned]
    needed, before = sum(node.kv_bytes for node in changed), pinned_bytes(store)
    if before + needed > store.pinned_limit_bytes:
        raise PinnedTooMuchError(needed, before, store.pinned_limit_bytes)
    return changed


def _to_unpin(tip: Node) -> list[Node]:
    changed: list[Node] = []
    for node in reversed(tip.path()):
        if any(child.pinned and child not in changed for child in node.children.values()):
            break
        changed.append(node)
    return changed


def plan(
    tree: PrefixTree,
    lineages: Sequence[Lineage],
    selection: Selection,
    *,
    now: float,
    used_bytes: int,
) -> list[Removal]:
    """The removals that carry out `selection`, oldest first; nothing is changed."""
    if selection.is_empty:
        return []
    target = selection.to_bytes
    missing = math.inf if target is None else used_bytes - target
    return list(_Planner(tree, lineages, selection, now, missing).removals())


@dataclass
class _Planner:
    """Plans removals one by one; each assumes that those before it were carried out."""

    tree: PrefixTree
    lineages: Sequence[Lineage]
    selection: Selection
    now: float
    # The bytes still to be freed.
    missing_bytes: float
    gone_lineages: set[Lineage] = field(default_factory=set)
    gone_nodes: set[Node] = field(default_factory=set)

    def removals(self) -> Iterator[Removal]:
        for lineage in sorted(self.lineages, key=lambda lineage: lineage.last_use):
            if self._is_selected(lineage):
                yield from self._counted(self._lineage(lineage))
        if self.selection.session_id is not None:
            return
        # Segments that belong to no conversation any more: edited history, cancelled work.
        yield from self._ends(lambda node: not node.stable_digest, keep_stable=True)
        if self.selection.all:
            yield from self._ends(lambda node: True, keep_stable=False)

    def _counted(self, removal: Removal) -> Iterator[Removal]:
        """Yields the removal unless it would not bring the byte target nearer."""
        if self.selection.to_bytes is not None and not removal.freed_bytes:
            self.gone_nodes.difference_update(removal.nodes)
            self.gone_lineages -= {removal.lineage}
            return
        self.missing_bytes -= removal.freed_bytes
        yield removal

    def _is_selected(self, lineage: Lineage) -> bool:
        wanted = self.selection.session_id
        if self.missing_bytes <= 0:
            return False
        if lineage.running or (wanted is not None and lineage.key.session_id != wanted):
            return False
        if lineage.tip is not None and self._is_spared(lineage.tip):
            return False
        return self._is_old(lineage.last_use)

    def _is_spared(self, node: Node) -> bool:
        return node.pinned and not self.selection.pinned

    def _is_old(self, last_use: float) -> bool:
        limit = self.selection.older_than_seconds
        return limit is None or self.now - last_use >= limit

    def _lineage(self, lineage: Lineage) -> Removal:
        self.gone_lineages.add(lineage)
        in_memory = self.selection.tier is not Tier.DISK
        live = lineage.live.nbytes if lineage.live and in_memory else 0
        # Without a session, stable prefixes go last: `removals` has a step for them.
        keep_stable = not self.selection.all or self.selection.session_id is None
        nodes: tuple[Node, ...] = ()
        if lineage.ahead is not None:
            nodes = self._release(lineage.ahead.node, self.missing_bytes - live, keep_stable)
        missing = self.missing_bytes - live - self._size(nodes)
        nodes += self._release(lineage.tip, missing, keep_stable)
        return Removal(nodes, live + self._size(nodes), lineage=lineage)

    def _size(self, nodes: Sequence[Node]) -> int:
        if self.selection.tier is Tier.DISK:
            return sum(node.stored_bytes for node in nodes)
        return sum(node.nbytes for node in nodes)

    def _ends(self, wanted: Callable[[Node], bool], *, keep_stable: bool) -> Iterator[Removal]:
        """Plans removals from the ends of branches upward, least recently used end first."""
        ends = [node for node in self.tree.nodes() if not node.children]
        for end in sorted(ends, key=lambda end: end.last_use):
            node = self._next_up(end)
            if node is None or not wanted(node) or not self._is_old(node.last_use):
                continue
            released = self._release(node, self.missing_bytes, keep_stable)
            if released:
                prefix = next((part for part in released if part.stable_digest), None)
                removal = Removal(released, self._size(released), prefix=prefix)
                yield from self._counted(removal)

    def _next_up(self, node: Node) -> Node | None:
        """The lowest ancestor that is not yet planned to be removed."""
        up: Node | None = node
        while up is not None and up in self.gone_nodes:
            up = up.parent
        return None if up is None or up.is_root else up

    def _release(
        self, tip: Node | None, missing_bytes: float, keep_stable: bool
    ) -> tuple[Node, ...]:
        """The nodes from `tip` upward that no remaining node or conversation needs.

        No more of them than free `missing_bytes`.
        """
        others = (other for other in self.lineages if other not in self.gone_lineages)
        ends = {end for other in others for end in other.ends}
        released: list[Node] = []
        node = tip
        while node is not None and not node.is_root and node not in self.gone_nodes:
            if (
                missing_bytes <= 0
                or node in ends
                or self._is_spared(node)
                or (keep_stable and node.stable_digest)
            ):
                break
            if any(child not in self.gone_nodes for child in node.children.values()):
                break
            self.gone_nodes.add(node)
            released.append(node)
            missing_bytes -= self._size((node,))
            node = node.parent
        return tuple(released)
