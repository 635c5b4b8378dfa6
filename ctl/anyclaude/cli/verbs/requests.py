"""`anyclaudectl requests`: the newest requests and their cost."""

from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, table
from anyclaude.cli.running import COST_TITLES, cost, short_id, show_running
from anyclaude.cli.units import counted, format_seconds

if TYPE_CHECKING:
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord


def requests(
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=10_000, help="At most this many.")
    ] = 20,
    json: Json = False,
) -> None:
    """Show running requests, and the newest that ended with their cost.

    `--json` also has status, cause, passes of the model and times. `cache explain REQUEST` says why
    a request reused no more.
    """
    with connect() as client:
        answer = client.requests(count)
    if json:
        document = to_dict(answer)
        emit({"requests": document["records"], "running": document["running"]})
        return
    if answer.running:
        show_running(answer.running)
        print()
    table(
        ("AGE", "CLASS", *COST_TITLES, "REQUEST", "OUTCOME"),
        [_row(record) for record in answer.records],
        right=(0, 2, 3, 4, 5),
    )


def _row(record: "RequestRecord") -> Row:
    failed = word_of(record, "outcome") == "failed"
    return (
        format_seconds(seconds_since(record.start_time)),
        word_of(record.identity, "request_class"),
        *cost(record),
        short_id(record),
        Cell(_outcome(record), Tone.BAD if failed else Tone.PLAIN),
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
