"""What the remembered requests say: how fast each mode answers, and what was asked for lately.

Medians, since a first long prompt would stand for all in a mean. Utility calls are left out: they
are short, and say nothing of a conversation.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final

from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.supervisor.records import Record
from anyclaude.worker.v1 import worker_pb2

# Of one mode: enough for a steady median, few enough to follow a change.
_SPEED_REQUESTS: Final = 50
# Requests that count as recent.
RECENT: Final = 100
# The rate of a shorter answer says more of its last event than of the model.
_TELLING_TOKENS: Final = 8
_ROUTE: Final = "/v1/messages"


def speed(newest_first: Sequence[Record], mode: str) -> control_pb2.Speed | None:
    """How fast `mode` answered; None when no remembered request tells."""
    measured = [record for record in newest_first if record.mode == mode and _tells(record)]
    measured = measured[:_SPEED_REQUESTS]
    if not measured:
        return None
    rates = [rate for record in measured if (rate := _tokens_per_second(record)) is not None]
    answer = control_pb2.Speed(
        requests=len(measured), tokens_per_second=median(rates) if rates else None
    )
    first = median(record.time_to_first_token.ToNanoseconds() for record in measured)
    answer.time_to_first_token.FromNanoseconds(round(first))
    return answer


def _tells(record: Record) -> bool:
    return (
        _is_conversation(record)
        and record.outcome == frontend_pb2.OUTCOME_COMPLETED
        and record.HasField("time_to_first_token")
    )


def _is_conversation(record: Record) -> bool:
    utility = worker_pb2.REQUEST_CLASS_UTILITY
    return record.route == _ROUTE and record.identity.request_class != utility


def _tokens_per_second(record: Record) -> float | None:
    tokens = record.usage.output_tokens
    seconds = _decode_seconds(record)
    return tokens / seconds if tokens >= _TELLING_TOKENS and seconds > 0 else None


def _decode_seconds(record: Record) -> float:
    """As the worker measured it; else what came after the first token, by the front end's clock."""
    if record.timings.HasField("decode"):
        return record.timings.decode.ToNanoseconds() / 1e9
    after = record.duration.ToNanoseconds() - record.time_to_first_token.ToNanoseconds()
    return after / 1e9


def recent_needs(newest_first: Sequence[Record]) -> control_pb2.Needs:
    """What the given conversations asked of whatever answered them."""
    records = [record for record in newest_first if _is_conversation(record)]
    return control_pb2.Needs(
        longest_prompt_tokens=max((_prompt_tokens(record) for record in records), default=0),
        tools=any(record.stop_reason == worker_pb2.STOP_REASON_TOOL_USE for record in records),
        images=any(record.images for record in records),
    )


def _prompt_tokens(record: Record) -> int:
    usage = record.usage
    return usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
