"""Which records there are, how they hang together, and which go first.

Invariants: a record is never chosen before all that hang below it, and never one that is pinned
under the fingerprint in use. Not thread-safe: its owner holds a lock.
"""

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from anyclaude.mlx.kv_disk.values import RecordInfo
from anyclaude.mlx.tokens import TokenArray


class Key(NamedTuple):
    fingerprint: str
    record_id: str


@dataclass(eq=False)
class Stored:
    """A complete record's file."""

    key: Key
    parent_id: str
    start: int
    token_ids: TokenArray
    kind: str
    session_id: str
    created: float
    nbytes: int
    mtime_ns: int
    last_use: float
    pinned: bool

    @property
    def parent(self) -> Key | None:
        return Key(self.key.fingerprint, self.parent_id) if self.parent_id else None

    def info(self) -> RecordInfo:
        return RecordInfo(
            record_id=self.key.record_id,
            parent_id=self.parent_id,
            start=self.start,
            token_ids=self.token_ids,
            nbytes=self.nbytes,
            last_use=self.last_use,
            created=self.created,
            pinned=self.pinned,
            kind=self.kind,
            session_id=self.session_id,
        )


class Ledger:
    """All records of a folder, whichever model they belong to."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._records: dict[Key, Stored] = {}
        self._children: dict[Key, set[Key]] = {}
        self.nbytes = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._records

    def get(self, key: Key) -> Stored | None:
        return self._records.get(key)

    def all(self) -> list[Stored]:
        return list(self._records.values())

    def own_count(self) -> int:
        return sum(key.fingerprint == self._fingerprint for key in self._records)

    def models(self) -> dict[str, tuple[int, int]]:
        """Records and bytes by fingerprint, the one in use first."""
        found = {self._fingerprint: (0, 0)}
        for key, stored in self._records.items():
            records, nbytes = found.get(key.fingerprint, (0, 0))
            found[key.fingerprint] = records + 1, nbytes + stored.nbytes
        return found

    def add(self, stored: Stored) -> None:
        """Adds a record, or replaces the one of the same name."""
        self.discard(stored.key)
        self._records[stored.key] = stored
        self.nbytes += stored.nbytes
        if stored.parent is not None:
            self._children.setdefault(stored.parent, set()).add(stored.key)

    def discard(self, key: Key) -> None:
        stored = self._records.pop(key, None)
        if stored is None:
            return
        self.nbytes -= stored.nbytes
        if stored.parent is not None:
            siblings = self._children[stored.parent]
            siblings.discard(key)
            if not siblings:
                del self._children[stored.parent]

    def own_parents_first(self) -> list[Stored]:
        return [s for s in self._reachable() if s.key.fingerprint == self._fingerprint]

    def orphans(self) -> list[Stored]:
        """Records that no chain of parents connects to a root; children before parents."""
        reachable = {stored.key for stored in self._reachable()}
        return _children_first([s for key, s in self._records.items() if key not in reachable])

    def with_descendants(self, keys: Iterable[Key]) -> list[Stored]:
        """These records and all below them; children before parents."""
        order: dict[Key, None] = {}
        pending = [key for key in keys if key in self._records]
        while pending:
            key = pending.pop()
            if key not in order:
                order[key] = None
                pending.extend(self._children.get(key, ()))
        found = [self._records[key] for key in order]
        return _children_first(found)

    def ancestors(self, parent: Key | None) -> set[Key]:
        """`parent` and all above it."""
        above: set[Key] = set()
        while parent is not None and parent not in above:
            above.add(parent)
            stored = self._records.get(parent)
            parent = stored.parent if stored is not None else None
        return above

    def victims(self, excess_bytes: int, protected: Collection[Key]) -> list[Stored]:
        """What must go for `excess_bytes` to be freed, in order; less, if that is not enough."""
        left = {key: len(below) for key, below in self._children.items()}
        waiting = [
            (self._rank(stored), key)
            for key, stored in self._records.items()
            if not left.get(key) and self._may_go(stored, protected)
        ]
        heapq.heapify(waiting)
        chosen: list[Stored] = []
        while waiting and excess_bytes > 0:
            stored = self._records[heapq.heappop(waiting)[1]]
            chosen.append(stored)
            excess_bytes -= stored.nbytes
            parent = self._records.get(stored.parent) if stored.parent else None
            if parent is not None:
                left[parent.key] -= 1
                if not left[parent.key] and self._may_go(parent, protected):
                    heapq.heappush(waiting, (self._rank(parent), parent.key))
        return chosen

    def _rank(self, stored: Stored) -> tuple[bool, bool, float]:
        """Other models' records first, then the least recently used."""
        return stored.key.fingerprint == self._fingerprint, stored.pinned, stored.last_use

    def _may_go(self, stored: Stored, protected: Collection[Key]) -> bool:
        own = stored.key.fingerprint == self._fingerprint
        return not (stored.pinned and own) and stored.key not in protected

    def _reachable(self) -> list[Stored]:
        """Breadth first from the roots, so parents come before children."""
        roots = [stored for stored in self._records.values() if stored.parent is None]
        found = sorted(roots, key=lambda stored: stored.key)
        for stored in found:
            below = self._children.get(stored.key, ())
            found.extend(self._records[key] for key in sorted(below))
        return found


def _children_first(records: list[Stored]) -> list[Stored]:
    """Orders records so that each follows all of its descendants among them."""
    keys = {stored.key for stored in records}
    below: dict[Key, list[Stored]] = {}
    found = []
    for stored in records:
        if stored.parent is not None and stored.parent in keys:
            below.setdefault(stored.parent, []).append(stored)
        else:
            found.append(stored)
    for stored in found:
        found.extend(below.get(stored.key, ()))
    return found[::-1]
