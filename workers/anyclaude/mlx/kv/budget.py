"""Memory budget of the store: the bytes used and claimed, and the order of eviction.

The bytes in memory plus those that running requests may still claim stay within the limit. Order of
eviction, cheapest loss first: the live caches of idle conversations (their tokens are in the tree
too), segments of subagents, of main conversations, stable prefixes, pinned segments; within a kind
the least recently used first. A segment is evicted only when no other segment in memory builds on
it. It stays in the tree if the storage has a record of it.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import KW_ONLY, dataclass

from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.lineage import RESPONSE_TOKENS, Lease, Lineage, LineageKey
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.protocols import Loss, Storage
from anyclaude.mlx.kv.tree import Match, Node, PrefixTree
from anyclaude.mlx.tokens import TokenArray


@dataclass(frozen=True)
class StoreLimits:
    """The limits of the store, from the cache settings."""

    memory_limit_bytes: int
    _: KW_ONLY
    prune_fraction: float = 0.2
    checkpoints_per_lineage: int = 8
    max_prefixes: int = 16
    min_prefix_tokens: int = 256
    live_idle_seconds: float = 120.0
    live_fraction: float = 0.5
    kv_bits: int = 0
    max_pinned_fraction: float = 0.5


class MemoryBudget:
    """The memory of one store, whose parts it shares."""

    def __init__(
        self,
        limits: StoreLimits,
        tree: PrefixTree,
        lineages: Mapping[LineageKey, Lineage],
        leases: Set[Lease],
        storage: Storage,
        *,
        forget: Callable[[Node, Loss], None],
        clock: Callable[[], float],
        bytes_per_token: float,
    ) -> None:
        """
        Args:
            limits: the limits that it enforces.
            tree, lineages, leases, storage: the store's, shared with it.
            forget: removes a segment from the tree and the storage.
            clock: Unix time.
            bytes_per_token: 0 until the first cache is measured.
        """
        self._limits = limits
        self._tree = tree
        self._lineages = lineages
        self._leases = leases
        self._storage = storage
        self._forget = forget
        self._clock = clock
        self.bytes_per_token = bytes_per_token
        self.evictions = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tree and of all live caches; states that they share count once."""
        leaves = {id(leaf): leaf for live in self.live_caches() for leaf in live.leaves()}
        for node in self._tree.nodes():
            for state in node.states.values():
                leaves.pop(id(state), None)
        return self._tree.nbytes + sum(map(kinds.nbytes, leaves.values()))

    @property
    def idle_bytes(self) -> int:
        """Bytes of what is not the live cache of a running request: what can be evicted."""
        return max(0, self.nbytes - sum(lease.live.nbytes for lease in self._leases))

    @property
    def limit_bytes(self) -> int:
        return self._limits.memory_limit_bytes

    @property
    def prune_fraction(self) -> float:
        return self._limits.prune_fraction

    def live_caches(self) -> list[LiveCache]:
        """The live caches of idle conversations and of running requests."""
        idle = [lineage.live for lineage in self._lineages.values() if lineage.live is not None]
        return [*idle, *(lease.live for lease in self._leases)]

    def measure(self, live: LiveCache) -> None:
        """Measures on a cache how many bytes a token costs."""
        self.bytes_per_token = kinds.bytes_per_token(live.layers) or self.bytes_per_token

    # What a request needs

    def fit_request(self, key: LineageKey, prompt: TokenArray, *, keep: bool = True) -> bool:
        """Evicts until the request fits; False if it cannot. What it will reuse is evicted last."""
        match, now = self._matched(prompt), self._clock()
        lineage = self._lineages.get(key) if keep else None
        if lineage is not None and lineage.live is not None:
            lineage.last_use = now
        return self.fit(self._added_bytes(match, prompt, lineage))

    def fit_ahead(self, key: LineageKey, prompt: TokenArray) -> bool:
        """Frees the bytes to compute the beginning of a conversation's next prompt, if possible.

        Evicts no more than is needed, nothing that is pinned, and nothing that was used after the
        conversation's latest answer. Where that is not enough, and where the prompt would have to
        be read from the storage first, it evicts nothing and returns False.
        """
        lineage, match = self._lineages.get(key), self._matched(prompt)
        if lineage is None or not all(node.in_memory for node in match.nodes):
            return False
        added = self._added_bytes(match, prompt, lineage)
        target = self._limits.memory_limit_bytes - added - self._claimed_bytes()
        answered = lineage.last_use

        def may_evict(node: Node) -> bool:
            return node.last_use < answered and not node.pinned

        evictable = sum(node.nbytes for node in self._tree.nodes() if may_evict(node))
        evictable += sum(
            other.live.nbytes
            for other in self._lineages.values()
            if other.live is not None and other.last_use < answered
        )
        if self.nbytes - evictable > target:
            return False
        return self._drop_live_caches(target, before=answered) or self._evict_to(target, may_evict)

    def _matched(self, prompt: TokenArray) -> Match:
        """What of a prompt is in the tree, marked as used now."""
        match, now = self._tree.match(prompt), self._clock()
        for node in match.nodes:
            node.last_use = now
        return match

    def needed_bytes(self, key: LineageKey, prompt: TokenArray, *, keep: bool = True) -> int:
        """Bytes that this request and all running ones have still to allocate."""
        match = self._tree.match(prompt)
        read = sum(node.stored_bytes for node in match.nodes if not node.in_memory)
        lineage = self._lineages.get(key) if keep else None
        return self._added_bytes(match, prompt, lineage) + read + self._claimed_bytes()

    def cost_bytes(self, prompt: TokenArray, match: Match) -> int:
        """Bytes of a request: its live cache, and what it adds to the tree."""
        tokens = 2 * len(prompt) - match.length + 2 * RESPONSE_TOKENS
        return int(tokens * self.bytes_per_token)

    def _added_bytes(self, match: Match, prompt: TokenArray, lineage: Lineage | None) -> int:
        """A request's cost without the live cache that its conversation already has."""
        own = lineage.live.nbytes if lineage is not None and lineage.live is not None else 0
        return max(0, self.cost_bytes(prompt, match) - own)

    def _claimed_bytes(self) -> int:
        """Bytes that running requests have claimed and do not use yet."""
        return sum(max(0, lease.claimed_bytes - lease.live.nbytes) for lease in self._leases)

    # Eviction

    def fit(self, needed_bytes: int) -> bool:
        """Evicts until `needed_bytes` more fit; False if they cannot.

        Idle live caches are evicted first. If that is not enough, a whole fraction of the limit is
        evicted, so that this happens rarely.
        """
        limit = self._limits.memory_limit_bytes
        needed_bytes += self._claimed_bytes()
        if self._drop_live_caches(limit - needed_bytes):
            return True
        fraction_less = int(limit * (1 - self._limits.prune_fraction))
        self._evict_to(max(0, min(fraction_less, limit - needed_bytes)))
        return self.nbytes + needed_bytes <= limit

    def free(self, nbytes: int) -> None:
        """Moves at least `nbytes` of idle caches out of memory, if there are as many."""
        target = max(0, self.nbytes - nbytes)
        if not self._drop_live_caches(target):
            self._evict_to(target)

    def _drop_live_caches(self, target_bytes: int, *, before: float = math.inf) -> bool:
        """Drops those of conversations last used before a time, the oldest first.

        Returns whether only `target_bytes` remain.
        """
        if self.nbytes <= target_bytes:
            return True
        for lineage in sorted(self._lineages.values(), key=lambda lineage: lineage.last_use):
            if lineage.live is not None and lineage.last_use < before:
                lineage.live = None
                if self.nbytes <= target_bytes:
                    return True
        return False

    def bound_live_caches(self) -> None:
        """Drops live caches of idle conversations that repeat too much of the tree.

        The only active conversation keeps its live cache, to be continued in place. Where several
        are active, their live caches together use at most a fraction of the tree's bytes; those
        that were used last stay.
        """
        oldest = self._clock() - self._limits.live_idle_seconds
        active = [
            line for line in self._lineages.values() if line.running or line.last_use >= oldest
        ]
        if len(active) < 2:
            return
        left = self._limits.live_fraction * self._tree.nbytes
        for lineage in sorted(active, key=lambda line: line.last_use, reverse=True):
            if lineage.live is not None:
                left -= lineage.live.nbytes
                if left < 0:
                    lineage.live = None

    def tidy(self) -> None:
        """Frees what was written, and drops what is of no more use: see `forget_dropped`, and the
        live caches of conversations that had no request for a while."""
        self._storage.reap()
        if self._storage.has_dropped():
            self.forget_dropped()
        oldest = self._clock() - self._limits.live_idle_seconds
        for lineage in self._lineages.values():
            if lineage.last_use < oldest:
                lineage.live = None

    def forget_dropped(self) -> None:
        """Removes segments that are neither in memory nor, any more, in the storage."""
        waiting = [self._tree.root]
        while waiting:
            for node in list(waiting.pop().children.values()):
                if node.in_memory or self._storage.holds(node):
                    waiting.append(node)
                else:
                    self._forget(node, Loss.EVICTED)

    def _evict_to(
        self, target_bytes: int, may_evict: Callable[[Node], bool] = lambda _: True
    ) -> bool:
        """Evicts segments, least valuable first; returns whether only `target_bytes` remain."""
        self._storage.flush()
        used, spared = self.nbytes, set[Node | None]()
        for node in list(_leaves_first(self._tree)):
            if used <= target_bytes:
                # A state that was shared with an evicted segment now counts for the live cache.
                used = self.nbytes
            if used <= target_bytes:
                return True
            if node in spared or not may_evict(node):
                spared.add(node.parent)
                continue
            # Counting all bytes for each segment would take longer than the waiting request.
            used -= node.nbytes
            self.evictions += 1
            self.evict(node)
        return self.nbytes <= target_bytes

    def evict(self, node: Node, loss: Loss = Loss.EVICTED) -> None:
        """Drops a segment from memory, and from the tree unless the storage has it."""
        if self._storage.holds(node):
            node.content = None
        else:
            self._forget(node, loss)


def _leaves_first(tree: PrefixTree) -> Iterator[Node]:
    """Nodes in memory in the order of eviction; a parent comes after its children."""
    below = {
        node: sum(child.in_memory for child in node.children.values())
        for node in tree.nodes()
        if node.in_memory
    }
    ready = [(_value(node), id(node), node) for node, children in below.items() if not children]
    heapq.heapify(ready)
    while ready:
        node = heapq.heappop(ready)[2]
        yield node
        parent = node.parent
        if parent in below:
            below[parent] -= 1
            if not below[parent]:
                heapq.heappush(ready, (_value(parent), id(parent), parent))


def _value(node: Node) -> tuple[bool, bool, bool, float]:
    """The sort key that orders nodes for eviction, first evicted first."""
    return (node.pinned, bool(node.stable_digest), node.is_main, node.last_use)
