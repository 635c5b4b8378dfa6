"""`anyclaudectl cache`: what caches there are, and which of them are kept."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Json, Row, emit, facts, note, table
from anyclaude.cli.units import counted, format_bytes, format_seconds, parse_bytes, parse_seconds
from anyclaude.cli.verbs.cache_explain import explain
from anyclaude.cli.verbs.cache_work import export_caches, import_caches, verify, warm

if TYPE_CHECKING:
    from anyclaude.cache.v1.cache_pb2 import Cache, CacheSegment, PruneFilter
    from anyclaude.runtime.conversations import Conversations

_TITLE_CHARACTERS: Final = 40

app = typer.Typer(help="List, show, keep, prune and explain the KV caches.", no_args_is_help=True)

_Parsed = TypeVar("_Parsed")
_Name = Annotated[str, typer.Argument(help="As `cache list` or `cache tree` prints it.")]


@app.command("list")
def list_caches(json: Json = False) -> None:
    """List every cache."""
    with connect() as client:
        answer = client.list_caches()
    if json:
        document = to_dict(answer)
        # All pages are in this document.
        del document["next_page_token"]
        emit(document)
        return
    _show_caches(answer.caches)
    memory = answer.memory
    limit = f" of {format_bytes(memory.cache_limit_bytes)}" if memory.cache_limit_bytes else ""
    print(f"{_count(answer.caches)}, {format_bytes(memory.cache_bytes)}{limit}")
    for stored in answer.models:
        whose = "this model" if stored.resident else f"model {stored.fingerprint}"
        print(
            f"On disk, of {whose}: {counted(stored.records, 'segment')}, "
            f"{format_bytes(stored.bytes)}"
        )


@app.command("show")
def show_cache(
    name: Annotated[str, typer.Argument(help="As `cache list` prints it.")], json: Json = False
) -> None:
    """Show one cache."""
    from anyclaude.cache.v1 import cache_pb2

    with connect() as client:
        cache = client.call(client.caches.GetCache, cache_pb2.GetCacheRequest(name=name)).cache
    if json:
        emit({"cache": to_dict(cache)})
        return
    document = to_dict(cache) | {"bytes": f"{cache.bytes} ({format_bytes(cache.bytes)})"}
    facts([(key, "-" if value in (None, "") else str(value)) for key, value in document.items()])


@app.command("tree")
def tree(json: Json = False) -> None:
    """Show how the caches build on one another: every distinct token once."""
    from anyclaude.cache.v1 import cache_pb2

    with connect() as client:
        answer = client.call(client.caches.GetCacheTree, cache_pb2.GetCacheTreeRequest())
    if json:
        emit(to_dict(answer))
        return
    rows = list(_branches_of(answer.segments))
    if rows:
        table(("TOKENS", "FROM", "MEMORY", "DISK", "SEGMENT"), rows, right=(0, 1, 2, 3))
    in_memory = sum(segment.bytes for segment in answer.segments)
    on_disk = sum(segment.disk_bytes for segment in answer.segments)
    print(
        f"{counted(len(answer.segments), 'segment')}, {format_bytes(in_memory)} in memory, "
        f"{format_bytes(on_disk)} on disk"
    )


@app.command("pin")
def pin(name: _Name, json: Json = False) -> None:
    """Keep a cache, and all that it builds on, from eviction and from `prune`."""
    _pin(name, pinned=True, json=json)


@app.command("unpin")
def unpin(name: _Name, json: Json = False) -> None:
    """Make a cache evictable again."""
    _pin(name, pinned=False, json=json)


def _pin(name: str, *, pinned: bool, json: bool) -> None:
    from anyclaude.cache.v1 import cache_pb2

    request = cache_pb2.PinCacheRequest(name=name, pinned=pinned)
    with connect() as client:
        answer = client.call(client.caches.PinCache, request)
    if json:
        emit({"name": name, "pinned": pinned, **to_dict(answer)})
        return
    done = "Pinned" if pinned else "Unpinned"
    print(
        f"{done} {counted(answer.tokens, 'token')} in {counted(answer.segments, 'segment')}; "
        f"{format_bytes(answer.pinned_bytes)} of {format_bytes(answer.pinned_limit_bytes)} pinned."
    )


@app.command("label")
def label(
    name: _Name,
    text: Annotated[str, typer.Argument(help='Your own words; "" removes them.')],
    json: Json = False,
) -> None:
    """Give a cache your own words, which `cache list` and `cache tree` show."""
    from anyclaude.cache.v1 import cache_pb2

    request = cache_pb2.LabelCacheRequest(name=name, label=text)
    with connect() as client:
        client.call(client.caches.LabelCache, request)
    if json:
        emit({"name": name, "label": text})
        return
    print(f"Labelled {name}: {text}" if text else f"Removed the label of {name}.")


class Tier(StrEnum):
    MEMORY = "memory"
    DISK = "disk"


@app.command("prune")
def prune(
    session: Annotated[str, typer.Option(help="Only caches of this session.")] = "",
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Only caches unused for this long, e.g. 2h.")
    ] = "",
    to: Annotated[
        str,
        typer.Option(metavar="BYTES", help="The least recently used until this remains: 2GB."),
    ] = "",
    percent: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="The least recently used, this part of the bytes."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(metavar="FINGERPRINT", help="All that is stored of a model; see `list`."),
    ] = "",
    tier: Annotated[
        Tier | None, typer.Option(help="Only out of memory, or only off the disk.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every cache, kept prefixes included.")
    ] = False,
    pinned: Annotated[bool, typer.Option("--pinned", help="Pinned caches as well.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove them; without it this is a dry run.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove caches that meet every condition. A dry run unless --yes."""
    from anyclaude.cache.v1 import cache_pb2
    from anyclaude.cli.client import SLOW_CALL_SECONDS

    if not (session or older_than or to or percent or model or every):
        raise typer.BadParameter(
            "say what to prune: --session, --older-than, --to, --percent, --model or --all"
        )
    chosen = _filter(session, older_than, to, percent)
    chosen.all, chosen.model, chosen.pinned = every, model, pinned
    if tier is not None:
        chosen.tier = f"CACHE_TIER_{tier.name}"  # type: ignore[assignment]
    request = cache_pb2.PruneCachesRequest(filter=chosen, force=yes)
    with connect() as client:
        answer = client.call(client.caches.PruneCaches, request, SLOW_CALL_SECONDS)
    if json:
        emit({"dry_run": not yes, **to_dict(answer)})
        return
    _show_caches(answer.caches)
    verb = "Freed" if yes else "Would free"
    print(
        f"{verb} {format_bytes(answer.freed_bytes)} in {_count(answer.caches)}; "
        f"{format_bytes(answer.remaining_bytes)} remain."
    )
    if not yes and answer.freed_bytes:
        note("Nothing was removed. Run it again with --yes to remove them.")


