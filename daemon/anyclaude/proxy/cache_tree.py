"""The tree of caches as the status page shows it: a row for each run of segments up to a branch.

A long conversation has thousands of segments, so the front end sends the rows, and at most 200.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from anyclaude.cache.v1.cache_pb2 import CacheSegment

_MOST_ROWS: Final = 200


def session_of(lineage: str) -> str:
    """The session in the name lineages/SESSION/AGENT/DIGEST."""
    return lineage.split("/")[1]


def rows(segments: Iterable[CacheSegment], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each run before those that build on it, one level deeper; `titles` are by session."""
    below = defaultdict[str, list[CacheSegment]](list)
    for segment in segments:
        below[segment.parent].append(segment)
    found: list[dict[str, Any]] = []
    pending = [(segment, 0) for segment in reversed(below[""])]
    while pending and len(found) < _MOST_ROWS:
        segment, depth = pending.pop()
        run = [segment]
        while len(branches := below[run[-1].name]) == 1:
            run += branches
        found.append(_row(run, titles) | {"depth": depth})
        pending += [(branch, depth + 1) for branch in reversed(branches)]
    return found


def _row(run: Sequence[CacheSegment], titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": next(filter(None, (_name(each, titles) for each in reversed(run))), run[-1].name),
        "tokens": sum(each.tokens for each in run),
        "bytes": sum(each.bytes for each in run),
        "hits": run[-1].hits,
    }


def _name(segment: CacheSegment, titles: Mapping[str, str]) -> str:
    conversations = (titles.get(session_of(name)) or name for name in segment.lineages)
    return segment.label or ", ".join(conversations) or segment.prefix
