"""Reading a request's body, with a client that pauses."""

import asyncio

import pytest
from starlette.types import Message

from anyclaude.messages.errors import ApiError
from anyclaude.proxy.context import RequestBody
from anyclaude.runtime.settings import ServerSettings
from tests.jumping_loop import JumpingLoop, run


class Client:
    """Sends a body of four bytes in two pieces."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(self) -> Message:
        piece = await self.pieces.get()
        return {"type": "http.request", "body": piece, "more_body": piece == b"ab"}


def _reading(client: Client) -> "asyncio.Task[bytes]":
    body = RequestBody({"content-length": "4"}, client.receive, ServerSettings())
    return asyncio.ensure_future(body.read())


def test_a_body_is_read_after_the_machine_slept() -> None:
    """The clock jumps by an hour between two pieces, and the client is not refused."""

    async def work(loop: JumpingLoop) -> None:
        client = Client()
        reading = _reading(client)
        client.pieces.put_nowait(b"ab")
        await loop.sleep_through(3600.0)
        await asyncio.sleep(0.01)
        client.pieces.put_nowait(b"cd")
        assert await reading == b"abcd"

    run(work)


def test_a_body_that_stops_arriving_is_refused() -> None:
    """A client that stays silent while the machine is awake gets 408."""

    async def work(loop: JumpingLoop) -> None:
        client = Client()
        reading = _reading(client)
        client.pieces.put_nowait(b"ab")
        await loop.sleep_through(ServerSettings().client_stall_seconds)
        with pytest.raises(ApiError) as caught:
            await reading
        assert caught.value.status == 408

    run(work)
