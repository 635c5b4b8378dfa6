"""Every KV cache of the worker: found by token ids, kept within a byte limit.

A *lineage* is the cache of one conversation; a *prefix* is a kept system-and-tools cache that new
lineages fork from. While some lineage holds a stable prefix no second copy is made of it; the last
lineage to go shrinks to it.

Invariants:
  - what is reused is decided by comparing token ids alone, and one token is always left to compute;
  - an entry in use is changed by its user only; others may fork it, since between two turns its
    tokens and layers agree;
  - a lease is the only way to a mutable cache.
Not thread-safe: the MLX thread owns it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from anyclaude.workers.mlx.adapter import LanguageModel
from anyclaude.workers.mlx.kv import layers as kinds
from anyclaude.workers.mlx.kv.entry import Entry, Kind, LineageKey, total_bytes
from anyclaude.workers.mlx.kv.live import LiveCache
from anyclaude.workers.mlx.kv.prune import Removal, Selection, plan
from anyclaude.workers.mlx.kv.tokens import TokenArray, common_prefix

# Room left behind a prompt so that an answer of usual length grows no buffer.
ANSWER_ROOM_TOKENS = 512


class Cause(Enum):
    """Why a prompt was reused as far as it was."""

    FIRST_SIGHT = auto()
    NEW_LINEAGE = auto()
    EXTENDED = auto()
    EDITED_HISTORY = auto()


@dataclass(frozen=True)
class StoreLimits:
    """The cache settings that the store keeps to."""

    memory_limit_bytes: int
    prune_fraction: float = 0.2
    checkpoints_per_lineage: int = 8
    max_prefixes: int = 16
    min_prefix_tokens: int = 256
    kv_bits: int = 0


@dataclass(frozen=True)
class Lease:
    """A cache lent to one request."""

    entry: Entry
    reused_tokens: int
    cause: Cause
    # Utility calls borrow and give nothing back.
    keep: bool

    @property
    def live(self) -> LiveCache:
        return self.entry.live


@dataclass(frozen=True)
class _Match:
    entry: Entry
    common: int
    reusable: int


class KVStore:
    """All caches of one model."""

    def __init__(
        self,
        model: LanguageModel,
        limits: StoreLimits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._limits = limits
        self._clock = clock
        self._entries: list[Entry] = []
        # Measured on the first cache; 0 until then.
        self.bytes_per_token = 0.0
        self.evictions = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all caches, those of running requests included."""
        return total_bytes(self._entries)

    @property
    def limit_bytes(self) -> int:
        return self._limits.memory_limit_bytes

    def entries(self) -> list[Entry]:
        return list(self._entries)

    def acquire(
        self, key: LineageKey, prompt: TokenArray, stable_tokens: int, *, keep: bool = True
    ) -> Lease:
        """Lends a cache that holds the longest usable part of `prompt`.

        The conversation's own cache is continued in place; any other is forked.
        """
        own = self._own(key) if keep else None
        match = self._longest_match(prompt, prefer=own)
        lease_cause = _cause(own, match, prompt)
        if own is not None and (match is None or match.entry is own):
            reused = match.reusable if match else 0
            entry = self._rewound(own, reused)
        else:
            reused = match.reusable if match else 0
            entry = self._started(key, match, len(prompt) - reused + ANSWER_ROOM_TOKENS)
        entry.in_use = True
        entry.stable_tokens = stable_tokens
        entry.last_use = self._clock()
        return Lease(entry, reused, lease_cause, keep)

    def release(self, lease: Lease) -> None:
        """Takes a cache back. It becomes its conversation's, unless it was not to be kept."""
        entry = lease.entry
        entry.in_use = False
        entry.last_use = self._clock()
        self.bytes_per_token = kinds.bytes_per_token(entry.live.layers) or self.bytes_per_token
        superseded = self._superseded_by(entry) if lease.keep and len(entry.live) else {entry}
        self._entries = [other for other in self._entries if other not in superseded]
        self._drop_surplus_prefixes()

    def make_room_for(self, key: LineageKey, prompt: TokenArray, *, keep: bool = True) -> bool:
        """Prunes until the request fits; False if it cannot. What it will reuse goes last."""
        own = self._own(key) if keep else None
        match = self._longest_match(prompt, prefer=own)
        new_tokens = len(prompt) + ANSWER_ROOM_TOKENS
        if match is not None:
            match.entry.last_use = self._clock()
            if match.entry is own:
                new_tokens -= match.reusable
        return self.make_room(int(new_tokens * self.bytes_per_token))

    def make_room(self, needed_bytes: int) -> bool:
        """Prunes, oldest first, until `needed_bytes` more fit; False if they cannot.

        Once the limit is passed a whole fraction of it goes, so that pruning is rare.
        """
        limit = self._limits.memory_limit_bytes
        if self.nbytes + needed_bytes <= limit:
            return True
        fraction_less = int(limit * (1 - self._limits.prune_fraction))
        target = max(0, min(fraction_less, limit - needed_bytes))
        self.evictions += len(self.prune(Selection(to_bytes=target)))
        return self.nbytes + needed_bytes <= limit

    def prune(self, selection: Selection, *, dry_run: bool = False) -> list[Removal]:
        """Removes what `selection` takes, or only says what that would be."""
        removals = plan(
            self._entries,
            selection,
            now=self._clock(),
            min_prefix_tokens=self._limits.min_prefix_tokens,
        )
        if not dry_run:
            for removal in removals:
                self._remove(removal)
            self._drop_surplus_prefixes()
        return removals

    def _own(self, key: LineageKey) -> Entry | None:
        return next(
            (
                entry
                for entry in self._entries
                if entry.key == key and entry.kind is Kind.LINEAGE and not entry.in_use
            ),
            None,
        )

    def _longest_match(self, prompt: TokenArray, *, prefer: Entry | None) -> _Match | None:
        """The entry that can give the most tokens; `prefer` wins a tie, then the latest used."""
        matches = []
        for entry in self._entries:
            common = common_prefix(entry.live.tokens.ids, prompt)
            reusable = entry.live.reusable(min(common, len(prompt) - 1))
            if reusable:
                matches.append(_Match(entry, common, reusable))
        return max(
            matches,
            key=lambda match: (match.reusable, match.entry is prefer, match.entry.last_use),
            default=None,
        )

    def _rewound(self, own: Entry, reused: int) -> Entry:
        own.hits += 1
        if reused:
            own.live.cut(reused)
        else:
            own.live = self._empty()
        return own

    def _started(self, key: LineageKey, match: _Match | None, room_tokens: int) -> Entry:
        now = self._clock()
        if match is None:
            live = self._empty()
        else:
            match.entry.hits += 1
            match.entry.last_use = now
            live = match.entry.live.fork(match.reusable, room_tokens)
        entry = Entry(key, Kind.LINEAGE, live, stable_tokens=0, create_time=now, last_use=now)
        self._entries.append(entry)
        return entry

    def _superseded_by(self, entry: Entry) -> set[Entry]:
        """The older cache of the same conversation, and the prefix that the entry now holds."""
        return {
            other
            for other in self._entries
            if other is not entry
            and not other.in_use
            and (
                other.key == entry.key
                if other.kind is Kind.LINEAGE
                else other.key.stable_digest == entry.key.stable_digest
                and len(entry.live) >= len(other.live)
            )
        }

    def _remove(self, removal: Removal) -> None:
        entry = removal.entry
        if removal.shrinks:
            length = entry.live.reusable(entry.stable_tokens)
            entry.live = entry.live.fork(length, room_tokens=0)
            entry.kind = Kind.PREFIX
        else:
            self._entries.remove(entry)

    def _drop_surplus_prefixes(self) -> None:
        prefixes = sorted(
            (entry for entry in self._entries if entry.kind is Kind.PREFIX),
            key=lambda entry: entry.last_use,
        )
        for entry in prefixes[: max(0, len(prefixes) - self._limits.max_prefixes)]:
            self._entries.remove(entry)

    def _empty(self) -> LiveCache:
        return LiveCache.empty(
            self._model,
            kv_bits=self._limits.kv_bits,
            max_checkpoints=self._limits.checkpoints_per_lineage,
        )


def _cause(own: Entry | None, match: _Match | None, prompt: TokenArray) -> Cause:
    if own is not None and match is not None and match.entry is own:
        extends = match.common == min(len(own.live), len(prompt))
        return Cause.EXTENDED if extends else Cause.EDITED_HISTORY
    if own is not None:
        return Cause.EDITED_HISTORY
    return Cause.FIRST_SIGHT if match is None else Cause.NEW_LINEAGE
