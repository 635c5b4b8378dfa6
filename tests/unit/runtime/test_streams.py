"""The socket that events stream over: framing, and how calls end, by real connections."""

import asyncio
import itertools
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.runtime.channels import MAX_MESSAGE_BYTES
from anyclaude.runtime.streams import (
    END,
    Emit,
    Frames,
    Handler,
    MessageTooLargeError,
    StreamServer,
    framed,
    stream_socket,
)
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.waiting import PATIENCE_SECONDS, until, until_still

REQUEST = worker.GenerateRequest(request_id="req_1", body_json=b"{}")

pytestmark = pytest.mark.anyio

Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "w.stream"


@asynccontextmanager
async def serving(path: Path, handler: Handler) -> AsyncIterator[StreamServer]:
    server = StreamServer(path, handler)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield server
    finally:
        await server.stop(0)


async def call(path: Path, request: worker.GenerateRequest = REQUEST) -> Caller:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(framed(request))
    return reader, writer


async def read(caller: Caller, head: bytes = b"") -> list[bytes]:
    """Reads all messages to the end of the connection; `head` is read already."""
    reader, writer = caller
    messages = list(Frames().feed(head + await reader.read()))
    writer.close()
    return messages


async def emit_started(_: worker.GenerateRequest, emit: Emit) -> None:
    await emit([say.started()])


@given(st.lists(st.text(max_size=50), max_size=5), st.data())
def test_frames_do_not_depend_on_how_bytes_come(words: list[str], data: st.DataObject) -> None:
    """However the stream is cut, it gives the same messages in order."""
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


def test_a_length_beyond_the_limit_fails() -> None:
    """A length beyond the limit fails before that many bytes are awaited."""
    with pytest.raises(MessageTooLargeError):
        list(Frames().feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")))


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    """The sender refuses a message that the receiver would refuse."""
    with pytest.raises(MessageTooLargeError):
        framed(worker.GenerateRequest(body_json=b" " * MAX_MESSAGE_BYTES))


async def test_a_response_ends_with_its_mark(path: Path) -> None:
    """All messages arrive, then the mark of a complete response."""
    events = [say.started(), say.text_start(), say.delta(text="Hi")]
    requests = []

    async def handler(request: worker.GenerateRequest, emit: Emit) -> None:
        requests.append(request)
        for event in events:
            await emit([event])

    async with serving(path, handler):
        got = await read(await call(path))
    assert got == [*(event.SerializeToString() for event in events), b""]
    assert requests == [REQUEST]


async def test_the_socket_is_private(path: Path) -> None:
    """Only the user can connect."""

    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    async with serving(path, emit_started):
        assert mode() == 0o600


@pytest.mark.parametrize("sent", [b"\0\0\0\2\xff\xff", b"\xff\xff\xff\xff"])
async def test_a_call_that_cannot_be_read_is_closed(path: Path, sent: bytes) -> None:
    """Invalid bytes or lengths close only their own connection."""
    async with serving(path, emit_started):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(sent)
        assert await read((reader, writer)) == []
        assert len(await read(await call(path))) == 2


async def test_a_handler_that_fails_is_reported(path: Path) -> None:
    """A defect in the worker becomes an error that names the log."""

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        raise RuntimeError("scripted")

    async with serving(path, handler):
        *_, last, end = await read(await call(path))
    failed = worker.GenerateResponse.FromString(last).failed
    assert (failed.status, "anyclaudectl logs" in failed.message, end) == (500, True, b"")


@pytest.mark.parametrize("is_silent", [True, False])
async def test_closing_the_connection_cancels_the_call(path: Path, is_silent: bool) -> None:
    """Closing the connection cancels a call that computes or waits to send."""
    over = asyncio.Event()

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        try:
            while True:
                await emit([say.delta(text="x" * 100_000)])
                if is_silent:
                    await asyncio.Event().wait()
        finally:
            over.set()

    async with serving(path, handler):
        reader, writer = await call(path)
        await reader.readexactly(1)
        assert not over.is_set()
        writer.transport.abort()
        await over.wait()


async def test_a_caller_that_reads_nothing_stops_the_work(path: Path) -> None:
    """A worker runs ahead of its caller only as far as the buffers allow."""
    emitted = 0

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        nonlocal emitted
        while True:
            emitted += 1
            await emit([say.delta(text="x" * 10_000)])

    async with serving(path, handler):
        _, writer = await call(path)
        await until(lambda: emitted)
        assert 0 < await until_still(lambda: emitted) * 10_000 < 4 * 1024 * 1024
        writer.transport.abort()


async def test_stopping_waits_for_running_calls_only(path: Path) -> None:
    """Stopping waits for running calls, closes idle connections, and accepts no new call."""
    may_end = asyncio.Event()

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        await may_end.wait()
        await emit([say.delta(text="last words")])

    async with serving(path, handler) as server:
        idle = await asyncio.open_unix_connection(str(path))
        running = await call(path)
        head = await running[0].readexactly(1)
        stopping = asyncio.ensure_future(server.stop(PATIENCE_SECONDS))
        assert await read(idle) == []
        with pytest.raises(OSError, match=r"."):
            await call(path)
        may_end.set()
        *_, end = await read(running, head)
        assert end == b""
        await stopping


async def test_stopping_cuts_what_does_not_end(path: Path) -> None:
    """A response that is cut off lacks its mark, so it never looks complete."""

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        await emit([say.started()])
        await asyncio.Event().wait()

    async with serving(path, handler) as server:
        caller = await call(path)
        head = await caller[0].readexactly(1)
        await server.stop(0.05)
        assert await read(caller, head) == [say.started().SerializeToString()]


async def test_a_call_cancelled_before_it_begins_is_closed(path: Path) -> None:
    """A call that is cancelled before it begins closes its connection."""

    async def handler(_: worker.GenerateRequest, emit: Emit) -> None:
        raise AssertionError("it was cancelled")

    async with serving(path, handler) as server:
        caller = await asyncio.open_unix_connection(str(path))
        await until(lambda: server._calls)
        (accepted,) = server._calls
        accepted.data_received(framed(REQUEST))
        accepted.data_received(b"more")
        assert await read(caller) == []


def test_the_socket_is_named_after_the_workers() -> None:
    """Both sockets of a worker share a folder and a generation."""
    assert stream_socket("/run/relay-3.sock") == Path("/run/relay-3.stream")