def _filter(session: str, older_than: str, to: str, percent: int | None) -> "PruneFilter":
    from anyclaude.cache.v1 import cache_pb2

    chosen = cache_pb2.PruneFilter(session_id=session, percent=percent)
    if older_than:
        age = _parse(parse_seconds, older_than)
        chosen.older_than.FromMilliseconds(round(age * 1000))
    if to:
        chosen.to_bytes = _parse(parse_bytes, to)
    return chosen


def _parse(parser: Callable[[str], _Parsed], text: str) -> _Parsed:
    try:
        return parser(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


app.command("explain")(explain)
app.command("warm")(warm)
app.command("verify")(verify)
app.command("export")(export_caches)
app.command("import")(import_caches)


def _show_caches(caches: "Iterable[Cache]") -> None:
    from anyclaude.runtime.conversations import Conversations

    conversations = Conversations(os.environ)
    rows = [_cache_row(cache, conversations) for cache in caches]
    if rows:
        titles = ("KIND", "TOKENS", "MEMORY", "DISK", "HITS", "USED", "NAME")
        table(titles, rows, right=(1, 2, 3, 4, 5))


def _count(caches: Sized) -> str:
    return counted(len(caches), "cache")


def _branches_of(segments: "Iterable[CacheSegment]") -> Iterator[Row]:
    """One row per segment, below the segment it builds on and indented where branches part."""
    below: dict[str, list[CacheSegment]] = {}
    for segment in segments:
        below.setdefault(segment.parent, []).append(segment)
    yield from _branches("", below, 0)


def _branches(parent: str, below: "Mapping[str, list[CacheSegment]]", depth: int) -> Iterator[Row]:
    pending = [(segment, depth) for segment in reversed(below.get(parent, ()))]
    # Not recursive, since a conversation is as deep as it has messages.
    while pending:
        segment, at = pending.pop()
        yield _segment_row(segment, at)
        children = below.get(segment.name, ())
        # An only child stays in the column of its parent.
        deeper = at + (len(children) > 1)
        pending.extend((child, deeper) for child in reversed(children))


def _segment_row(segment: "CacheSegment", depth: int) -> Row:
    marks = [
        segment.prefix,
        *segment.lineages,
        "pinned" if segment.pinned else "",
        _quoted(segment.label),
    ]
    return (
        str(segment.tokens),
        str(segment.start),
        format_bytes(segment.bytes) if segment.bytes else "-",
        format_bytes(segment.disk_bytes) if segment.on_disk else "-",
        "  " * depth + " ".join([segment.name, *filter(None, marks)]),
    )


def _cache_row(cache: "Cache", conversations: "Conversations") -> Row:
    name = f"{cache.name} (pinned)" if cache.pinned else cache.name
    used = "now" if cache.in_use else f"{format_seconds(seconds_since(cache.last_use_time))} ago"
    return (
        word_of(cache, "kind"),
        str(cache.tokens),
        format_bytes(cache.bytes),
        format_bytes(cache.disk_bytes) if cache.disk_bytes else "-",
        str(cache.hits),
        used,
        " ".join(filter(None, (name, _quoted(cache.label) or _title(cache, conversations)))),
    )


def _title(cache: "Cache", conversations: "Conversations") -> str:
    """What a labelless conversation is about, as `requests` shows it."""
    return conversations.title(cache.session_id)[:_TITLE_CHARACTERS]


def _quoted(label: str) -> str:
    return f'"{label}"' if label else ""
