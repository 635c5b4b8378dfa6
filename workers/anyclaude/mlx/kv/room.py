"""What the caches take of memory, what requests were let in for, and what leaves for others.

Everything in memory, with what running requests may still take, stays within the limit. Idle live
caches go first, since the tree holds all of them; then segments, least valuable first (`memory`).
What leaves memory stays on disk where it is there, and leaves the tree where it is not.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.lease import ANSWER_ROOM_TOKENS, Lease
from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.memory import leaves_first
from anyclaude.mlx.kv.tree import Match, Node, PrefixTree
from anyclaude.mlx.tokens import TokenArray

if TYPE_CHECKING:
    from anyclaude.mlx.kv_disk.archive import Archive


@dataclass(frozen=True)
class StoreLimits:
    """The cache settings that the store keeps to."""

    memory_limit_bytes: int
    prune_fraction: float = 0.2
    checkpoints_per_lineage: int = 8
    max_prefixes: int = 16
    min_prefix_tokens: int = 256
    live_idle_seconds: float = 120.0
    kv_bits: int = 0
    max_pinned_fraction: float = 0.5


class Room:
    """The memory of one store, whose parts it shares."""

    def __init__(
        self,
        limits: StoreLimits,
        tree: PrefixTree,
        lineages: Mapping[LineageKey, Lineage],
        leases: Set[Lease],
        archive: "Archive | None",
        *,
        forget: Callable[[Node], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            limits: what it keeps to.
            tree, lineages, leases, archive: the store's own.
            forget: takes a segment out of every tier.
            clock: Unix time.
        """
        self._limits = limits
        self._tree = tree
        self._lineages = lineages
        self._leases = leases
        self._archive = archive
        self._forget = forget
        self._clock = clock
        # Measured on the first cache; 0 until then.
        self.bytes_per_token = 0.0
        self.evictions = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the tree and of all live caches, states that they share counted once."""
        leaves = {id(leaf): leaf for live in self.live_caches() for leaf in live.leaves()}
        for node in self._tree.nodes():
            for state in node.states.values():
                leaves.pop(id(state), None)
        return self._tree.nbytes + sum(map(kinds.nbytes, leaves.values()))

    @property
    def limit_bytes(self) -> int:
        return self._limits.memory_limit_bytes

    @property
    def prune_fraction(self) -> float:
        return self._limits.prune_fraction

    def make_for(self, key: LineageKey, prompt: TokenArray, *, keep: bool = True) -> bool:
        """Evicts until the request fits; False if it cannot. What it will reuse goes last."""
        match = self._tree.match(prompt)
        now = self._clock()
        for node in match.nodes:
            node.last_use = now
        lineage = self._lineages.get(key) if keep else None
        if lineage is not None and lineage.live is not None:
            lineage.last_use = now
        return self.make(self._added_bytes(match, prompt, lineage))

    def needed_bytes(self, key: LineageKey, prompt: TokenArray, *, keep: bool = True) -> int:
        """What is yet to be taken of the machine for a request and for those that run already."""
        match = self._tree.match(prompt)
        read = sum(node.disk_bytes for node in match.nodes if not node.in_memory)
        lineage = self._lineages.get(key) if keep else None
        return self._added_bytes(match, prompt, lineage) + read + self._promised()

    def _added_bytes(self, match: Match, prompt: TokenArray, lineage: Lineage | None) -> int:
        """What a request adds to what is held: a conversation's own live cache is there already."""
        own = lineage.live.nbytes if lineage is not None and lineage.live is not None else 0
        return max(0, self.cost_bytes(len(prompt), len(prompt) - match.length) - own)

    def learn(self, live: LiveCache) -> None:
        """Measures what a token takes."""
        self.bytes_per_token = kinds.bytes_per_token(live.layers) or self.bytes_per_token

    def cost_bytes(self, prompt_tokens: int, new_tokens: int) -> int:
        """Bytes of a request: its live cache, and what it adds to the tree."""
        tokens = prompt_tokens + new_tokens + 2 * ANSWER_ROOM_TOKENS
        return int(tokens * self.bytes_per_token)

    def _promised(self) -> int:
        """Bytes that running requests have been let in for and do not hold yet."""
        return sum(max(0, lease.expected_bytes - lease.live.nbytes) for lease in self._leases)

    def make(self, needed_bytes: int) -> bool:
        """Evicts until `needed_bytes` more fit; False if they cannot.

        Idle live caches go first, since the tree holds all of them. If that is not enough, a whole
        fraction of the limit goes, so that evicting is rare.
        """
        limit = self._limits.memory_limit_bytes
        needed_bytes += self._promised()
        if self.nbytes + needed_bytes <= limit:
            return True
        idle = [lineage for lineage in self._lineages.values() if lineage.live is not None]
        for lineage in sorted(idle, key=lambda lineage: lineage.last_use):
            lineage.live = None
            if self.nbytes + needed_bytes <= limit:
                return True
        fraction_less = int(limit * (1 - self._limits.prune_fraction))
        self._evict_to(max(0, min(fraction_less, limit - needed_bytes)))
        return self.nbytes + needed_bytes <= limit

    def shed(self, nbytes: int) -> None:
        """Takes at least `nbytes` of idle caches out of memory, if there are as many."""
        target = self.nbytes - nbytes
        for lineage in self._lineages.values():
            lineage.live = None
        if self.nbytes > target:
            self._evict_to(max(0, target))

    def drop_idle_live_caches(self) -> None:
        """Drops the live caches of conversations that have not been heard of for a while."""
        if self._archive is not None:
            self._archive.reap()
        oldest = self._clock() - self._limits.live_idle_seconds
        for lineage in self._lineages.values():
            if lineage.last_use < oldest:
                lineage.live = None

    def _evict_to(self, target_bytes: int) -> None:
        """Takes segments out of memory, least valuable first, until `target_bytes` remain."""
        if self._archive is not None:
            self._archive.flush()
        held = self.nbytes
        for node in list(leaves_first(self._tree)):
            if held <= target_bytes:
                # What a live cache shares with a segment that left is the cache's now.
                held = self.nbytes
            if held <= target_bytes:
                return
            # Counting everything for each would take longer than the request that waits.
            held -= node.nbytes
            self.evictions += 1
            if self._archive is not None and self._archive.holds(node):
                self._archive.let_go(node)
            else:
                self._forget(node)

    def live_caches(self) -> list[LiveCache]:
        """Those of idle conversations and of running requests."""
        idle = [lineage.live for lineage in self._lineages.values() if lineage.live is not None]
        return [*idle, *(lease.live for lease in self._leases)]
