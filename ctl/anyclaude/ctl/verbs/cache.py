"""`anyclaudectl cache list|show|prune|explain`: the KV caches."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from anyclaude.ctl.connect import connect
from anyclaude.ctl.options import Json
from anyclaude.ctl.output import Row, emit, facts, note, table
from anyclaude.ctl.units import format_bytes, format_seconds, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

    from anyclaude.worker.v1.worker_pb2 import Cache, PruneFilter

app = typer.Typer(help="List, show, prune and explain the KV caches.", no_args_is_help=True)

_Parsed = TypeVar("_Parsed")


@app.command("list")
def list_caches(json: Json = False) -> None:
    """List every cache."""
    from anyclaude.ctl.convert import to_dict

    with connect() as client:
        answer = client.caches()
    if json:
        document = to_dict(answer)
        # Pages are the wire's business: all of them are here.
        del document["next_page_token"]
        emit(document)
        return
    _show(answer.caches)
    memory = answer.memory
    limit = f" of {format_bytes(memory.cache_limit_bytes)}" if memory.cache_limit_bytes else ""
    print(f"{_count(answer.caches)}, {format_bytes(memory.cache_bytes)}{limit}")


@app.command("show")
def show_cache(
    name: Annotated[str, typer.Argument(help="As `cache list` prints it.")], json: Json = False
) -> None:
    """Show one cache."""
    from anyclaude.ctl.convert import to_dict

    with connect() as client:
        cache = client.cache(name)
    if json:
        emit({"cache": to_dict(cache)})
        return
    document = to_dict(cache) | {"bytes": f"{cache.bytes} ({format_bytes(cache.bytes)})"}
    facts([(key, "-" if value in (None, "") else str(value)) for key, value in document.items()])


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
    every: Annotated[
        bool, typer.Option("--all", help="Every cache, kept prefixes included.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove them; without it this is a dry run.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove caches that meet every condition. A dry run unless --yes."""
    from anyclaude.ctl.convert import to_dict

    if not (session or older_than or to or every):
        raise typer.BadParameter("say what to prune: --session, --older-than, --to or --all")
    prune_filter = _filter(session, older_than, to, every=every)
    with connect() as client:
        answer = client.prune(prune_filter, force=yes)
    if json:
        emit({"dry_run": not yes, **to_dict(answer)})
        return
    _show(answer.caches)
    verb = "Freed" if yes else "Would free"
    print(
        f"{verb} {format_bytes(answer.freed_bytes)} in {_count(answer.caches)}; "
        f"{format_bytes(answer.remaining_bytes)} remain."
    )
    if not yes and answer.caches:
        note("Nothing was removed. Run it again with --yes to remove them.")


@app.command("explain")
def explain(
    request_id: Annotated[str, typer.Argument(help="As `requests` prints it.")],
    json: Json = False,
) -> None:
    """Say why a request reused what it did, and where it left what was kept."""
    from anyclaude.ctl.convert import to_dict
    from anyclaude.ctl.explanation import lines

    with connect() as client:
        explanation = client.explain(request_id)
    if json:
        emit({"explanation": to_dict(explanation)})
        return
    facts(list(lines(explanation)))


def _filter(session: str, older_than: str, to: str, *, every: bool) -> "PruneFilter":
    from anyclaude.worker.v1 import worker_pb2

    chosen = worker_pb2.PruneFilter(session_id=session, all=every)
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


def _show(caches: "Iterable[Cache]") -> None:
    rows = [_row(cache) for cache in caches]
    if rows:
        table(("KIND", "TOKENS", "SIZE", "HITS", "USED", "NAME"), rows, right=(1, 2, 3, 4))


def _count(caches: "Sized") -> str:
    return "1 cache" if len(caches) == 1 else f"{len(caches)} caches"


def _row(cache: "Cache") -> Row:
    from anyclaude.ctl.convert import seconds_since, word_of

    used = "now" if cache.in_use else f"{format_seconds(seconds_since(cache.last_use_time))} ago"
    return (
        word_of(cache, "kind"),
        str(cache.tokens),
        format_bytes(cache.bytes),
        str(cache.hits),
        used,
        cache.name,
    )
