"""Requests to a server: their bytes, bodies in pieces, and cancellation."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.relay.client import Client
from anyclaude.relay.failures import Party, UpstreamFault
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.unit.relay.byte_server import (
    OK,
    PATIENCE_SECONDS,
    UNTIL_CLOSE,
    Peer,
    once,
    serving,
    until,
)
from tests.waiting import until_still

pytestmark = pytest.mark.anyio


async def test_a_request_is_the_bytes_it_was_given_as():
    """Path and headers are sent unchanged and in order; only Host and the length are added."""

    async def turn(peer: Peer) -> bytes:
        head = await peer.head()
        body = await peer.reader.readexactly(3)
        await peer.send(OK)
        return head + body

    async with serving(turn, path="/root/v1") as stage:
        headers = [(b"X-oDD", b"\xff  two "), (b"x-odd", b"")]
        async with stage.client.send("POST", "/a%2Fb?q=%20", headers, b"abc") as response:
            assert await response.read() == b"hi"
        host = stage.url.removeprefix("http://").partition("/")[0].encode()
        assert await stage.first_result() == (
            b"POST /root/a%2Fb?q=%20 HTTP/1.1\r\nHost: " + host + b"\r\n"
            b"X-oDD: \xff  two\r\nx-odd: \r\nContent-Length: 3\r\n\r\nabc"
        )


async def test_a_function_can_replace_the_transport():
    """A function can replace the connection, and sees the request that a server would see."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.method, request.extensions["target"], request.headers["x-one"]))
        return httpx2.Response(201, headers={"x-two": "2"}, stream=httpx2.ByteStream(b"done"))

    party = Party("it", UpstreamSettings(base_url="http://server.example/v1"))
    client = Client(party, lambda: httpx2.MockTransport(answer))
    async with client.send("PUT", "/p?q", [(b"X-One", b"1")], b"body") as response:
        assert (response.status, response.headers["x-two"]) == (201, "2")
        assert await response.read() == b"done"
    assert seen == [("PUT", b"/p?q", "1")]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", [(b"a", b"1\r\nb: 2")]),
        ("GET", "/", [(b"a", b"1\nb: 2")]),
        ("GET", "/", [(b"a", b"1\r")]),
        ("GET", "/", [(b"a\r\nb", b"1")]),
        ("GET", "/", [(b"a", b"1\0")]),
        ("GET", "/ HTTP/1.1\r\na: 1\r\n\r\n", []),
        ("GET", "/a HTTP/1.0", []),
        ("GET", "/a\tb", []),
        ("GET / HTTP/1.1\r\n\r\nGET", "/", []),
        ("POST", "/", [(b"content-length", b"1, 2")]),
    ],
)
async def test_what_would_be_another_request_is_refused(method, path, headers):
    """Line breaks and white space that would end a header or line early are refused unsent."""
    async with serving(once(OK)) as stage:
        with pytest.raises(ApiError) as error:
            async with stage.client.send(method, path, headers):
                pass
        assert error.value.status == 400
        assert not isinstance(error.value, UpstreamFault)
        assert stage.made == 0


async def test_half_a_head_is_not_tried_again():
    """A request is not repeated once the response began, since it may have taken effect."""
    async with serving(once(b"HTTP/1.1 200"), retries=5) as stage:
        with pytest.raises(UpstreamFault, match="broke"):
            await stage.body()
        assert stage.made == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", UNTIL_CLOSE, UNTIL_CLOSE + b"abc"])
async def test_cancelling_closes_the_connection(sent):
    """Cancelling closes the connection at once, at every stage of the response."""
    answered = asyncio.Event()

    async def turn(peer: Peer) -> bytes:
        await peer.answer(sent)
        answered.set()
        return await peer.reader.read()

    async with serving(turn) as stage:
        request = asyncio.ensure_future(stage.body())
        await answered.wait()
        request.cancel()
        await asyncio.wait({request})
        assert request.cancelled()
        result = await stage.first_result()
        assert isinstance(result, ConnectionResetError) or result == b""


