"""Reading a worker's answer ahead of the client: order, bounds, and how it ends."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.generation import _AHEAD_BYTES, Generation
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

WORD_BYTES = 10_000


class Call:
    """A call whose events are here already; then it is silent."""

    def __init__(self, events: Iterable[Any]) -> None:
        self._events = iter(events)
        self.reads = 0

    async def read(self) -> Any:
        event = next(self._events, None)
        if event is None:
            await asyncio.Event().wait()
        self.reads += 1
        return event

    def cancel(self) -> None:
        """Nothing runs elsewhere."""


def reading(call: Call, stopping: asyncio.Event | None = None) -> Generation:
    return Generation(call, frontend.Route(mode="it"), stopping or asyncio.Event())


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_what_came_is_given_before_how_it_ended():
    """A failure that is known already does not swallow the words before it."""

    async def run() -> None:
        words = [say.delta(0, text=text) for text in "abc"]
        generation = reading(Call([*words, say.failed(500, "boom")]))
        await settle()
        assert [await generation.next(None) for _ in words] == words
        assert generation.ready() is None
        with pytest.raises(ApiError, match="boom"):
            await generation.next(None)
        await generation.close()

    asyncio.run(run())


def test_an_end_without_a_word_of_it_fails():
    """A worker that just ends its stream has not answered."""

    async def run() -> None:
        generation = reading(Call([grpc.aio.EOF]))
        with pytest.raises(ApiError, match="before it was complete"):
            await generation.next(None)
        await generation.close()

    asyncio.run(run())


def test_a_client_that_takes_nothing_stops_the_reading():
    """What is held for it is bounded by bytes, and reading goes on once it takes them."""

    async def run() -> None:
        word = say.delta(0, text="x" * WORD_BYTES)
        call = Call([word] * 1000)
        generation = reading(call)
        await settle()
        held = call.reads
        assert held <= _AHEAD_BYTES // WORD_BYTES + 1
        for _ in range(held):
            assert generation.ready() is not None
        assert generation.ready() is None
        await settle()
        assert held < call.reads <= 2 * held
        await generation.close()

    asyncio.run(run())


def test_silence_gives_nothing_in_time():
    """So that a ping can be sent, and nothing of what comes later is lost."""

    async def run() -> None:
        generation = reading(Call([]))
        assert await generation.next(0) is None
        assert await generation.next(0.01) is None
        await generation.close()

    asyncio.run(run())


def test_stopping_ends_a_silent_answer():
    """A process that ends says so to who waits, and first gives what it has."""

    async def run() -> None:
        stopping = asyncio.Event()
        word: worker.GenerateResponse = say.delta(0, text="a")
        generation = reading(Call([word]), stopping)
        await settle()
        stopping.set()
        assert await generation.next(None) == word
        with pytest.raises(ApiError, match="restarting"):
            await generation.next(None)
        await generation.close()

    asyncio.run(run())
