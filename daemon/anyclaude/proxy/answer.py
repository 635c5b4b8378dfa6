"""From a running generation to the client's answer, streaming or whole.

Nothing is sent before the worker has accepted or refused, or the wait for that is over: until then
an error is an HTTP status. Afterwards it is an `error` event, and nothing follows it.
"""

import asyncio

import structlog

from anyclaude.messages.accumulator import MessageAccumulator
from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import Event, EventMachine, GrammarError
from anyclaude.proxy.exchange import Exchange
from anyclaude.proxy.generation import Generation
from anyclaude.proxy.stream import EventStream
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.answer")

CACHE_READ_HEADER = "x-anyclaude-cache-read"


class Answer:
    """Reads one generation through the grammar and keeps the record of its exchange."""

    def __init__(self, exchange: Exchange, generation: Generation, machine: EventMachine) -> None:
        self._exchange = exchange
        self._generation = generation
        self._machine = machine
        # What comes after the events before it.
        self._broken: ApiError | None = None

    async def whole(self) -> None:
        """The non-streaming answer: one Message, once it is complete.

        Raises:
            ApiError: the request failed.
        """
        message = MessageAccumulator()
        while not self._machine.ended:
            for event in await self._next(None) or ():
                message.add(event)
        await self._exchange.send_json(200, message.message())

    async def stream(self, stream: EventStream, accept_deadline: float) -> None:
        """The streaming answer.

        Raises:
            ApiError: the request failed before `accept_deadline` (the loop's clock).
        """
        events = await self._accepted(accept_deadline)
        await stream.open()
        try:
            await self._follow(stream, events)
        except ApiError as error:
            await self._fail(stream, error)
        except Exception:
            log.exception("answer failed", request_id=self._exchange.request_id)
            await self._fail(stream, ApiError(500, "anyclaude failed on this answer."))
        await stream.close()

    async def _accepted(self, deadline: float) -> list[Event] | None:
        """The first events, or None when the worker takes longer than the wait."""
        loop = asyncio.get_running_loop()
        while not self._machine.started:
            remaining = deadline - loop.time()
            events = await self._next(remaining) if remaining > 0 else None
            if events is None:
                return None
        return events

    async def _follow(self, stream: EventStream, events: list[Event] | None) -> None:
        while True:
            if events is None:
                await stream.ping()
            else:
                await stream.send(events)
            if self._machine.ended:
                return
            events = await self._next(stream.seconds_to_ping())

    async def _fail(self, stream: EventStream, error: ApiError) -> None:
        self._exchange.note_error(error)
        await stream.send(self._machine.fail(error, self._exchange.request_id))

    async def _next(self, timeout: float | None) -> list[Event] | None:
        """What the worker's next events become; None when `timeout` seconds pass first.

        All that are here share one write.
        """
        if self._broken is not None:
            raise self._broken
        events = await self._generation.next(timeout)
        if not events:
            return None
        messages: list[Event] = []
        for event in events:
            try:
                messages += self._machine.feed(event)
            except GrammarError as error:
                log.error("worker broke the grammar", why=str(error))
                self._broken = ApiError(500, f"The model worker sent a broken answer: {error}.")
                break
            self._note(event)
            if self._machine.ended:
                break
        return messages

    def _note(self, event: worker.GenerateResponse) -> None:
        match event.WhichOneof("event"):
            case "block_delta" | "block_start":
                self._exchange.note_first_content()
            case "started":
                self._note_start(event.started)
            case "finished":
                self._note_end(event.finished)

    def _note_start(self, started: worker.Started) -> None:
        self._exchange.record.usage.CopyFrom(started.usage)
        self._exchange.extra_headers[CACHE_READ_HEADER] = str(started.usage.cache_read_tokens)

    def _note_end(self, finished: worker.Finished) -> None:
        record = self._exchange.record
        record.stop_reason = finished.stop_reason
        record.usage.CopyFrom(finished.usage)
        record.timings.CopyFrom(finished.timings)
        record.reuse_cause = finished.reuse_cause
