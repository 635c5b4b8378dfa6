"""Caches and segments as rows of tables."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING

from anyclaude.cli.output import Row, table
from anyclaude.cli.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from anyclaude.worker.v1.worker_pb2 import Cache, CacheSegment


def show_caches(caches: "Iterable[Cache]") -> None:
    rows = [_row(cache) for cache in caches]
    if rows:
        titles = ("KIND", "TOKENS", "MEMORY", "DISK", "HITS", "USED", "NAME")
        table(titles, rows, right=(1, 2, 3, 4, 5))


def count(caches: Sized) -> str:
    return "1 cache" if len(caches) == 1 else f"{len(caches)} caches"


def branches(segments: "Iterable[CacheSegment]") -> Iterator[Row]:
    """A row for each segment, below the one it builds on and further to the right."""
    below: dict[str, list[CacheSegment]] = {}
    for segment in segments:
        below.setdefault(segment.parent, []).append(segment)
    yield from _branches("", below, 0)


def _branches(parent: str, below: "Mapping[str, list[CacheSegment]]", depth: int) -> Iterator[Row]:
    waiting = [(segment, depth) for segment in reversed(below.get(parent, ()))]
    # No recursion: a conversation is as deep as it has messages.
    while waiting:
        segment, at = waiting.pop()
        yield _segment(segment, at)
        children = below.get(segment.name, ())
        # One that goes on alone stays in its column.
        deeper = at + (len(children) > 1)
        waiting.extend((child, deeper) for child in reversed(children))


def _segment(segment: "CacheSegment", depth: int) -> Row:
    marks = [segment.prefix, *segment.lineages, "pinned" if segment.pinned else ""]
    return (
        str(segment.tokens),
        str(segment.start),
        format_bytes(segment.bytes) if segment.bytes else "-",
        format_bytes(segment.disk_bytes) if segment.on_disk else "-",
        "  " * depth + " ".join([segment.name, *filter(None, marks)]),
    )


def _row(cache: "Cache") -> Row:
    from anyclaude.cli.convert import seconds_since, word_of

    used = "now" if cache.in_use else f"{format_seconds(seconds_since(cache.last_use_time))} ago"
    return (
        word_of(cache, "kind"),
        str(cache.tokens),
        format_bytes(cache.bytes),
        format_bytes(cache.disk_bytes) if cache.disk_bytes else "-",
        str(cache.hits),
        used,
        f"{cache.name} (pinned)" if cache.pinned else cache.name,
    )
