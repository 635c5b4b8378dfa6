"""`anyclaudectl requests`: the newest requests and their cost."""

from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, table
from anyclaude.cli.running import show_running
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

    Shows tokens reused and computed, the cause, times and outcome. For more about one request use
    `cache explain REQUEST`.
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
        (
            *("AGE", "CLASS", "STATUS", "REUSED", "COMPUTED", "OUT", "PER PASS"),
            *("FIRST", "WHOLE"),
            *("CAUSE", "REQUEST", "OUTCOME"),
        ),
        [_row(record) for record in answer.records],
        right=(0, 2, 3, 4, 5, 6, 7, 8),
    )


def _per_pass(record: "RequestRecord") -> str:
    """How many tokens a pass of the model gave: more than one where drafts were accepted."""
    passes = record.decoded.passes
    return f"{record.usage.output_tokens / passes:.1f}" if passes else "-"


def _row(record: "RequestRecord") -> Row:
    usage = record.usage
    outcome = word_of(record, "outcome")
    first = record.time_to_first_token.ToTimedelta().total_seconds()
    return (
        format_seconds(seconds_since(record.start_time)),
        word_of(record.identity, "request_class"),
        str(record.status),
        str(usage.cache_read_tokens),
        str(usage.input_tokens + usage.cache_creation_tokens),
        str(usage.output_tokens),
        _per_pass(record),
        format_seconds(first) if record.HasField("time_to_first_token") else "-",
        format_seconds(record.duration.ToTimedelta().total_seconds()),
        word_of(record, "reuse_cause") if record.reuse_cause else "-",
        record.request_id,
        Cell(_outcome(record), Tone.BAD if outcome == "failed" else Tone.PLAIN),
    )


def _outcome(record: "RequestRecord") -> str:
    """The error, or how it ended and what it survived."""
    if record.error_message or not record.worker_deaths:
        return record.error_message or word_of(record, "outcome")
    deaths = "a worker's death" if record.worker_deaths == 1 else f"{record.worker_deaths} deaths"
    replayed = (
        f"{counted(record.replayed_tokens, 'token')} replayed" if record.replayed_tokens else "anew"
    )
    return f"{word_of(record, 'outcome')}, survived {deaths} ({replayed})"