async def pieces_of(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


async def test_a_body_in_pieces():
    """A body in pieces is sent in chunks or with its given length; the connection is reused."""

    async def turn(peer: Peer) -> list[bytes]:
        first = await peer.head() + await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.send(OK)
        second = await peer.head() + await peer.reader.readexactly(4)
        await peer.send(OK)
        return [first.split(b"\r\n", 2)[2], second.split(b"\r\n", 2)[2]]

    async with serving(turn) as stage:
        assert await stage.body("POST", pieces_of(2, 2)) == b"hi"
        length = [(b"content-length", b"4")]
        async with stage.client.send("POST", "/", length, pieces_of(2, 2)) as response:
            assert await response.read() == b"hi"
        assert await stage.first_result() == [
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n2\r\nxx\r\n0\r\n\r\n",
            b"content-length: 4\r\n\r\nxxxx",
        ]


async def test_a_body_longer_than_declared():
    """Bytes beyond the declared length are never sent: a server would read them as a request."""

    async def turn(peer: Peer) -> bytes:
        await peer.head()
        return await peer.reader.read()

    async with serving(turn) as stage:
        with pytest.raises(UpstreamFault):
            async with stage.client.send("POST", "/", [(b"content-length", b"3")], pieces_of(2, 2)):
                pass
        assert await stage.first_result() == b"xx"


async def test_a_body_that_fails_on_its_way():
    """If the source of a body fails, so does the request, and the server sees it as incomplete."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        raise RuntimeError("no more")

    async def turn(peer: Peer) -> bytes:
        return await peer.reader.read()

    async with serving(turn) as stage:
        with pytest.raises(UpstreamFault):
            await stage.body("POST", broken())
        sent = await stage.first_result()
        assert isinstance(sent, ConnectionResetError) or not sent.endswith(b"0\r\n\r\n")


async def test_an_early_refusal_of_a_body_on_its_way():
    """If the server responds before it has read the body, sending stops."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch"
    is_closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            is_closed.append(True)

    async with serving(once(refusal)) as stage:
        async with stage.client.send("POST", "/", [], endless()) as response:
            assert (response.status, await response.read()) == (413, b"much")
        assert is_closed == [True]


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_large_body_to_a_slow_reader(is_whole):
    """The source of a body is read no faster than the server reads, and all of it arrives."""
    size, count, taken = 100_000, 200, []
    go_on = asyncio.Event()

    async def counted() -> AsyncIterator[bytes]:
        async for piece in pieces_of(size, count):
            taken.append(piece)
            yield piece

    async def turn(peer: Peer) -> int:
        await peer.head()
        await go_on.wait()
        read = len(await peer.reader.readexactly(size * count))
        await peer.send(OK)
        return read

    async with serving(turn) as stage:
        if is_whole:
            body: bytes | AsyncIterator[bytes] = b"x" * size * count
            headers = []
        else:
            body, headers = counted(), [(b"content-length", b"%d" % (size * count))]

        async def request() -> bytes:
            async with stage.client.send("POST", "/", headers, body) as response:
                return await response.read()

        running = asyncio.ensure_future(request())
        await until(lambda: stage.made == 1)
        if not is_whole:
            await until_still(lambda: len(taken))
            assert len(taken) < count
        go_on.set()
        assert await running == b"hi"
        assert await stage.first_result() == size * count


async def test_cancelling_ends_a_body_on_its_way():
    """Cancelling works while a body waits for the server or for its source."""

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def turn(peer: Peer) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)

    async with serving(turn) as stage:
        for made, body in enumerate((stuck(), pieces_of(100_000, 1000)), start=1):
            request = asyncio.ensure_future(stage.body("POST", body))
            await until(lambda made=made: stage.made == made)
            request.cancel()
            await asyncio.wait({request})
            assert request.cancelled()
