"""`anyclaudectl cache prune`: removes caches that meet every condition."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.output import Json, emit, note
from anyclaude.cli.tables import count, show_caches
from anyclaude.cli.units import format_bytes, parse_bytes, parse_seconds

if TYPE_CHECKING:
    from anyclaude.worker.v1.worker_pb2 import PruneFilter

_Parsed = TypeVar("_Parsed")


class Tier(StrEnum):
    MEMORY = "memory"
    DISK = "disk"


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
    from anyclaude.cli.convert import to_dict

    if not (session or older_than or to or percent or model or every):
        raise typer.BadParameter(
            "say what to prune: --session, --older-than, --to, --percent, --model or --all"
        )
    chosen = _filter(session, older_than, to, percent)
    chosen.all, chosen.model, chosen.pinned = every, model, pinned
    if tier is not None:
        chosen.tier = f"CACHE_TIER_{tier.name}"  # type: ignore[assignment]
    with connect() as client:
        answer = client.prune(chosen, force=yes)
    if json:
        emit({"dry_run": not yes, **to_dict(answer)})
        return
    show_caches(answer.caches)
    verb = "Freed" if yes else "Would free"
    print(
        f"{verb} {format_bytes(answer.freed_bytes)} in {count(answer.caches)}; "
        f"{format_bytes(answer.remaining_bytes)} remain."
    )
    if not yes and answer.freed_bytes:
        note("Nothing was removed. Run it again with --yes to remove them.")


def _filter(session: str, older_than: str, to: str, percent: int | None) -> "PruneFilter":
    from anyclaude.worker.v1 import worker_pb2

    chosen = worker_pb2.PruneFilter(session_id=session, percent=percent)
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
