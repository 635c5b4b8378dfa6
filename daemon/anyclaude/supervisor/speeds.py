"""How fast each mode answers and what recent requests needed, computed from request records.

Speeds are medians, because one long prompt would dominate a mean. The first tokens of warm and of
cold requests have one each, because a median of both describes neither. Utility calls are left out:
they are short and do not represent a conversation. Speeds are saved when the daemon stops; after a
restart the saved speed of a mode is used until a request with the same model has been measured. The
file contains no text of any request.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from anyclaude.control.v1 import control_pb2
from anyclaude.control.v1.control_pb2 import Speed
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.messages.reuse import is_cold, prompt_tokens
from anyclaude.runtime.paths import write_atomically
from anyclaude.supervisor.records import Journal, Record
from anyclaude.worker.v1 import worker_pb2

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Per mode: enough requests for a steady median, few enough to follow a change.
_SPEED_REQUESTS: Final = 50
# Requests that count as recent.
RECENT: Final = 100
# In a shorter response the last event weighs too much.
_MIN_RATE_TOKENS: Final = 8
_ROUTE: Final = "/v1/messages"


def speed(newest_first: Sequence[Record], mode: str, model: str) -> Speed | None:
    """The median speed of `mode` with that model; None when no record can be measured."""
    measured = [
        record
        for record in newest_first
        if (record.mode, record.model) == (mode, model) and _is_measurable(record)
    ]
    measured = measured[:_SPEED_REQUESTS]
    if not measured:
        return None
    rates = [rate for record in measured if (rate := tokens_per_second(record)) is not None]
    answer = Speed(requests=len(measured), tokens_per_second=median(rates) if rates else None)
    warm = [record for record in measured if not is_cold(record.usage)]
    cold = [record for record in measured if is_cold(record.usage)]
    _set_first_token(answer.warm_time_to_first_token, warm)
    _set_first_token(answer.cold_time_to_first_token, cold)
    return answer


def _set_first_token(duration: Duration, measured: Sequence[Record]) -> None:
    if measured:
        first = median(record.time_to_first_token.ToNanoseconds() for record in measured)
        duration.FromNanoseconds(round(first))


def _is_measurable(record: Record) -> bool:
    return (
        _is_conversation(record)
        and record.outcome == frontend_pb2.OUTCOME_COMPLETED
        and record.HasField("time_to_first_token")
    )


def _is_conversation(record: Record) -> bool:
    utility = worker_pb2.REQUEST_CLASS_UTILITY
    return record.route == _ROUTE and record.identity.request_class != utility


def tokens_per_second(record: Record) -> float | None:
    """The speed of an answer; None if it was too short to measure."""
    tokens = record.usage.output_tokens
    seconds = _decode_seconds(record)
    return tokens / seconds if tokens >= _MIN_RATE_TOKENS and seconds > 0 else None


def _decode_seconds(record: Record) -> float:
    """The worker's measurement, else the time after the first token by the front end's clock."""
    if record.timings.HasField("decode"):
        return record.timings.decode.ToNanoseconds() / 1e9
    after = record.duration.ToNanoseconds() - record.time_to_first_token.ToNanoseconds()
    return after / 1e9


def recent_needs(newest_first: Sequence[Record]) -> control_pb2.Needs:
    """What the given conversations needed from the model that answered them."""
    records = [record for record in newest_first if _is_conversation(record)]
    return control_pb2.Needs(
        longest_prompt_tokens=max((prompt_tokens(record.usage) for record in records), default=0),
        tools=any(record.stop_reason == worker_pb2.STOP_REASON_TOOL_USE for record in records),
        images=any(record.images for record in records),
    )


class Speeds:
    """The speed of each mode: from the journal, else from the file of the last run."""

    def __init__(self, journal: Journal, max_records: int, file: Path) -> None:
        self._journal = journal
        self._max_records = max_records
        self._file = file
        # By mode: the model and its speed.
        self._saved = _read(file)

    def of(self, mode: str, model: str) -> Speed | None:
        """None when `mode` was never measured with this model."""
        now = speed(self._journal.newest(self._max_records), mode, model)
        if now is not None:
            return now
        saved = self._saved.get(mode)
        return saved[1] if saved is not None and saved[0] == model else None

    def save(self, models: Mapping[str, str]) -> None:
        """Writes the speeds to the file; `models` is the model of each mode."""
        known = {mode: (model, self.of(mode, model)) for mode, model in models.items()}
        document = {
            mode: {"model": model, "speed": MessageToDict(found)}
            for mode, (model, found) in known.items()
            if found is not None
        }
        try:
            write_atomically(self._file, json.dumps(document).encode(), 0o600)
        except OSError as error:
            # Nothing depends on the file: the next requests are measured anew.
            _log.warning("speeds not saved", file=str(self._file), why=str(error))


def _read(file: Path) -> dict[str, tuple[str, Speed]]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {
            mode: (saved["model"], ParseDict(saved["speed"], Speed()))
            for mode, saved in document.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParseError) as error:
        _log.warning("saved speeds ignored", file=str(file), why=str(error))
        return {}
