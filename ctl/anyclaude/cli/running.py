"""How requests are shown while they run, and how fast those that ended were."""

from typing import TYPE_CHECKING, Final

from anyclaude.cli.convert import word_of
from anyclaude.cli.output import Row, table
from anyclaude.cli.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord, RunningRequest

_ID_CHARACTERS: Final = 12
COST_TITLES: Final = ("REUSED", "COMPUTED", "OUT", "FIRST")


def show_running(requests: "Iterable[RunningRequest]") -> None:
    """Prints the table of running requests; it fits 80 columns."""
    table(
        ("RUNNING", "CLASS", "MODE", "FOR", "DOES"),
        [_row(request) for request in requests],
        right=(3,),
    )


def short_id(record: "RequestRecord") -> str:
    """The beginning of a request's id, which `cache explain` takes as well."""
    return record.request_id[:_ID_CHARACTERS]


def cost(record: "RequestRecord") -> tuple[str, str, str, str]:
    """Tokens reused, computed and generated, and the time to the first token."""
    usage = record.usage
    first = record.time_to_first_token.ToNanoseconds() / 1e9
    return (
        f"{usage.cache_read_tokens:,}",
        f"{usage.input_tokens + usage.cache_creation_tokens:,}",
        f"{usage.output_tokens:,}",
        format_seconds(first) if record.HasField("time_to_first_token") else "-",
    )


def phase(request: "RunningRequest") -> str:
    """What a running request does now."""
    record = request.record
    if record.HasField("time_to_first_token"):
        return "answers"
    done, whole = request.prefilled_tokens, request.prompt_tokens
    if not whole:
        return "waits"
    return f"prompt {done:,} of {whole:,} ({100 * done // whole} %)"


def tokens_per_second(record: "RequestRecord") -> float | None:
    """The speed of an answer's tokens; None if it was too short to measure."""
    seconds = record.timings.decode.ToNanoseconds() / 1e9
    tokens = record.usage.output_tokens
    return tokens / seconds if seconds > 0 and tokens > 1 else None


def _row(request: "RunningRequest") -> Row:
    record = request.record
    return (
        short_id(record),
        word_of(record.identity, "request_class"),
        record.mode or "-",
        format_seconds(record.duration.ToNanoseconds() / 1e9),
        phase(request),
    )
