"""The transport of a connection: joined writes, and stalled clients."""

import asyncio
from typing import cast

import pytest

from anyclaude.proxy.protocol import ClientTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

pytestmark = pytest.mark.anyio


class FakeTransport:
    """Keeps what is written until the test lets the client receive it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.waiting += len(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(transport: FakeTransport, clock: Clock) -> ClientTransport:
    loop = asyncio.get_running_loop()
    return ClientTransport(cast(asyncio.Transport, transport), loop, clock)


async def test_a_client_that_receives_nothing_has_stalled(
    client: ClientTransport, clock: Clock
) -> None:
    """A client has stalled when bytes waited for the whole limit, even if more were added."""
    client.write(b"x" * 10)
    assert not client.has_stalled(60)
    clock.seconds = 59
    client.write(b"x")
    assert not client.has_stalled(60)
    clock.seconds = 60
    assert client.has_stalled(60)


async def test_a_slow_client_has_not_stalled(
    client: ClientTransport, transport: FakeTransport, clock: Clock
) -> None:
    """A client that receives one byte a minute while ten are added is slow, not stalled."""
    for minute in range(10):
        clock.seconds = minute * 59
        client.write(b"x" * 10)
        transport.waiting -= 1
        assert not client.has_stalled(60)


async def test_an_idle_connection_has_not_stalled(client: ClientTransport, clock: Clock) -> None:
    """A connection on which nothing waits has not stalled, however long it rests."""
    clock.seconds = 3600
    assert not client.has_stalled(60)


async def test_a_head_leaves_with_what_follows_it(
    client: ClientTransport, transport: FakeTransport
) -> None:
    """The head and the first piece of the body are one write; later pieces are their own."""
    client.write(HEAD)
    client.write(b"first")
    client.write(b"second")
    await asyncio.sleep(0)
    assert transport.writes == [HEAD + b"first", b"second"]


async def test_a_head_that_nothing_follows_leaves_by_itself(
    client: ClientTransport, transport: FakeTransport, clock: Clock
) -> None:
    """The head waits for the current turn of the loop only, and counts as waiting until then."""
    client.write(HEAD)
    clock.seconds = 60
    assert client.has_stalled(60)
    await asyncio.sleep(0)
    assert transport.writes == [HEAD]


async def test_a_head_leaves_before_the_connection_closes(
    client: ClientTransport, transport: FakeTransport
) -> None:
    """A response without a body is sent before its connection closes."""
    client.write(HEAD)
    client.close()
    await asyncio.sleep(0)
    assert (transport.writes, transport.is_closed) == ([HEAD], True)


async def test_continue_is_sent_at_once(client: ClientTransport, transport: FakeTransport) -> None:
    """`100 Continue` is no response: the client that waits for it sends nothing before."""
    client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(transport.writes) == 1
