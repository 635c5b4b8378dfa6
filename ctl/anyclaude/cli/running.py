"""How requests are shown while they run, and how fast those that ended were."""

import os
from typing import TYPE_CHECKING, Final

from anyclaude.cli.convert import word_of
from anyclaude.cli.output import Row, table
from anyclaude.cli.units import counted, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord, RunningRequest
    from anyclaude.runtime.conversations import Conversations

_ID_CHARACTERS: Final = 12
_MODE_CHARACTERS: Final = 10
# What is left of 80 columns.
_ABOUT_CHARACTERS: Final = 24
COST_TITLES: Final = ("REUSED", "COMPUTED", "OUT", "FIRST")


def show_running(requests: "Iterable[RunningRequest]") -> None:
    """Prints the table of running requests; it fits 80 columns."""
    from anyclaude.runtime.conversations import Conversations

    conversations = Conversations(os.environ)
    table(
        ("RUNNING", "MODE", "FOR", "DOES"),
        [_row(request, conversations) for request in requests],
        right=(2,),
    )


def about(record: "RequestRecord", conversations: "Conversations", unknown: str = "") -> str:
    """The conversation's title, after the class of a request that is not the main agent's."""
    title = conversations.title(record.identity.session_id) or unknown
    kind = word_of(record.identity, "request_class")
    return " ".join(filter(None, ["" if kind == "main" else kind, title]))[:_ABOUT_CHARACTERS]


def ending(record: "RequestRecord", title: str) -> str:
    """The title of a request that ended well; else how it ended comes first."""
    is_plain = word_of(record, "outcome") == "completed" and not record.worker_deaths
    return title if title and is_plain else "; ".join(filter(None, [_outcome(record), title]))


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


def _row(request: "RunningRequest", conversations: "Conversations") -> Row:
    record = request.record
    return (
        about(record, conversations, unknown=short_id(record)),
        record.mode[:_MODE_CHARACTERS] or "-",
        format_seconds(record.duration.ToNanoseconds() / 1e9),
        phase(request),
    )
