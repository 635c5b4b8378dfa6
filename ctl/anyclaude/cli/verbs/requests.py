"""`anyclaudectl requests`: the newest requests and their cost."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, table
from anyclaude.cli.running import COST_TITLES, about, cost, ending, short_id, show_running
from anyclaude.cli.units import format_seconds

if TYPE_CHECKING:
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord
    from anyclaude.runtime.conversations import Conversations


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
    from anyclaude.runtime.conversations import Conversations

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
    tone = Tone.BAD if word_of(record, "outcome") == "failed" else Tone.PLAIN
    return (
        format_seconds(seconds_since(record.start_time)),
        *cost(record),
        short_id(record),
        Cell(ending(record, about(record, conversations)), tone),
    )
