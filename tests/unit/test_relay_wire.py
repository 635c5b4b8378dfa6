"""Requests to a server: their bytes, and what becomes of their connections."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.runtime.upstreams import UpstreamSettings
from anyclaude.workers.relay.failures import Party, UpstreamFault
from anyclaude.workers.relay.http1 import Connection
from anyclaude.workers.relay.pool import Pool
from anyclaude.workers.relay.wire import Wire
from tests.certificates import make_certificate
from tests.unit.relay_server import (
    CHUNKED,
    LOOPS,
    OK,
    PATIENCE_SECONDS,
    UNTIL_CLOSE,
    Peer,
    Stage,
    Staging,
    answering,
    body_of,
    once,
)


@pytest.fixture(params=LOOPS)
def staged(request) -> Staging:
    return Staging(LOOPS[request.param])


def test_a_request_is_the_bytes_it_was_given_as(staged) -> None:
    """Names and values as they are, Host first, the length last, and nothing else."""

    async def turn(peer: Peer) -> bytes:
        head = await peer.head()
        body = await peer.reader.readexactly(3)
        await peer.say(OK)
        return head + body

    async def test(wire: Wire, stage: Stage) -> None:
        headers = [(b"X-oDD", b"\xff  two "), (b"x-odd", b"")]
        async with wire.send("POST", "/a%2Fb?q=%20", headers, b"abc") as answer:
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
            async with wire.send(method, path, headers):
                pass
        assert error.value.status == 400
        assert not isinstance(error.value, UpstreamFault)
        assert stage.made == 0

    staged(test, once(OK))


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://a.example", "a.example"),
        ("http://a.example:80", "a.example"),
        ("https://a.example:443/x", "a.example"),
        ("https://a.example:80", "a.example:80"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example"),
    ],
)
def test_the_host_that_is_named(url, authority) -> None:
    """Without the scheme's own port, an address of IPv6 in brackets."""
    wire = Wire(Party("it", UpstreamSettings(base_url=url)))
    assert wire._open().authority == authority


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "a..b", "\u00fc..b", "x" * 70 + ".b"])
def test_an_address_that_is_none(staged, address) -> None:
    """A port or name that no server can have is said as what it is: a wrong address."""

    async def test(wire: Wire, _: Stage) -> None:
        bad = Wire(Party("it", UpstreamSettings(base_url=f"http://{address}")))
        with pytest.raises(UpstreamFault, match="does not resolve"):
            await body_of(bad)

    staged(test, once(OK))


def test_a_connection_is_used_again(staged) -> None:
    """One connection, as long as each answer is read to its end."""

    async def test(wire: Wire, stage: Stage) -> None:
        for body in (None, b"abc", b"x" * 600_000):
            assert await body_of(wire, "PUT", body=body) == b"hi"
        assert stage.made == 1

    async def turn(peer: Peer) -> None:
        while True:
            head = (await peer.head()).decode().lower()
            await peer.reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
            await peer.say(OK)

    staged(test, turn)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(OK + b"HTTP/1.1 200 OK\r\n", id="more than one answer"),
        pytest.param(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), id="close"),
        pytest.param(OK.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
    ],
)
def test_a_connection_that_is_not_used_again(staged, piece) -> None:
    """Where another answer may come, or none, the next request has its own."""

    async def test(wire: Wire, stage: Stage) -> None:
        for made in (1, 2):
            assert await body_of(wire) == b"hi"
            assert stage.made == made

    staged(test, answering(piece))


def test_an_answer_that_is_left_is_not_read_by_the_next(staged) -> None:
    """Its connection is closed, also when all of it has come."""

    async def test(wire: Wire, stage: Stage) -> None:
        async with wire.send("GET", "/", []):
            await asyncio.sleep(0.02)
        assert await body_of(wire) == b"hi"
        assert stage.made == 2

    staged(test, answering(OK))


def test_what_comes_unasked_ends_an_idle_connection(staged) -> None:
    """It could pass for the next request's answer."""

    async def turn(peer: Peer) -> bytes:
        await peer.answer(OK)
        await asyncio.sleep(0.02)
        await peer.say(OK)
        return await peer.reader.read()

    async def test(wire: Wire, stage: Stage) -> None:
        await body_of(wire)
        await stage.news.wait()
        await body_of(wire)
        assert stage.made == 2

    staged(test, turn, once(OK))


