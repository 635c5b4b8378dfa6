"""`anyclaudectl top`: what the service does now, drawn again every second."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import SYSTEM_CLOCK, connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Json, emit, facts, plain
from anyclaude.cli.running import about, cost, ending, show_running, tokens_per_second
from anyclaude.cli.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import ListRequestsResponse, Status
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord
    from anyclaude.runtime.conversations import Conversations

_ENDED: Final = 8
# What is left of 80 columns.
_WHAT_CHARACTERS: Final = 25
# The cursor to the top left; then everything behind it is erased.
_CLEAR: Final = "\x1b[H\x1b[J"


def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two pictures.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Pictures to draw; 0: until Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """Show running requests, memory and the newest answers, again every second. Ctrl-C ends it."""
    drawn = 0
    with connect() as client:
        while True:
            status, answer = client.status(), client.requests(_ENDED)
            if json:
                emit({"status": to_dict(status), "requests": to_dict(answer)["records"]})
                return
            _draw(status, answer)
            drawn += 1
            if drawn == count:
                return
            SYSTEM_CLOCK.sleep(interval)


def _draw(status: "Status", answer: "ListRequestsResponse") -> None:
    if sys.stdout.isatty():
        print(_CLEAR, end="")
    _show(status, answer)
    sys.stdout.flush()


def _show(status: "Status", answer: "ListRequestsResponse") -> None:
    memory, disk = status.memory, status.disk
    workers = ", ".join(f"{worker.name} {word_of(worker, 'state')}" for worker in status.workers)
    facts(
        [
            ("Service", f"{word_of(status, 'readiness')}, mode {status.mode}"),
            ("Model", status.model.id or "-"),
            ("Workers", workers),
            (
                "Caches",
                f"{_of(memory.cache_bytes, memory.cache_limit_bytes)} in memory, "
                f"{_of(disk.bytes, disk.budget_bytes)} on disk",
            ),
            ("Memory", f"{format_bytes(memory.available_bytes)} available"),
        ]
    )
    print()
    if status.requests:
        show_running(status.requests)
    else:
        print("No request is running.")
    print()
    titles = ("AGE", "MODE", "REUSED", "COMPUTED", "FIRST", "TOK/S", "WHAT")
    from anyclaude.runtime.conversations import Conversations

    conversations = Conversations(os.environ)
    rows = [titles, *(_row(record, conversations) for record in answer.records)]
    for line in plain(rows, right=(0, 2, 3, 4, 5)):
        print(line)


def _row(record: "RequestRecord", conversations: "Conversations") -> tuple[str, ...]:
    reused, computed, _, first = cost(record)
    speed = tokens_per_second(record)
    return (
        format_seconds(seconds_since(record.start_time)),
        record.mode[:10],
        *(reused, computed, first),
        f"{speed:.0f}" if speed else "-",
        ending(record, about(record, conversations))[:_WHAT_CHARACTERS],
    )


def _of(used: int, limit: int) -> str:
    return f"{format_bytes(used)} of {format_bytes(limit)}" if limit else format_bytes(used)
