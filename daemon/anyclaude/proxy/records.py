"""Request records: collected while a request runs, logged as one line each, and kept in a bounded
buffer until the daemon has read them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.enum_words import enum_word
from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy")


class RecordBuilder:
    """Collects the record of one request while it runs."""

    def __init__(self, request_id: str, path: str, launch_id: str = "") -> None:
        self._record = frontend.RequestRecord(
            request_id=request_id, route=path, launch_id=launch_id
        )
        self._record.start_time.FromNanoseconds(time.time_ns())
        self._started_ns = time.monotonic_ns()
        self._progress = worker.Progress()
        self.mode = ""
        self.requested_model = ""
        # The id of the model that answers.
        self.model = ""
        self.route_reason = ""
        # Another server's messages may quote the prompt, which no record may hold.
        self.omits_error_messages = False

    @property
    def request_id(self) -> str:
        return self._record.request_id

    @property
    def identity(self) -> worker.Identity:
        return self._record.identity

    def set_request(self, request: MessagesRequest, identity: worker.Identity) -> None:
        self.requested_model = request.model
        self._record.stream = request.stream
        self._record.images = request.image_count
        self._record.identity.CopyFrom(identity)

    def set_started(self, started: worker.Started) -> None:
        self._record.usage.CopyFrom(started.usage)

    def set_progress(self, progress: worker.Progress) -> None:
        self._progress = progress

    def set_first_content(self) -> None:
        """Notes when the first content left, at the first call."""
        if not self._record.HasField("time_to_first_token"):
            self._record.time_to_first_token.FromNanoseconds(self._elapsed_ns())

    def set_finished(self, finished: worker.Finished) -> None:
        self._record.stop_reason = finished.stop_reason
        self._record.usage.CopyFrom(finished.usage)
        self._record.timings.CopyFrom(finished.timings)
        self._record.reuse_cause = finished.reuse_cause
        if finished.HasField("decoded"):
            self._record.decoded.CopyFrom(finished.decoded)

    def set_error(self, error: ApiError) -> None:
        self.set_error_type(error.type)
        self._record.error_message = "" if self.omits_error_messages else error.message

    def set_error_type(self, error_type: str) -> None:
        self._record.outcome = frontend.OUTCOME_FAILED
        self._record.error_type = error_type

    def set_deaths(self, worker_deaths: int, replayed_tokens: int) -> None:
        self._record.worker_deaths = worker_deaths
        self._record.replayed_tokens = replayed_tokens

    def set_client_gone(self) -> None:
        # A refused request counts as failed even if its client did not wait for the response.
        if not self._record.outcome:
            self._record.outcome = frontend.OUTCOME_CANCELLED

    def running(self) -> frontend.RunningRequest:
        """What is known of the request while it runs."""
        answer = frontend.RunningRequest(
            record=self._record,
            prefilled_tokens=self._progress.prefilled_tokens,
            prompt_tokens=self._progress.prompt_tokens,
        )
        answer.record.mode = self.mode
        answer.record.model = self.model
        answer.record.requested_model = self.requested_model
        answer.record.duration.FromNanoseconds(self._elapsed_ns())
        return answer

    def build(self, status: int) -> frontend.RequestRecord:
        """The record of the finished request; `status` is 0 when no response was sent."""
        record = self._record
        record.status = status
        record.mode = self.mode
        record.model = self.model
        record.requested_model = self.requested_model
        record.route_reason = self.route_reason
        record.outcome = record.outcome or frontend.OUTCOME_COMPLETED
        record.duration.FromNanoseconds(self._elapsed_ns())
        self._correct_usage()
        return record

    def _correct_usage(self) -> None:
        """Counts only what was computed of a prompt whose prefill was cut off.

        `Started` announces the whole prompt. Decoding computes the last token.
        """
        progress, usage = self._progress, self._record.usage
        if progress.prefilled_tokens + 1 >= progress.prompt_tokens:
            return
        computed = max(0, progress.prefilled_tokens - usage.cache_read_tokens)
        usage.cache_creation_tokens = min(usage.cache_creation_tokens, computed)
        usage.input_tokens = computed - usage.cache_creation_tokens

    def _elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns


class RecordFeed:
    """Knows the requests that run, and buffers the records of those that ended.

    Records wait until the daemon has read them; over the limit the oldest are dropped.
    """

    def __init__(
        self, max_records: int, on_running: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_running` is told how many requests run, at every change."""
        self._running: dict[str, RecordBuilder] = {}
        self._on_running = on_running
        self._max_records = max_records
        self._waiting: deque[frontend.RequestRecord] = deque()
        self._dropped = 0
        self._changed = asyncio.Event()
        self._closed = False
        self._follower = 0

    def begin(self, record: RecordBuilder) -> None:
        self._running[record.request_id] = record
        self._on_running(len(self._running))

    def running(self) -> list[frontend.RunningRequest]:
        """Oldest first."""
        return [record.running() for record in self._running.values()]

    def add(self, record: frontend.RequestRecord) -> None:
        """Buffers the record of a request that has ended."""
        self._running.pop(record.request_id, None)
        self._on_running(len(self._running))
        if len(self._waiting) >= self._max_records:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(record)
        self._changed.set()

    def close(self) -> None:
        """Ends `follow` once it has returned every record."""
        self._closed = True
        self._changed.set()

    async def follow(self) -> AsyncIterator[frontend.StreamRecordsResponse]:
        """Buffered records, then each new one; a newer follower ends this one."""
        self._follower += 1
        own = self._follower
        self._changed.set()
        while own == self._follower:
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
    """Logs the line of one finished request."""
    log.info("request", **_fields(record))


def _fields(record: frontend.RequestRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "route": record.route,
        "mode": record.mode,
        "model": record.requested_model,
        "status": record.status,
        "outcome": enum_word(frontend.Outcome.DESCRIPTOR, record.outcome),
        "stream": record.stream,
        "session": record.identity.session_id,
        "agent": record.identity.agent_id,
        "class": enum_word(worker.RequestClass.DESCRIPTOR, record.identity.request_class),
        "duration_seconds": record.duration.ToNanoseconds() / 1e9,
    }
    if record.HasField("time_to_first_token"):
        fields["ttft_seconds"] = record.time_to_first_token.ToNanoseconds() / 1e9
    if record.HasField("usage"):
        fields |= _usage_fields(record)
    if record.worker_deaths:
        fields["worker_deaths"] = record.worker_deaths
        fields["replayed_tokens"] = record.replayed_tokens
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
        "stop_reason": enum_word(worker.StopReason.DESCRIPTOR, record.stop_reason),
        "reuse_cause": enum_word(worker.ReuseCause.DESCRIPTOR, record.reuse_cause),
        "prefill_seconds": record.timings.prefill.ToNanoseconds() / 1e9,
        "decode_seconds": record.timings.decode.ToNanoseconds() / 1e9,
        "decode_passes": record.decoded.passes,
        "drafted_tokens": record.decoded.drafted_tokens,
        "accepted_tokens": record.decoded.accepted_tokens,
    }