def test_what_the_server_closed_is_not_kept(staged) -> None:
    """A connection that ends while it is idle is not given out, even without a second try."""

    async def test(wire: Wire, stage: Stage) -> None:
        for made in (1, 2, 3):
            assert await body_of(wire) == b"hi"
            await asyncio.sleep(0.05)
            assert stage.made == made
            assert wire._open().take() is None

    staged(test, once(OK))


def test_a_stale_connection_costs_a_try(staged) -> None:
    """One that ends just as it is asked is tried again on a new one."""

    async def turn(peer: Peer) -> None:
        await peer.answer(OK)
        await peer.head()
        peer.reset()

    async def test(wire: Wire, stage: Stage) -> None:
        assert await body_of(wire) == b"hi"
        assert await body_of(wire, "POST", body=b"") == b"hi"
        assert stage.made == 2

    staged(test, turn, once(OK), retries=1)


def test_half_a_head_is_not_tried_again(staged) -> None:
    """The server had begun: it may have done what it was asked."""

    async def test(wire: Wire, stage: Stage) -> None:
        with pytest.raises(UpstreamFault, match="broke"):
            await body_of(wire)
        assert stage.made == 1

    staged(test, once(b"HTTP/1.1 200"), retries=5)


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
        async with wire.send("POST", "/", [(b"content-length", b"4")], pieces_of(2, 2)) as answer:
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
            async with wire.send("POST", "/", [(b"content-length", b"3")], pieces_of(2, 2)):
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
        async with wire.send("POST", "/", [], endless()) as answer:
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
            async with wire.send("POST", "/", [length], counted()) as answer:
                assert await answer.read() == b"hi"
        await stage.news.wait()
        assert stage.told == [size * count]

    staged(test, turn)


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


def test_nothing_waits_to_be_sent(staged) -> None:
    """Small writes leave at once."""

    async def test(wire: Wire, _: Stage) -> None:
        async with wire.send("GET", "/", []) as answer:
            used = answer._connection._transport.get_extra_info("socket")
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    staged(test, answering(OK))


@pytest.mark.parametrize("first", ["::1", "slow"])
def test_a_name_of_several_addresses(staged, monkeypatch, first) -> None:
    """One that refuses or does not answer does not keep the next from being tried."""

    async def addresses(_: Pool) -> list[str]:
        return [first, "127.0.0.1"]

    connect = Pool._connect_to

    async def slowly(pool: Pool, host: str) -> Connection:
        if host == "slow":
            await asyncio.Event().wait()
        return await connect(pool, host)

    async def test(wire: Wire, stage: Stage) -> None:
        assert await body_of(wire) == b"hi"
        assert stage.made == 1

    monkeypatch.setattr(Pool, "_addresses", addresses)
    monkeypatch.setattr(Pool, "_connect_to", slowly)
    staged(test, once(OK))


def test_a_name_is_looked_up(staged) -> None:
    """What nobody answers at is said as one failure of all its addresses."""

    async def test(wire: Wire, _: Stage) -> None:
        settings = wire._party.settings
        for port in (settings.base_url.rpartition(":")[2], "1"):
            url = f"http://localhost:{port}"
            named = Wire(Party("it", settings.model_copy(update={"base_url": url})))
            if port == "1":
                with pytest.raises(UpstreamFault, match="refuses connections"):
                    await body_of(named)
            else:
                assert await body_of(named) == b"hi"
                await named.close()

    staged(test, once(OK))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_over_tls(staged, certificate) -> None:
    """Streams, large bodies and kept connections are the same there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    size = 3_000_000

    async def turn(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            body = await peer.reader.readexactly(size)
            await peer.say(CHUNKED, b"%x\r\n" % size, body, b"\r\n0\r\n\r\n")
        await peer.answer(UNTIL_CLOSE, b"abc")

    async def test(wire: Wire, stage: Stage) -> None:
        for _ in range(2):
            assert await body_of(wire, "POST", body=b"x" * size) == b"x" * size
        assert await body_of(wire) == b"abc"
        assert stage.made == 1

    staged(test, turn, tls=context, ca_file=str(certificate[0]))


def test_a_handshake_that_hangs(staged) -> None:
    """It is part of connecting and bounded with it; nothing is left of it."""

    async def turn(peer: Peer) -> bytes:
        return await peer.reader.read()

    async def test(wire: Wire, stage: Stage) -> None:
        settings = wire._party.settings.model_copy(
            update={"base_url": wire._party.settings.base_url.replace("http:", "https:")}
        )
        secure = Wire(Party("it", settings))
        with pytest.raises(UpstreamFault, match="took no connection"):
            await body_of(secure)
        await stage.news.wait()

    staged(test, turn, connect_timeout_seconds=0.1)
