"""The socket that answers stream over: framing, and how calls end, by real connections."""

import asyncio
import itertools
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.runtime import streams
from anyclaude.runtime.channels import MAX_MESSAGE_BYTES
from anyclaude.runtime.streams import (
    END,
    Emit,
    Frames,
    Handler,
    MessageTooLargeError,
    StreamServer,
    framed,
)
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

ASKED = worker.GenerateRequest(request_id="req_1", body_json=b"{}")
PATIENCE_SECONDS = 10

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "w.stream"


def with_server(path: Path, answers: Handler, test: Callable[[StreamServer], Awaitable[None]]):
    async def run() -> None:
        server = StreamServer(path, answers)
        await server.start()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await test(server)
        finally:
            await server.stop(0)

    asyncio.run(run())


async def call(path: Path, request: worker.GenerateRequest = ASKED) -> Caller:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(framed(request))
    return reader, writer


async def read(caller: Caller) -> list[bytes]:
    """All messages, to the end of the connection."""
    reader, writer = caller
    messages = list(Frames().feed(await reader.read()))
    writer.close()
    return messages


@given(st.lists(st.text(max_size=50), max_size=5), st.data())
def test_frames_do_not_depend_on_how_bytes_come(words: list[str], data: st.DataObject) -> None:
    """However the stream is cut, the same messages come out of it, once each and in order."""
    messages = [say.delta(text=word) for word in words]
    stream = b"".join(map(framed, messages)) + END
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)) | {0, len(stream)})
    frames = Frames()
    got = [
        payload
        for start, end in itertools.pairwise(cuts)
        for payload in frames.feed(stream[start:end])
    ]
    assert got == [*(message.SerializeToString() for message in messages), b""]


def test_no_length_makes_room_for_what_no_message_is() -> None:
    """A length beyond the limit fails by itself, before anything of that size is awaited."""
    with pytest.raises(MessageTooLargeError):
        list(Frames().feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")))


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(MessageTooLargeError):
        framed(worker.GenerateRequest(body_json=b" " * MAX_MESSAGE_BYTES))


def test_an_answer_ends_with_its_end(path: Path) -> None:
    """Every message, then the mark without which an answer is not complete."""
    events = [say.started(), say.text_start(), say.delta(text="Hi")]

    async def answers(request: worker.GenerateRequest, emit: Emit) -> None:
        assert request == ASKED
        for event in events:
            await emit([event])

    async def test(_: StreamServer) -> None:
        got = await read(await call(path))
        assert got == [*(event.SerializeToString() for event in events), b""]

    with_server(path, answers, test)


def test_the_socket_is_private(path: Path) -> None:
    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])

    async def test(_: StreamServer) -> None:
        assert mode() == 0o600

    with_server(path, answers, test)


@pytest.mark.parametrize("asked", [b"\0\0\0\2\xff\xff", b"\xff\xff\xff\xff"])
def test_a_call_that_is_none_is_hung_up_on(path: Path, asked: bytes) -> None:
    """Bytes that are no request, and a length that no request has; the next call is answered."""

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])

    async def test(_: StreamServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(asked)
        assert await read((reader, writer)) == []
        assert len(await read(await call(path))) == 2

    with_server(path, answers, test)


def test_an_answer_that_fails_says_so(path: Path) -> None:
    """A defect in the worker is a refusal that points to the log, not a lost worker."""

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        raise RuntimeError("scripted")

    async def test(_: StreamServer) -> None:
        *_, failed, end = await read(await call(path))
        said = worker.GenerateResponse.FromString(failed).failed
        assert (said.status, "anyclaudectl logs" in said.message, end) == (500, True, b"")

    with_server(path, answers, test)


@pytest.mark.parametrize("is_silent", [True, False])
def test_who_hangs_up_cancels_the_work(path: Path, is_silent: bool) -> None:
    """Whether the worker computes or waits for the caller to read."""
    over = asyncio.Event()

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        try:
            while True:
                await emit([say.delta(text="x" * 100_000)])
                if is_silent:
                    await asyncio.Event().wait()
        finally:
            over.set()

    async def test(_: StreamServer) -> None:
        reader, writer = await call(path)
        await reader.readexactly(1)
        assert not over.is_set()
        writer.transport.abort()
        await over.wait()

    with_server(path, answers, test)


def test_a_caller_that_reads_nothing_stops_the_work(path: Path) -> None:
    """A worker runs ahead by what the buffers hold, and no further."""
    said = 0

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        nonlocal said
        while True:
            said += 1
            await emit([say.delta(text="x" * 10_000)])

    async def test(_: StreamServer) -> None:
        _, writer = await call(path)
        before = -1
        while said != before:
            before = said
            await asyncio.sleep(0.2)
        assert 0 < said * 10_000 < 4 * 1024 * 1024
        writer.transport.abort()

    with_server(path, answers, test)


def test_stopping_waits_for_calls_and_for_nobody_else(path: Path) -> None:
    """A running call has its grace, and one that has not asked none; no new one gets in."""
    may_end = asyncio.Event()

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        await may_end.wait()
        await emit([say.delta(text="last words")])

    async def test(server: StreamServer) -> None:
        idle = await asyncio.open_unix_connection(str(path))
        running = await call(path)
        head = await running[0].readexactly(1)
        stopping = asyncio.ensure_future(server.stop(PATIENCE_SECONDS))
        assert await read(idle) == []
        with pytest.raises(OSError, match=r"."):
            await call(path)
        may_end.set()
        *_, end = Frames().feed(head + await running[0].read())
        assert end == b""
        running[1].close()
        await stopping

    with_server(path, answers, test)


def test_stopping_cuts_what_does_not_end(path: Path) -> None:
    """Without its end, so that nobody takes it for a whole answer."""

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        await asyncio.Event().wait()

    async def test(server: StreamServer) -> None:
        caller = await call(path)
        head = await caller[0].readexactly(1)
        await server.stop(0.05)
        got = list(Frames().feed(head + await caller[0].read()))
        assert got == [say.started().SerializeToString()]
        caller[1].close()

    with_server(path, answers, test)


def test_work_that_ends_before_it_begins_hangs_up(path: Path) -> None:
    """Nobody is left waiting for an answer that will not come."""

    async def answers(_: worker.GenerateRequest, emit: Emit) -> None:
        raise AssertionError("it was cancelled")

    async def test(server: StreamServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        await asyncio.sleep(0.1)
        (taken,) = server._calls
        taken.data_received(framed(ASKED))
        taken.data_received(b"more")
        assert await read((reader, writer)) == []

    with_server(path, answers, test)


def test_the_socket_is_named_after_the_workers() -> None:
    assert streams.stream_socket("/run/relay-3.sock") == Path("/run/relay-3.stream")
