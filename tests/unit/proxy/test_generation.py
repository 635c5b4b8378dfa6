"""Reading a worker's answer ahead of the client: order, bounds, and how it ends."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.generation import Generation, Generations
from anyclaude.runtime.streams import HIGH_WATER_BYTES, Emit, Handler, StreamServer, stream_socket
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

ASKED = worker.GenerateRequest(request_id="req_1")
WORD_BYTES = 10_000
PATIENCE_SECONDS = 10


class Stage:
    """A real stream server, and what a front end asks it with."""

    def __init__(self, socket: Path, server: StreamServer) -> None:
        self.server = server
        self.route = frontend.Route(mode="it", worker_socket=str(socket))
        self.stopping = asyncio.Event()
        self.connections = Generations(self.stopping)
        self.connections.keep({str(socket)})

    def generate(self):
        return self.connections.generate(self.route, ASKED)


def staged(answers: Handler, test: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            socket = Path(folder) / "w.sock"
            server = StreamServer(stream_socket(socket), answers)
            await server.start()
            stage = Stage(socket, server)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await test(stage)
            finally:
                await stage.connections.close()
                await server.stop(0)

    asyncio.run(run())


def saying(*events: worker.GenerateResponse, then_silent: bool = False) -> Handler:
    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit(events)
        if then_silent:
            await asyncio.Event().wait()

    return answers


async def settle() -> None:
    await asyncio.sleep(0.1)


def test_what_came_is_given_before_how_it_ended() -> None:
    """A failure that is known already does not swallow the words before it."""
    words = [say.delta(0, text=text) for text in "abc"]

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            await settle()
            assert await generation.next(None) == words
            with pytest.raises(ApiError, match="boom"):
                await generation.next(None)

    staged(saying(*words, say.failed(500, "boom")), test)


def test_an_end_without_a_word_of_it_fails() -> None:
    """A worker that just ends its stream has not answered."""

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            with pytest.raises(ApiError, match="before it was complete"):
                await generation.next(None)

    staged(saying(), test)


def test_a_worker_that_goes_is_to_be_asked_again() -> None:
    """In the middle of its answer: its words, then 529."""
    word = say.delta(0, text="a")

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            assert await generation.next(None) == [word]
            await stage.server.stop(0)
            with pytest.raises(ApiError, match="went away") as error:
                await generation.next(None)
            assert error.value.status == 529

    staged(saying(word, then_silent=True), test)


def test_a_worker_that_is_gone_is_to_be_asked_again() -> None:
    async def test(stage: Stage) -> None:
        await stage.server.stop(0)
        with pytest.raises(ApiError, match="went away") as error:
            async with stage.generate():
                pass
        assert error.value.status == 529

    staged(saying(), test)


def test_a_request_that_is_too_large() -> None:
    """Refused as such, and the connection stays as good as it was."""

    async def test(stage: Stage) -> None:
        generation = Generation(stage.stopping)
        await generation.connect(stage.route.worker_socket)
        with pytest.raises(ApiError) as error:
            generation.start(
                stage.route, worker.GenerateRequest(body_json=b" " * (41 * 1024 * 1024))
            )
        assert error.value.status == 413
        await generation.close()

    staged(saying(), test)


def test_an_answer_that_is_none() -> None:
    """Bytes that are no message end it with an error."""

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            generation.data_received(b"\0\0\0\2\xff\xff")
            with pytest.raises(ApiError, match="cannot be read"):
                await generation.next(None)

    staged(saying(then_silent=True), test)


def test_a_client_that_takes_nothing_stops_the_worker() -> None:
    """What is held for it is bounded by bytes, and reading goes on once it takes them."""
    said = 0

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        nonlocal said
        while True:
            said += 1
            await emit([say.delta(0, text="x" * WORD_BYTES)])

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            await settle()
            await settle()
            stalled = said
            held = len(await generation.next(None))
            # And what one read of the socket brings.
            assert held * WORD_BYTES <= HIGH_WATER_BYTES + 256 * 1024
            await settle()
            assert await generation.next(0)
            assert said > stalled

    staged(answers, test)


def test_silence_gives_nothing_in_time() -> None:
    """So that a ping can be sent, and nothing of what comes later is lost."""

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            assert await generation.next(0) == []
            assert await generation.next(0.01) == []

    staged(saying(then_silent=True), test)


def test_stopping_ends_a_silent_answer() -> None:
    """A process that ends says so to who waits, and first gives what it has."""
    word = say.delta(0, text="a")

    async def test(stage: Stage) -> None:
        async with stage.generate() as generation:
            await settle()
            stage.stopping.set()
            assert await generation.next(None) == [word]
            with pytest.raises(ApiError, match="restarting"):
                await generation.next(None)

    staged(saying(word, then_silent=True), test)


def test_a_connection_waits_for_the_next_call() -> None:
    """It is used by that, once; a worker that closed it in between is asked over another."""

    async def test(stage: Stage) -> None:
        async with stage.generate():
            pass
        await settle()
        (spare,) = stage.connections._spares.values()
        async with stage.generate() as generation:
            assert generation is spare
            assert await generation.next(None)
        await settle()
        (lost,) = stage.connections._spares.values()
        lost.connection_lost(None)
        async with stage.generate() as generation:
            assert generation is not lost
            assert await generation.next(None)
        # Nothing of it waits on.
        assert lost._stopping.cancelled()

    staged(saying(say.started(), then_silent=True), test)


def test_no_connection_waits_for_a_worker_that_is_not_wanted() -> None:
    async def test(stage: Stage) -> None:
        async with stage.generate():
            stage.connections.keep(set())
        await settle()
        assert not stage.connections._spares

    staged(saying(), test)
