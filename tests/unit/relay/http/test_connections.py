"""Connections to a server: made, kept, used again, closed."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from anyclaude.relay.failures import Party, UpstreamFault
from anyclaude.relay.pool import Pool
from anyclaude.relay.wire import Wire
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.certificates import make_certificate
from tests.unit.relay.http.server import (
    CHUNKED,
    OK,
    UNTIL_CLOSE,
    Peer,
    Stage,
    answered,
    answering,
    body_of,
    once,
)


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
        async with answered(wire, "GET", "/", []):
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


def test_nothing_waits_to_be_sent(staged) -> None:
    """Small writes leave at once."""

    async def test(wire: Wire, _: Stage) -> None:
        async with answered(wire, "GET", "/", []) as answer:
            used = answer._connection._transport.get_extra_info("socket")
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    staged(test, answering(OK))


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """One that takes no further connection and refuses none."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        contextlib.ExitStack() as full,
    ):
        for _ in range(4):
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("other", [refusing_port, silent_port])
def test_a_name_of_several_addresses(staged, monkeypatch, other) -> None:
    """One that refuses or does not answer does not keep the next from being tried."""

    async def test(wire: Wire, stage: Stage) -> None:
        port = int(wire._party.settings.base_url.rpartition(":")[2])
        with other() as first:
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", at))
                for at in (first, port)
            ]
            monkeypatch.setattr(Pool, "_addresses", lambda _: asyncio.sleep(0, found))
            monkeypatch.setattr(Pool, "_is_address", False)
            assert await body_of(wire) == b"hi"
        assert stage.made == 1

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
