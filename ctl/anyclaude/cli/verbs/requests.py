"""`anyclaudectl requests`: the newest requests and their cost."""

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, table
from anyclaude.cli.running import COST_TITLES, cost, short_id, show_running
from anyclaude.cli.units import counted, format_seconds

if TYPE_CHECKING:
    from anyclaude.cli.conversations import Conversations
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord

# What is left of 80 columns.
_TITLE_CHARACTERS: Final = 24


def requests(
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=10_000, help="At most this many.")
    ] = 20,
    json: Json = False,
) -> None:
    """Show running requests, and the newest that ended with their cost.

    A request of Claude Code shows its project and how the conversation began. `--json` also has
    status, cause, passes of the model and times. `cache explain REQUEST` says why a request reused
    no more.
    """
    from anyclaude.cli.conversations import Conversations

    with connect() as client:
        answer = client.requests(count)
    if json:
        document = to_dict(answer)
        emit({"requests": document["records"], "running": document["running"]})
        return
    if answer.running:
        show_running(answer.running)
        print()
    conversations = Conversations(os.environ)
    table(
        ("AGE", *COST_TITLES, "REQUEST", "WHAT"),
        [_row(record, conversations) for record in answer.records],
        right=(0, 1, 2, 3, 4),
    )


def _row(record: "RequestRecord", conversations: "Conversations") -> Row:
    outcome = word_of(record, "outcome")
    about = conversations.title(record.identity.session_id)[:_TITLE_CHARACTERS]
    if word_of(record.identity, "request_class") != "main":
        about = " ".join(filter(None, [word_of(record.identity, "request_class"), about]))
    # How it ended is the news unless it ended well.
    is_plain = outcome == "completed" and not record.worker_deaths
    what = [about[:_TITLE_CHARACTERS]] if about and is_plain else [_outcome(record), about]
    return (
        format_seconds(seconds_since(record.start_time)),
        *cost(record),
        short_id(record),
        Cell("; ".join(filter(None, what)), Tone.BAD if outcome == "failed" else Tone.PLAIN),
    )


def _outcome(record: "RequestRecord") -> str:
    """The error, or how it ended and what it survived."""
    if record.error_message:
        return record.error_message
    if not record.worker_deaths:
        moved = ", continued by the next worker" if record.replayed_tokens else ""
        return word_of(record, "outcome") + moved
    deaths = "a worker's death" if record.worker_deaths == 1 else f"{record.worker_deaths} deaths"
    replayed = (
        f"{counted(record.replayed_tokens, 'token')} replayed" if record.replayed_tokens else "anew"
    )
    return f"{word_of(record, 'outcome')}, survived {deaths} ({replayed})"
