"""Turns a running generation into the response of `POST /v1/messages`, streamed or whole.

Nothing is sent before the worker has accepted or refused the request, or the wait for that is over:
until then an error is an HTTP status. Afterwards it is an `error` event, and nothing follows it.
If its worker dies, the next one continues the answer (`submission`).
"""

import asyncio
from typing import Final

import structlog

from anyclaude.messages.accumulator import MessageAccumulator
from anyclaude.messages.context_edits import asks_for_edits
from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import Event, EventMachine, GrammarError
from anyclaude.messages.hidden_thinking import is_omitted
from anyclaude.messages.requests import MessagesRequest
from anyclaude.proxy.context import RequestContext
from anyclaude.proxy.response import EventStream
from anyclaude.proxy.submission import Submission
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.message_response")

CACHE_READ_HEADER: Final = "x-anyclaude-cache-read"
# How many workers died while they worked on an answer that is not streamed.
DEATHS_HEADER: Final = "x-anyclaude-worker-deaths"


class MessageResponse:
    """Reads one generation through the grammar, and records what it reports."""

    def __init__(
        self,
        context: RequestContext,
        submission: Submission,
        message_id: str,
        request: MessagesRequest,
    ) -> None:
        self._context = context
        self._submission = submission
        self._message_id = message_id
        self._request = request
        self._machine = self._new_machine()
        self._beginnings = submission.beginnings
        # Whether the stream has its message_start; an answer that begins anew must not repeat it.
        self._is_started = False
        # Raised once the events before it are sent.
        self._grammar_error: ApiError | None = None

    def _new_machine(self) -> EventMachine:
        return EventMachine(
            self._message_id,
            self._request.model,
            hides_thinking=is_omitted(self._request.thinking),
            tells_edits=asks_for_edits(self._request),
        )

    async def send_whole(self) -> None:
        """Sends one Message, once it is complete.

        Raises:
            ApiError: the request failed.
        """
        message = MessageAccumulator()
        while not self._machine.ended:
            for event in await self._next(None) or ():
                message.add(event)
        if self._submission.deaths:
            self._context.response.headers[DEATHS_HEADER] = str(self._submission.deaths)
        whole = self._context.shape.whole(message.message())
        await self._context.response.send_json(200, whole)

    async def send_stream(self, accept_deadline: float) -> None:
        """Sends the events of a Message as they come, and pings from `accept_deadline` on.

        Raises:
            ApiError: the request failed.
        """
        events = await self._accepted(accept_deadline)
        stream = self._context.stream
        await stream.start()
        await self._send_events(stream, events)
        await stream.end()

    async def _accepted(self, deadline: float) -> list[Event] | None:
        """The first events, or None when the worker has not accepted before the deadline."""
        loop = asyncio.get_running_loop()
        while not self._machine.started:
            remaining = deadline - loop.time()
            events = await self._next(remaining) if remaining > 0 else None
            if events is None:
                return None
        return events

    async def _send_events(self, stream: EventStream, events: list[Event] | None) -> None:
        while True:
            if events is None:
                await stream.ping()
            else:
                await self._send(stream, events)
            if self._machine.ended:
                return
            events = await self._next(stream.seconds_to_ping())

    async def _send(self, stream: EventStream, events: list[Event]) -> None:
        if self._is_started:
            events = [event for event in events if event["type"] != "message_start"]
        self._is_started = self._machine.started
        if any(event["type"] == "content_block_start" for event in events):
            self._submission.commit()
        await stream.send(events)

    async def _next(self, timeout: float | None) -> list[Event] | None:
        """The client's events for the worker's next events; None if none come in `timeout` seconds.

        All events received so far are sent in one write.
        """
        if self._grammar_error is not None:
            raise self._grammar_error
        received = await self._submission.next(timeout)
        if self._beginnings != self._submission.beginnings:
            self._beginnings = self._submission.beginnings
            self._machine = self._new_machine()
        if not received:
            return None
        events: list[Event] = []
        for event in received:
            try:
                events += self._machine.feed(event)
            except GrammarError as error:
                log.error("worker broke the grammar", why=str(error))
                message = f"The model worker sent a broken answer: {error}."
                self._grammar_error = ApiError(500, message)
                break
            self._record(event)
            if self._machine.ended:
                break
        return events

    def _record(self, event: worker.GenerateResponse) -> None:
        record = self._context.record
        match event.WhichOneof("event"):
            case "block_delta" | "block_start":
                record.set_first_content()
            case "started":
                record.set_started(event.started)
                cache_read = str(event.started.usage.cache_read_tokens)
                self._context.response.headers[CACHE_READ_HEADER] = cache_read
            case "progress":
                record.set_progress(event.progress)
            case "finished":
                record.set_finished(event.finished)
