"""Every KV cache of the worker: found by token ids, stored once, kept within a byte budget.

The prefix tree holds the KV of every distinct prefix once. Each running request has a live cache:
its conversation's latest one, continued in place, or else one assembled from the tree. When the
request is over, its new tokens are added to the tree.

Invariants:
  - only equal token ids decide what is reused, and one token is always left to compute;
  - the live cache of an idle conversation holds nothing that is not in the tree, so it can be
    dropped at any time;
  - a lease is the only way to a mutable cache, and belongs to one request.
Not thread-safe: the MLX thread owns it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence

from anyclaude.mlx.adapter import LanguageModel
from anyclaude.mlx.kv.budget import MemoryBudget, StoreLimits
from anyclaude.mlx.kv.lineage import RESPONSE_TOKENS, Ahead, Lease, Lineage, LineageKey, Lookup
from anyclaude.mlx.kv.live import LiveCache, assemble, extract
from anyclaude.mlx.kv.protocols import Listener, Loss, Storage
from anyclaude.mlx.kv.tree import Match, Node, PrefixTree
from anyclaude.mlx.tokens import TokenArray, common_prefix


class KVStore:
    """All caches of one model."""

    def __init__(
        self,
        model: LanguageModel,
        limits: StoreLimits,
        *,
        storage: Storage | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.time,
        bytes_per_token: float = 0.0,
    ) -> None:
        """`storage` keeps segments beyond memory; `listeners` follow what enters and leaves the
        tree; `bytes_per_token` of a cache is 0 if it is not measured yet."""
        self.tree = PrefixTree()
        self.storage = storage or Storage()
        self._model = model
        self._limits = limits
        self._listeners = listeners
        self._clock = clock
        self._lineages: dict[LineageKey, Lineage] = {}
        self._leases: set[Lease] = set()
        self._needs_states = self._empty().needs_checkpoints
        self.budget = MemoryBudget(
            limits,
            self.tree,
            self._lineages,
            self._leases,
            self.storage,
            forget=self.forget,
            clock=clock,
            bytes_per_token=bytes_per_token,
        )
        self._lineages.update((line.key, line) for line in self.storage.restore(self.tree))
        for listener in listeners:
            listener.adopted(list(self.tree.nodes()), self._lineages.values())

    @property
    def kv_bits(self) -> int:
        return self._limits.kv_bits

    @property
    def pinned_limit_bytes(self) -> int:
        return int(self._limits.max_pinned_fraction * self.budget.limit_bytes)

    @property
    def stored_bytes(self) -> int:
        """Bytes of this model's records."""
        return sum(node.stored_bytes for node in self.tree.nodes())

    def lineages(self) -> list[Lineage]:
        return list(self._lineages.values())

    def count(self) -> int:
        """Number of conversations and stable prefixes."""
        return len(self._lineages) + sum(bool(node.stable_digest) for node in self.tree.nodes())

    # One request

    def acquire(
        self,
        key: LineageKey,
        prompt: TokenArray,
        stable_tokens: int,
        *,
        keep: bool = True,
        ahead: bool = False,
    ) -> Lease:
        """Lends a cache that holds the longest usable part of `prompt`.

        With `keep`, what is computed is added to the tree. With `ahead`, this is no request, but
        the beginning of the conversation's next prompt.
        """
        limit = len(prompt) - 1
        lineage = self._lineages.get(key) if keep else None
        own = lineage.live if lineage else None
        in_own = _reusable(own, prompt, limit)
        match, in_tree, disk_tokens = self._match(prompt, limit)
        running, in_running = self._longest_running(prompt, limit)
        reused = max(in_own, in_tree, in_running)
        self._use(match, reused)
        ahead_tokens = 0
        if lineage is not None:
            lineage.live = None
            if not ahead:
                lineage.hits += 1
                if lineage.ahead is not None:
                    ahead_tokens = lineage.ahead.used_tokens(prompt, reused)
        spare_tokens = len(prompt) - reused + RESPONSE_TOKENS
        if own is not None and 0 < reused == in_own:
            own.cut(reused)
            live = own
        elif running is not None and reused > in_tree:
            live = running.fork(reused, spare_tokens)
        else:
            live = self._empty()
            if reused:
                assemble(match.nodes, live, prompt[:reused], spare_tokens)
        lookup = Lookup(
            key=key,
            prompt=prompt,
            stable_tokens=stable_tokens,
            match=match,
            reused=reused,
            from_live=reused > in_tree or (own is not None and reused == in_own),
            disk_tokens=disk_tokens,
            keep=keep,
            lineages=self._lineages.values(),
            ahead=ahead,
            ahead_tokens=ahead_tokens,
        )
        lease = Lease(lookup, live, self.budget.cost_bytes(prompt, match))
        self._leases.add(lease)
        if keep:
            self._lineage(key).running += 1
        return lease

    def _match(self, prompt: TokenArray, limit: int) -> tuple[Match, int, int]:
        """Finds the prompt in the tree and loads the part that it can reuse into memory.

        Returns the match, what of it can be reused, and how many tokens were read from disk.

        A segment that cannot be read is removed from the tree with all that builds on it, and the
        search starts again; its tokens are then computed.
        """
        loaded: list[Node] = []
        while True:
            match = self.tree.match(prompt)
            reusable = match.reusable(limit, needs_states=self._needs_states)
            missing = [n for n in match.nodes if n.start < reusable and not n.in_memory]
            loaded += missing
            if all(map(self._load, missing)):
                read = [n for n in match.nodes if n in loaded]
                return match, reusable, sum(min(n.end, reusable) - n.start for n in read)

    def _load(self, node: Node) -> bool:
        """Reads a segment from the storage; removes it from the tree if that fails."""
        self._touch([node])
        self.budget.fit(node.stored_bytes)
        is_stored = self.storage.holds(node)
        node.content = node.content or self.storage.read(node)
        if node.in_memory:
            return True
        self.forget(node, Loss.CORRUPT_RECORD if is_stored else Loss.EVICTED)
        return False

    def keep_prefix(self, lease: Lease) -> None:
        """Adds a new stable prefix to the tree while its request still runs."""
        lookup, live = lease.lookup, lease.live
        stable = lookup.stable_tokens
        if not lookup.keep or stable < self._limits.min_prefix_tokens or len(live) < stable:
            return
        if self.tree.match(live.tokens.ids[:stable]).length < stable:
            self._insert(live, stable, lookup)

    def release(self, lease: Lease) -> Node | None:
        """Ends a lease: adds the new tokens of its cache to the tree.

        Returns the node where the cache's tokens end, or None if nothing is kept.
        """
        self._leases.remove(lease)
        lookup, live = lease.lookup, lease.live
        self.budget.measure(live)
        if not lookup.keep:
            return None
        lineage = self._lineage(lookup.key)
        lineage.running -= 1
        if lookup.ahead:
            self._release_ahead(lineage, live, lookup)
            return None
        lineage.last_use, lineage.ahead = self._clock(), None
        if not len(live):
            self._drop_empty_lineages()
            return None
        lineage.tip = self._insert(live, len(live), lookup)
        lineage.live = live
        self.budget.bound_live_caches()
        return lineage.tip

    def _release_ahead(self, lineage: Lineage, live: LiveCache, lookup: Lookup) -> None:
        """Keeps what was computed ahead beside the conversation, whose end and use stay."""
        if not len(live):
            return
        start = min(lookup.reused, lineage.ahead.start) if lineage.ahead else lookup.reused
        lineage.ahead = Ahead(self._insert(live, len(live), lookup), start)
        lineage.live = live

    def has_lineage(self, key: LineageKey) -> bool:
        return key in self._lineages

    def longest_reusable(self, prompt: TokenArray) -> int:
        """How many tokens of `prompt` any cache could give now."""
        limit = len(prompt) - 1
        in_tree = self.tree.match(prompt).reusable(limit, needs_states=self._needs_states)
        lives = self.budget.live_caches()
        return max([in_tree, *(_reusable(live, prompt, limit) for live in lives)])

    def reusable_part(self, marks: Sequence[int], length: int) -> int:
        """How much of the first `length` tokens will be reusable once they are computed."""
        if not self._needs_states:
            return length
        return max((mark for mark in marks if mark <= length), default=0)

    # What is kept

    def warm(self, share: float = 0.5) -> int:
        """Loads stored stable prefixes into memory, latest used first; returns their tokens.

        They may use `share` of the limit; the rest is for the first conversations.
        """
        prefixes = [node for node in self.tree.nodes() if node.stable_digest and not node.in_memory]
        tokens = 0
        for prefix in sorted(prefixes, key=lambda node: node.last_use, reverse=True):
            missing = [node for node in prefix.path() if not node.in_memory]
            needed = sum(node.stored_bytes for node in missing)
            fits = self.budget.nbytes + needed <= share * self.budget.limit_bytes
            if fits and all(map(self._load, missing)):
                tokens += prefix.end
        return tokens

    def forget(self, node: Node, loss: Loss = Loss.EVICTED) -> None:
        """Removes a segment and all that builds on it from the tree and the storage.

        A conversation that ended there now ends above it, or is forgotten if nothing is left that
        belongs to it alone: otherwise the names of all conversations would be kept for ever.
        """
        gone = {node, *self.tree.nodes_below(node)}
        above = _own_part(node)
        for lineage in self._lineages.values():
            if lineage.tip in gone:
                lineage.tip = above
            if lineage.ahead is not None and lineage.ahead.node in gone:
                lineage.ahead = None
        for listener in self._listeners:
            listener.lost(gone, loss)
        self.tree.remove(node)
        self.storage.forget(gone)
        self._drop_empty_lineages()

    def adopt(self, lineages: Iterable[Lineage], prefixes: Collection[Node]) -> None:
        """Adds conversations and stable prefixes that were computed elsewhere.

        A known conversation keeps its end, unless the adopted end extends it.
        """
        adopted = []
        for lineage in lineages:
            known = self._lineages.setdefault(lineage.key, lineage)
            if known is not lineage and lineage.tip is not None and not known.running:
                if known.tip is not None and known.tip not in lineage.tip.path():
                    continue
                known.tip, known.live = lineage.tip, None
            adopted.append(known)
        for listener in self._listeners:
            listener.adopted(prefixes, adopted)

    def drop_lineage(self, key: LineageKey) -> None:
        """Forgets a conversation's name and live cache; its segments stay."""
        self._lineages.pop(key, None)

    def make_splittable(self, tokens: TokenArray) -> None:
        """Loads the segment in whose middle `tokens` diverges into memory, or drops it."""
        match = self.tree.match(tokens)
        if match.nodes and match.length < match.nodes[-1].end and not match.nodes[-1].in_memory:
            self._load(match.nodes[-1])

    def save(self, path: list[Node], tokens: TokenArray, key: LineageKey) -> None:
        """Queues for writing what has no record yet: new and split segments, and new states.

        Parents are queued first, since a record names its parent; the lower part of a split segment
        may lie beside the path.
        """
        for node in path:
            if self._needs_record(node):
                self.storage.save(node, tokens[: node.end], key)
                for child in node.children.values():
                    if child not in path and self._needs_record(child):
                        self.storage.save(child, child.token_ids(), key)
        self.storage.touch(path)

    def save_missing(self) -> None:
        """Queues for writing every segment in memory that lost its record or never had one."""
        self.budget.forget_dropped()
        keys = {
            node: lineage.key
            for lineage in self._lineages.values()
            if lineage.tip is not None
            for node in lineage.tip.path()
        }
        for node in self.tree.nodes():
            if self._needs_record(node):
                key = keys.get(node) or LineageKey("", "", node.stable_digest)
                self.storage.save(node, node.token_ids(), key)

    def _needs_record(self, node: Node) -> bool:
        """Also if a complete record was evicted, or its file removed by somebody else."""
        lost = node.in_memory and node.is_stored and not self.storage.holds(node)
        return lost or node.needs_record

    # Parts

    def _lineage(self, key: LineageKey) -> Lineage:
        now = self._clock()
        return self._lineages.setdefault(key, Lineage(key, create_time=now, last_use=now))

    def _longest_running(self, prompt: TokenArray, limit: int) -> tuple[LiveCache | None, int]:
        """The cache of a running request that shares most with `prompt`."""
        lives = [(lease.live, _reusable(lease.live, prompt, limit)) for lease in self._leases]
        return max(lives, key=lambda found: found[1], default=(None, 0))

    def _insert(self, live: LiveCache, length: int, lookup: Lookup) -> Node:
        """Adds the first `length` tokens of `live` to the tree; returns where they end."""
        states = dict(live.checkpoints)
        if live.needs_checkpoints and length == len(live):
            states.setdefault(length, live.state())
        key, stable = lookup.key, lookup.stable_tokens
        cuts = {n for n in states if n <= length} | ({stable} if 0 < stable <= length else set())
        tokens = live.tokens.ids[:length]
        self.make_splittable(tokens)
        tip = self.tree.insert(tokens, cuts, lambda start, end: extract(live, start, end))
        path = tip.path()
        self._touch(path)
        for node in path:
            node.create_time = node.create_time or self._clock()
            node.is_main = node.is_main or not key.agent_id
            if node.end in states and not node.states and node.in_memory:
                node.add_states(states[node.end])
            if node.end == stable >= self._limits.min_prefix_tokens:
                node.stable_digest = key.stable_digest
        self.save(path, tokens, key)
        self._thin_states(path)
        self._drop_surplus_prefixes()
        return tip

    def _thin_states(self, path: list[Node]) -> None:
        """Keeps the newest states of a conversation; those at forks and stable prefixes stay."""
        plain = [n for n in path if n.states and not n.stable_digest and len(n.children) < 2]
        for node in plain[: max(0, len(plain) - self._limits.checkpoints_per_lineage)]:
            node.drop_states()

    def _drop_surplus_prefixes(self) -> None:
        """Makes the oldest prefixes beyond the limit ordinary segments."""
        stable = [node for node in self.tree.nodes() if node.stable_digest and not node.pinned]
        stable.sort(key=lambda node: node.last_use)
        for node in stable[: max(0, len(stable) - self._limits.max_prefixes)]:
            node.stable_digest = ""

    def _drop_empty_lineages(self) -> None:
        for key, lineage in list(self._lineages.items()):
            if lineage.tip is None and not lineage.running:
                del self._lineages[key]

    def _use(self, match: Match, reused: int) -> None:
        used = [node for node in match.nodes if node.start < reused]
        self._touch(used)
        for node in used:
            node.hits += 1

    def _touch(self, nodes: Sequence[Node]) -> None:
        now = self._clock()
        for node in nodes:
            node.last_use = now

    def _empty(self) -> LiveCache:
        return LiveCache.empty(
            self._model,
            kv_bits=self._limits.kv_bits,
            max_checkpoints=self._limits.checkpoints_per_lineage,
        )


def _own_part(gone: Node) -> Node | None:
    """Where a conversation ends without `gone`; None where others go on, too."""
    above = gone.parent
    if above is None or above.is_root or above.stable_digest or len(above.children) > 1:
        return None
    return above


def _reusable(live: LiveCache | None, prompt: TokenArray, limit: int) -> int:
    if live is None:
        return 0
    return live.reusable(min(common_prefix(live.tokens.ids, prompt), limit))
