"""Request records: one canonical log line each, and a bounded buffer for the daemon to follow."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy")


class RecordFeed:
    """Holds records until a follower has taken them; over the limit the oldest are dropped."""

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._waiting: deque[frontend.RequestRecord] = deque()
        self._dropped = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._follower = 0

    def add(self, record: frontend.RequestRecord) -> None:
        if len(self._waiting) >= self._max_records:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(record)
        self._changed.set()

    def close(self) -> None:
        """Lets followers end once they have everything."""
        self._closed = True
        self._changed.set()

    async def follow(self) -> AsyncIterator[frontend.StreamRecordsResponse]:
        """Records as they come, with those waiting first; a newer follower ends this one."""
        self._follower += 1
        me = self._follower
        self._changed.set()
        while me == self._follower:
            if self._waiting:
                dropped, self._dropped = self._dropped, 0
                yield frontend.StreamRecordsResponse(
                    record=self._waiting.popleft(), dropped_records=dropped
                )
            elif self._closed:
                return
            else:
                self._changed.clear()
                await self._changed.wait()


def log_request(record: frontend.RequestRecord) -> None:
    """Writes the line of one finished request."""
    log.info("request", **_fields(record))


def _fields(record: frontend.RequestRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "route": record.route,
        "mode": record.mode,
        "model": record.requested_model,
        "status": record.status,
        "outcome": _name(frontend.Outcome, record.outcome, "OUTCOME_"),
        "stream": record.stream,
        "session": record.identity.session_id,
        "agent": record.identity.agent_id,
        "class": _name(worker.RequestClass, record.identity.request_class, "REQUEST_CLASS_"),
        "duration_seconds": record.duration.ToNanoseconds() / 1e9,
    }
    if record.HasField("time_to_first_token"):
        fields["ttft_seconds"] = record.time_to_first_token.ToNanoseconds() / 1e9
    if record.HasField("usage"):
        fields |= _usage_fields(record)
    if record.route_reason:
        fields["route_reason"] = record.route_reason
    if record.error_type:
        fields["error_type"] = record.error_type
    if record.error_message:
        fields["error"] = record.error_message
    return fields


def _usage_fields(record: frontend.RequestRecord) -> dict[str, Any]:
    return {
        "input_tokens": record.usage.input_tokens,
        "cache_read_tokens": record.usage.cache_read_tokens,
        "cache_creation_tokens": record.usage.cache_creation_tokens,
        "output_tokens": record.usage.output_tokens,
        "stop_reason": _name(worker.StopReason, record.stop_reason, "STOP_REASON_"),
        "reuse_cause": _name(worker.ReuseCause, record.reuse_cause, "REUSE_CAUSE_"),
        "prefill_seconds": record.timings.prefill.ToNanoseconds() / 1e9,
        "decode_seconds": record.timings.decode.ToNanoseconds() / 1e9,
    }


def _name(enum: Any, value: int, prefix: str) -> str:
    name: str = enum.Name(value)
    return name.removeprefix(prefix).lower()
