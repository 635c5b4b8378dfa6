"""Requests to a server: their bytes, what is tried again, and what leaving does."""

import asyncio

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.relay.failures import UpstreamFault
from anyclaude.relay.wire import Wire
from tests.unit.relay.http.server import (
    OK,
    UNTIL_CLOSE,
    Peer,
    Stage,
    answered,
    body_of,
    once,
)


def test_a_request_is_the_bytes_it_was_given_as(staged) -> None:
    """Names and values as they are, Host first, the length last, and nothing else."""

    async def turn(peer: Peer) -> bytes:
        head = await peer.head()
        body = await peer.reader.readexactly(3)
        await peer.say(OK)
        return head + body

    async def test(wire: Wire, stage: Stage) -> None:
        headers = [(b"X-oDD", b"\xff  two "), (b"x-odd", b"")]
        async with answered(wire, "POST", "/a%2Fb?q=%20", headers, b"abc") as answer:
            assert await answer.read() == b"hi"
        host = wire._open().authority.encode()
        await stage.news.wait()
        assert stage.told == [
            b"POST /root/a%2Fb?q=%20 HTTP/1.1\r\nHost: " + host + b"\r\n"
            b"X-oDD: \xff  two \r\nx-odd: \r\nContent-Length: 3\r\n\r\nabc"
        ]

    staged(test, turn, path="/root/v1")


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
def test_what_would_be_another_request_is_refused(staged, method, path, headers) -> None:
    """Nothing of it is sent."""

    async def test(wire: Wire, stage: Stage) -> None:
        with pytest.raises(ApiError) as error:
            async with answered(wire, method, path, headers):
                pass
        assert error.value.status == 400
        assert not isinstance(error.value, UpstreamFault)
        assert stage.made == 0

    staged(test, once(OK))


def test_half_a_head_is_not_tried_again(staged) -> None:
    """The server had begun: it may have done what it was asked."""

    async def test(wire: Wire, stage: Stage) -> None:
        with pytest.raises(UpstreamFault, match="broke"):
            await body_of(wire)
        assert stage.made == 1

    staged(test, once(b"HTTP/1.1 200"), retries=5)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", UNTIL_CLOSE, UNTIL_CLOSE + b"abc"])
def test_cancelling_hangs_up(staged, said) -> None:
    """Wherever the answer is, the server learns of it at once."""

    async def turn(peer: Peer) -> bytes:
        await peer.answer(said)
        return await peer.reader.read()

    async def test(wire: Wire, stage: Stage) -> None:
        asking = asyncio.ensure_future(body_of(wire))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        await stage.news.wait()
        assert isinstance(stage.told[0], ConnectionResetError) or stage.told == [b""]

    staged(test, turn)
