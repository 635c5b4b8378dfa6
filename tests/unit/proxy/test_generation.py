"""Reading a worker's events ahead of the client, over real connections."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.generation import Generation, Generations
from anyclaude.runtime.streams import (
    HIGH_WATER_BYTES,
    Emit,
    Handler,
    StreamServer,
    stream_socket,
)
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.waiting import PATIENCE_SECONDS, until, until_still

REQUEST = worker.GenerateRequest(request_id="req_1")
WORD_BYTES = 10_000
# The most bytes of one read of a socket.
READ_BYTES = 256 * 1024

pytestmark = pytest.mark.anyio


class Stage:
    """A real stream server, and the front end's connections to it."""

    def __init__(self, socket: Path, server: StreamServer) -> None:
        self.server = server
        self.route = frontend.Route(mode="it", worker_socket=str(socket))
        self.stopping = asyncio.Event()
        self.generations = Generations(self.stopping)
        self.generations.keep({str(socket)})

    def generate(self) -> AbstractAsyncContextManager[Generation]:
        return self.generations.generate(self.route, REQUEST)

    async def spare(self) -> Generation:
        """Waits for the connection that waits for the next call."""
        await until(lambda: self.generations._spares)
        (spare,) = self.generations._spares.values()
        return spare


@asynccontextmanager
async def staged(handler: Handler) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        socket = Path(folder) / "w.sock"
        server = StreamServer(stream_socket(socket), handler)
        await server.start()
        stage = Stage(socket, server)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield stage
        finally:
            await stage.generations.close()
            await server.stop(0)


def emitting(*events: worker.GenerateResponse, then_silent: bool = False) -> Handler:
    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit(events)
        if then_silent:
            await asyncio.Event().wait()

    return handler


async def test_a_complete_answer_leaves_no_warning() -> None:
    """Only a worker that died is logged as gone, not the end of a call that this side closed."""
    with structlog.testing.capture_logs() as logs:
        async with staged(emitting(say.delta(0, text="a"))) as stage:
            async with stage.generate() as generation:
                assert await generation.next(None)
            async with stage.generate() as again:
                assert await again.next(None)

    assert [entry for entry in logs if entry["event"] == "worker gone"] == []


async def test_events_come_before_the_failure_after_them() -> None:
    """Events that came before a failure are returned before it."""
    words = [say.delta(0, text=text) for text in "abc"]
    handler = emitting(*words, say.failed(500, "boom"))
    async with staged(handler) as stage, stage.generate() as generation:
        await until(lambda: not generation.is_open)
        assert await generation.next(None) == words
        with pytest.raises(ApiError, match="boom"):
            await generation.next(None)


async def test_a_complete_answer_is_no_death() -> None:
    """The worker closes the connection behind a complete answer; that is not logged as a death."""
    with capture_logs() as events:
        async with (
            staged(emitting(say.delta(0, text="a"))) as stage,
            stage.generate() as generation,
        ):
            await until(lambda: not generation.is_open)
    assert not [event for event in events if event["log_level"] == "warning"]


async def test_an_end_without_a_finish_fails() -> None:
    """A stream that ends without Finished is an error."""
    async with staged(emitting()) as stage, stage.generate() as generation:
        with pytest.raises(ApiError, match="before it was complete"):
            await generation.next(None)


async def test_a_worker_that_dies_while_it_answers_is_529() -> None:
    """The client gets the events that came, and then an error to retry."""
    word = say.delta(0, text="a")
    async with staged(emitting(word, then_silent=True)) as stage, stage.generate() as generation:
        assert await generation.next(None) == [word]
        await stage.server.stop(0)
        with pytest.raises(ApiError, match="went away") as error:
            await generation.next(None)
        assert error.value.status == 529


async def test_a_worker_that_does_not_run_is_529() -> None:
    """A request for a worker that is gone already fails at once, so that the client tries again."""
    async with staged(emitting()) as stage:
        await stage.server.stop(0)
        with pytest.raises(ApiError, match="went away") as error:
            async with stage.generate():
                pass
        assert error.value.status == 529


async def test_a_request_that_is_too_large_is_413() -> None:
    """A request beyond the size of a message is refused before any of it is sent."""
    async with staged(emitting()) as stage:
        generation = Generation(stage.stopping)
        await generation.connect(stage.route.worker_socket)
        request = worker.GenerateRequest(body_json=b" " * (41 * 1024 * 1024))
        with pytest.raises(ApiError) as error:
            generation.start(stage.route, request)
        assert error.value.status == 413
        await generation.close()


async def test_bytes_that_are_no_message_fail() -> None:
    """What cannot be parsed ends the generation with an error."""
    async with staged(emitting(then_silent=True)) as stage, stage.generate() as generation:
        generation.data_received(b"\0\0\0\2\xff\xff")
        with pytest.raises(ApiError, match="cannot be read"):
            await generation.next(None)


async def test_a_client_that_reads_nothing_stops_the_worker() -> None:
    """Waiting events are bounded by bytes, and reading continues once the client reads them."""
    emitted = 0

    async def endless(_: worker.GenerateRequest, emit: Emit) -> None:
        nonlocal emitted
        while True:
            emitted += 1
            await emit([say.delta(0, text="x" * WORD_BYTES)])

    async with staged(endless) as stage, stage.generate() as generation:
        emitted_at_rest = await until_still(lambda: emitted)
        waiting = await generation.next(None)
        assert len(waiting) * WORD_BYTES <= HIGH_WATER_BYTES + READ_BYTES
        await until(lambda: emitted > emitted_at_rest)
        assert await generation.next(None)


async def test_silence_returns_nothing_in_time() -> None:
    """A wait that ends without events returns in time for a ping, and loses nothing."""
    async with staged(emitting(then_silent=True)) as stage, stage.generate() as generation:
        assert await generation.next(0) == []
        assert await generation.next(0.01) == []


async def test_each_wait_has_a_limit_of_its_own() -> None:
    """The time limit of a wait that ended early does not shorten the next one."""
    word = say.delta(0, text="a")
    async with staged(emitting(word, then_silent=True)) as stage, stage.generate() as generation:
        # On a busy machine the word may come after the first limits.
        while not (events := await generation.next(0.1)):
            pass
        assert events == [word]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await generation.next(0.3) == []
        # A loop's clock counts milliseconds.
        assert loop.time() - begun > 0.29


async def test_stopping_ends_a_silent_answer() -> None:
    """When this process stops, the received events are returned before the error."""
    word = say.delta(0, text="a")
    async with staged(emitting(word, then_silent=True)) as stage, stage.generate() as generation:
        await until(lambda: generation._events)
        stage.stopping.set()
        assert await generation.next(None) == [word]
        with pytest.raises(ApiError, match="restarting"):
            await generation.next(None)


async def test_a_connection_waits_for_the_next_call() -> None:
    """The next call uses it once; if the worker closed it in between, the call opens another."""
    async with staged(emitting(say.started(), then_silent=True)) as stage:
        async with stage.generate():
            pass
        spare = await stage.spare()
        async with stage.generate() as generation:
            assert generation is spare
            assert await generation.next(None)
        lost = await stage.spare()
        lost.connection_lost(None)
        async with stage.generate() as generation:
            assert generation is not lost
            assert await generation.next(None)
        # The abandoned call leaves no task running.
        assert lost._stopping.cancelled()


async def test_no_connection_waits_for_a_worker_without_a_route() -> None:
    """A worker that no route names any more gets no new connection."""
    async with staged(emitting()) as stage:
        async with stage.generate():
            stage.generations.keep(set())
        await until(lambda: not stage.generations._tasks)
        assert not stage.generations._spares
