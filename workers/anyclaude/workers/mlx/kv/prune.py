"""Which caches go, decided before any does.

Order: idle lineages, least recently used first, then prefixes likewise. A lineage that is the last
holder of its stable prefix shrinks to it instead of going whole; a byte target may take the shrunk
prefix too, once nothing else is left.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from anyclaude.workers.mlx.kv.entry import Entry, Kind, total_bytes


@dataclass(frozen=True)
class Selection:
    """What a prune takes. Conditions combine; none given selects nothing."""

    session_id: str | None = None
    older_than_seconds: float | None = None
    # Stop once this many bytes or fewer remain.
    to_bytes: int | None = None
    # Everything, prefixes included.
    all: bool = False

    @property
    def is_empty(self) -> bool:
        given = (self.session_id, self.older_than_seconds, self.to_bytes)
        return not self.all and given == (None, None, None)

    def takes(self, entry: Entry, now: float) -> bool:
        if entry.in_use:
            return False
        if self.session_id is not None and (
            entry.kind is Kind.PREFIX or entry.key.session_id != self.session_id
        ):
            return False
        return self.older_than_seconds is None or now - entry.last_use >= self.older_than_seconds


@dataclass(frozen=True)
class Removal:
    """One entry that goes, or shrinks to its stable prefix."""

    entry: Entry
    shrinks: bool
    freed_bytes: int


def plan(
    entries: Sequence[Entry], selection: Selection, *, now: float, min_prefix_tokens: int
) -> list[Removal]:
    """The removals that carry out `selection`, in order; nothing is changed."""
    if selection.is_empty:
        return []
    remaining_bytes = total_bytes(entries)
    candidates = sorted(
        (entry for entry in entries if selection.takes(entry, now)),
        key=lambda entry: (entry.kind is Kind.PREFIX, entry.last_use),
    )
    queue = deque((entry, False) for entry in candidates)
    removals: dict[Entry, Removal] = {}
    while queue and not _reached(selection, remaining_bytes):
        entry, shrunk_already = queue.popleft()
        shrinks = (
            not selection.all
            and not shrunk_already
            and _is_last_holder(entry, entries, removals, min_prefix_tokens)
        )
        freed = entry.nbytes - (_prefix_bytes(entry) if shrinks else 0)
        remaining_bytes -= freed - (removals[entry].freed_bytes if shrunk_already else 0)
        removals[entry] = Removal(entry, shrinks, freed)
        if shrinks and selection.to_bytes is not None:
            queue.append((entry, True))
    return list(removals.values())


def _reached(selection: Selection, remaining_bytes: int) -> bool:
    return selection.to_bytes is not None and remaining_bytes <= selection.to_bytes


def _is_last_holder(
    entry: Entry,
    entries: Sequence[Entry],
    removals: dict[Entry, Removal],
    min_prefix_tokens: int,
) -> bool:
    if entry.kind is Kind.PREFIX or entry.stable_tokens < min_prefix_tokens:
        return False
    if entry.live.reusable(entry.stable_tokens) < min_prefix_tokens:
        return False
    return not any(
        other is not entry
        and other.key.stable_digest == entry.key.stable_digest
        and len(other.live) >= entry.stable_tokens
        and (other not in removals or removals[other].shrinks)
        for other in entries
    )


def _prefix_bytes(entry: Entry) -> int:
    """About what the entry's stable prefix will take on its own."""
    return entry.nbytes * entry.live.reusable(entry.stable_tokens) // max(1, len(entry.live))
