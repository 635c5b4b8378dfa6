"""The list of stored records: how they build on one another, and which are evicted first.

Invariants: a record is never chosen before all that build on it, and never one that is pinned under
the fingerprint in use. Not thread-safe: the owner uses a lock.
"""

import heapq
from collections.abc import Collection, Iterable

from anyclaude.mlx.kv_disk.values import Key, RecordInfo


class Ledger:
    """All records of a folder, of every model."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._records: dict[Key, RecordInfo] = {}
        self._children: dict[Key, set[Key]] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: Key) -> bool:
        return key in self._records

    def get(self, key: Key) -> RecordInfo | None:
        return self._records.get(key)

    def of_model(self, fingerprint: str) -> list[RecordInfo]:
        """The records of one model, parents before children."""
        own = [info for info in self._records.values() if info.fingerprint == fingerprint]
        return _parents_first(own)

    def models(self) -> dict[str, tuple[int, int]]:
        """Number of records and bytes by fingerprint, the one in use first."""
        found = {self._fingerprint: (0, 0)}
        for info in self._records.values():
            records, nbytes = found.get(info.fingerprint, (0, 0))
            found[info.fingerprint] = records + 1, nbytes + info.nbytes
        return found

    def add(self, info: RecordInfo) -> None:
        """Adds a record, or replaces the one of the same name."""
        self.discard(info.key)
        self._records[info.key] = info
        self.nbytes += info.nbytes
        if info.parent is not None:
            self._children.setdefault(info.parent, set()).add(info.key)

    def discard(self, key: Key) -> None:
        info = self._records.pop(key, None)
        if info is None:
            return
        self.nbytes -= info.nbytes
        if info.parent is not None:
            siblings = self._children[info.parent]
            siblings.discard(key)
            if not siblings:
                del self._children[info.parent]

    def orphans(self) -> list[RecordInfo]:
        """Records whose parent is missing, and all that build on them; children first."""
        lost = [
            key
            for key, info in self._records.items()
            if info.parent is not None and info.parent not in self._records
        ]
        return self.with_descendants(lost)

    def with_descendants(self, keys: Iterable[Key]) -> list[RecordInfo]:
        """These records and all that build on them; children before parents."""
        found: set[Key] = set()
        pending = [key for key in keys if key in self._records]
        while pending:
            key = pending.pop()
            if key not in found:
                found.add(key)
                pending.extend(self._children.get(key, ()))
        return _parents_first([self._records[key] for key in found])[::-1]

    def ancestors(self, parent: Key | None) -> set[Key]:
        """`parent` and all that it builds on."""
        above: set[Key] = set()
        while parent is not None and parent not in above:
            above.add(parent)
            info = self._records.get(parent)
            parent = info.parent if info is not None else None
        return above

    def victims(
        self, excess_bytes: int, protected: Collection[Key], *, excess_records: int = 0
    ) -> list[RecordInfo]:
        """The records to evict for bytes and for a number, in order; fewer if it cannot be done."""
        left = {key: len(below) for key, below in self._children.items()}
        leaves = [
            (self._rank(info), key)
            for key, info in self._records.items()
            if not left.get(key) and self._is_evictable(info, protected)
        ]
        heapq.heapify(leaves)
        chosen: list[RecordInfo] = []
        while leaves and (excess_bytes > 0 or len(chosen) < excess_records):
            info = self._records[heapq.heappop(leaves)[1]]
            chosen.append(info)
            excess_bytes -= info.nbytes
            parent = self._records.get(info.parent) if info.parent else None
            if parent is not None:
                left[parent.key] -= 1
                if not left[parent.key] and self._is_evictable(parent, protected):
                    heapq.heappush(leaves, (self._rank(parent), parent.key))
        return chosen

    def _rank(self, info: RecordInfo) -> tuple[bool, bool, float]:
        """Other models' records first, then the least recently used."""
        return info.fingerprint == self._fingerprint, info.pinned, info.last_use

    def _is_evictable(self, info: RecordInfo, protected: Collection[Key]) -> bool:
        own = info.fingerprint == self._fingerprint
        return not (info.pinned and own) and info.key not in protected


def _parents_first(records: list[RecordInfo]) -> list[RecordInfo]:
    """Orders records by their distance from the first of their ancestors among them, then by key.

    Records that build on one another in a circle, which no digest allows, come last.
    """
    keys = {info.key for info in records}
    below: dict[Key | None, list[RecordInfo]] = {}
    for info in sorted(records, key=lambda info: info.key):
        below.setdefault(info.parent if info.parent in keys else None, []).append(info)
    found = below.pop(None, [])
    for info in found:
        found.extend(below.pop(info.key, ()))
    return found + [info for circle in below.values() for info in circle]
