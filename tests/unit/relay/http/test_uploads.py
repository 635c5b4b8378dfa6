"""Bodies on their way to a server: in pieces, large, refused early."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from anyclaude.relay.failures import UpstreamFault
from anyclaude.relay.wire import Wire
from tests.unit.relay.http.server import (
    OK,
    PATIENCE_SECONDS,
    Peer,
    Stage,
    answered,
    body_of,
    once,
)


async def pieces_of(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def test_a_body_in_pieces(staged) -> None:
    """As chunks, or by the length that was given; the connection is used again."""

    async def turn(peer: Peer) -> list[bytes]:
        first = await peer.head() + await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.say(OK)
        second = await peer.head() + await peer.reader.readexactly(4)
        await peer.say(OK)
        return [first.split(b"\r\n", 2)[2], second.split(b"\r\n", 2)[2]]

    async def test(wire: Wire, stage: Stage) -> None:
        assert await body_of(wire, "POST", body=pieces_of(2, 2)) == b"hi"
        async with answered(
            wire, "POST", "/", [(b"content-length", b"4")], pieces_of(2, 2)
        ) as answer:
            assert await answer.read() == b"hi"
        await stage.news.wait()
        assert stage.told == [
            [
                b"Transfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n2\r\nxx\r\n0\r\n\r\n",
                b"content-length: 4\r\n\r\nxxxx",
            ]
        ]

    staged(test, turn)


def test_a_body_longer_than_declared(staged) -> None:
    """What exceeds its length is never sent: it would be another request."""

    async def turn(peer: Peer) -> bytes:
        await peer.head()
        return await peer.reader.read()

    async def test(wire: Wire, stage: Stage) -> None:
        with pytest.raises(UpstreamFault):
            async with answered(wire, "POST", "/", [(b"content-length", b"3")], pieces_of(2, 2)):
                pass
        await stage.news.wait()
        assert stage.told == [b"xx"]

    staged(test, turn)


def test_a_body_that_fails_on_its_way(staged) -> None:
    """The request ends with it, and half of it is no request."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        raise RuntimeError("no more")

    async def turn(peer: Peer) -> bytes:
        return await peer.reader.read()

    async def test(wire: Wire, stage: Stage) -> None:
        with pytest.raises(UpstreamFault):
            await body_of(wire, "POST", body=broken())
        await stage.news.wait()
        (sent,) = stage.told
        assert isinstance(sent, ConnectionResetError) or not sent.endswith(b"0\r\n\r\n")

    staged(test, turn)


def test_an_early_refusal_of_a_body_on_its_way(staged) -> None:
    """The answer is told while the server no longer reads; nothing more is sent after it."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch"
    left = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            left.append(True)

    async def test(wire: Wire, _: Stage) -> None:
        async with answered(wire, "POST", "/", [], endless()) as answer:
            assert (answer.status, await answer.read()) == (413, b"much")
        await asyncio.sleep(0.01)
        assert left == [True]

    staged(test, once(refusal))


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_large_body_to_a_slow_reader(staged, is_whole) -> None:
    """Of a body in pieces, no more is taken than the server takes; all of it arrives."""
    size, count, taken = 100_000, 200, []

    async def counted() -> AsyncIterator[bytes]:
        async for piece in pieces_of(size, count):
            taken.append(piece)
            yield piece

    async def turn(peer: Peer) -> int:
        await peer.head()
        await asyncio.sleep(0.3)
        assert is_whole or len(taken) < count
        read = len(await peer.reader.readexactly(size * count))
        await peer.say(OK)
        return read

    async def test(wire: Wire, stage: Stage) -> None:
        if is_whole:
            assert await body_of(wire, "POST", body=b"x" * size * count) == b"hi"
        else:
            length = (b"content-length", b"%d" % (size * count))
            async with answered(wire, "POST", "/", [length], counted()) as answer:
                assert await answer.read() == b"hi"
        await stage.news.wait()
        assert stage.told == [size * count]

    staged(test, turn)


def test_cancelling_ends_a_body_on_its_way(staged) -> None:
    """Whether it waits for the server or for its own source."""

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async def turn(peer: Peer) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)

    async def test(wire: Wire, _: Stage) -> None:
        for body in (stuck(), pieces_of(100_000, 1000)):
            asking = asyncio.ensure_future(body_of(wire, "POST", body=body))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.wait({asking})
            assert asking.cancelled()

    staged(test, turn)
