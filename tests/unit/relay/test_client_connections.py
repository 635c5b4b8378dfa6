"""Connections to a server: opening, reuse, closing, TLS, and the choice of a proxy."""

import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Iterator

import anyio
import pytest

from anyclaude.relay.client import Client
from anyclaude.relay.environment import find_proxy
from anyclaude.relay.failures import Party, UpstreamFault
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.certificates import make_certificate
from tests.unit.relay.byte_server import (
    CHUNKED,
    OK,
    UNTIL_CLOSE,
    Peer,
    answering,
    once,
    serving,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example", "a.example"),
        ("http://a.example:80", "a.example"),
        ("https://a.example:443/x", "a.example"),
        ("https://a.example:80", "a.example:80"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example"),
    ],
)
async def test_the_host_that_is_named(url, host):
    """The Host header omits the default port and puts an IPv6 address in brackets."""
    client = Client(Party("it", UpstreamSettings(base_url=url)))
    assert client._request("GET", "/", [], None).headers["host"] == host


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "a..b", "\u00fc..b", "x" * 70 + ".b"])
async def test_an_impossible_address(address):
    """A port or name that no server can have is reported as a wrong address."""
    client = Client(Party("it", UpstreamSettings(base_url=f"http://{address}")))
    with pytest.raises(UpstreamFault, match="does not resolve"):
        async with client.send("GET", "/", []):
            pass


async def test_a_connection_is_used_again():
    """One connection serves all requests if each response is read to its end."""

    async def turn(peer: Peer) -> None:
        while True:
            head = (await peer.head()).decode().lower()
            await peer.reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
            await peer.send(OK)

    async with serving(turn) as stage:
        for body in (b"", b"abc", b"x" * 600_000):
            assert await stage.body("PUT", body) == b"hi"
        assert stage.made == 1


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(OK + b"HTTP/1.1 200 OK\r\n", id="begin of another response"),
        pytest.param(OK + OK, id="another response"),
        pytest.param(OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), id="close"),
        pytest.param(OK.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
    ],
)
async def test_a_connection_that_is_not_used_again(piece):
    """After a response that leaves the connection unusable, the next request opens another."""
    async with serving(answering(piece)) as stage:
        for made in (1, 2):
            assert await stage.body() == b"hi"
            assert stage.made == made


async def test_a_response_that_is_left_is_not_read_by_the_next_request():
    """Leaving a response closes its connection, even if all of it has arrived."""
    async with serving(answering(OK)) as stage:
        async with stage.client.send("GET", "/", []):
            pass
        assert await stage.body() == b"hi"
        assert stage.made == 2


async def test_unexpected_bytes_end_an_idle_connection():
    """Unexpected bytes close an idle connection, since they could pass for the next response."""
    is_read = anyio.Event()

    async def turn(peer: Peer) -> None:
        await peer.answer(OK)
        await is_read.wait()
        await peer.send(OK)
        await peer.reader.read()

    async with serving(turn, once(OK)) as stage:
        assert await stage.body() == b"hi"
        (transport,) = stage.client._idle
        is_read.set()
        await until(lambda: not transport.is_reusable)
        assert await stage.body() == b"hi"
        assert stage.made == 2


async def test_a_connection_that_the_server_closed_is_not_used():
    """A closed idle connection is replaced, even if the request must not be sent twice."""
    async with serving(once(OK)) as stage:
        for made in (1, 2, 3):
            assert await stage.body() == b"hi"
            assert stage.made == made
            await until(lambda: not any(t.is_reusable for t in stage.client._idle))


async def test_a_stale_connection_costs_a_try():
    """A connection that closes while a request is sent is replaced by a new one."""

    async def turn(peer: Peer) -> None:
        await peer.answer(OK)
        await peer.head()
        peer.reset()

    async with serving(turn, once(OK), retries=1) as stage:
        assert await stage.body() == b"hi"
        assert await stage.body("POST", b"") == b"hi"
        assert stage.made == 2


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch):
    """An idle connection is closed after its time limit."""
    monkeypatch.setattr("anyclaude.relay.client._KEEP_IDLE_SECONDS", 0.05)

    async def turn(peer: Peer) -> bytes:
        await peer.answer(OK)
        return await peer.reader.read()

    async with serving(turn) as stage:
        assert await stage.body() == b"hi"
        assert await stage.first_result() == b""


OTHER_ADDRESS = "127.0.0.2"


@contextlib.contextmanager
def silent_server(port: int) -> Iterator[None]:
    """A server that neither accepts nor refuses connections."""
    with (
        socket.create_server((OTHER_ADDRESS, port), backlog=0) as server,
        contextlib.ExitStack() as full,
    ):
        for _ in range(4):
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield


def no_server(port: int) -> contextlib.AbstractContextManager[None]:
    """A port that refuses connections."""
    return contextlib.nullcontext()


@pytest.mark.parametrize("other", [no_server, silent_server])
async def test_a_name_of_several_addresses(monkeypatch, other):
    """If one address of a name refuses or does not respond, the next is tried."""
    if other is silent_server and sys.platform == "darwin":
        pytest.skip(f"{OTHER_ADDRESS} is no address of a Mac")
    async with serving(once(OK)) as stage:
        port = int(stage.url.rpartition(":")[2])
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))
            for host in (OTHER_ADDRESS, "127.0.0.1")
        ]

        async def addresses(*_: object, **__: object) -> object:
            return found

        monkeypatch.setattr("anyio._core._sockets.getaddrinfo", addresses)
        client = stage.other_client(base_url=f"http://several.test:{port}")
        with other(port):
            async with client.send("GET", "/", []) as response:
                assert await response.read() == b"hi"
        await client.close()
        assert stage.made == 1


async def test_a_name_is_looked_up():
    """If no address of a name responds, the request fails once."""
    async with serving(once(OK)) as stage:
        port = stage.url.rpartition(":")[2]
        client = stage.other_client(base_url=f"http://localhost:{port}")
        async with client.send("GET", "/", []) as response:
            assert await response.read() == b"hi"
        await client.close()
        nobody = stage.other_client(base_url="http://localhost:1")
        with pytest.raises(UpstreamFault, match="refuses connections"):
            async with nobody.send("GET", "/", []):
                pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_over_tls(certificate, tls):
    """Streams, large bodies and reused connections work over TLS."""
    size = 3_000_000

    async def turn(peer: Peer) -> None:
        for _ in range(2):
            await peer.head()
            body = await peer.reader.readexactly(size)
            await peer.send(CHUNKED, b"%x\r\n" % size, body, b"\r\n0\r\n\r\n")
        await peer.answer(UNTIL_CLOSE, b"abc")

    async with serving(turn, tls=tls, ca_file=str(certificate[0])) as stage:
        for _ in range(2):
            assert await stage.body("POST", b"x" * size) == b"x" * size
        assert await stage.body() == b"abc"
        assert stage.made == 1


async def test_tls_that_is_cut_off_is_no_end(certificate, tls):
    """Over TLS, only close_notify ends a body without a length."""
    is_read = anyio.Event()

    async def turn(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE, b"abc")
        await is_read.wait()
        raw = socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno()))
        with raw:
            raw.shutdown(socket.SHUT_WR)
            await peer.reader.read()

    async with (
        serving(turn, tls=tls, ca_file=str(certificate[0])) as stage,
        stage.client.send("GET", "/", []) as response,
    ):
        assert await response.next() == b"abc"
        is_read.set()
        with pytest.raises(UpstreamFault, match="broke"):
            await response.next()


async def test_a_handshake_that_hangs():
    """A TLS handshake counts towards the connect timeout; a late one closes the connection."""

    async def turn(peer: Peer) -> bytes:
        return await peer.reader.read()

    async with serving(turn, connect_timeout_seconds=0.1) as stage:
        client = stage.other_client(base_url=stage.url.replace("http:", "https:"))
        with pytest.raises(UpstreamFault, match="took no connection"):
            async with client.send("GET", "/", []):
                pass
        await stage.first_result()


PROXY = "http://user:secret@proxy.test:3128"


@pytest.mark.parametrize(
    ("base_url", "setting", "environ", "expected"),
    [
        ("https://a.test", "", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://a.test", "", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("http://a.test", "", {"HTTPS_PROXY": PROXY}, ""),
        ("http://a.test", "", {"HTTP_PROXY": "proxy.test:3128"}, "http://proxy.test:3128"),
        ("http://a.test", "", {"ALL_PROXY": PROXY}, PROXY),
        ("http://a.test", PROXY, {"HTTP_PROXY": "http://other", "NO_PROXY": "*"}, PROXY),
        ("http://a.test", "none", {"HTTP_PROXY": PROXY}, ""),
        ("http://a.test", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, ""),
        ("http://a.test", "", {"HTTP_PROXY": PROXY, "no_proxy": "b.test, A.test"}, ""),
        ("http://b.a.test", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "a.test"}, ""),
        ("http://b.a.test", "", {"HTTP_PROXY": PROXY, "NO_PROXY": ".a.test"}, ""),
        ("http://b.a.test", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "*.a.test"}, ""),
        ("http://ba.test", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "a.test"}, PROXY),
        ("http://10.1.2.3", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("http://[fd00::1]", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "[fd00::1]"}, ""),
        ("http://11.1.2.3", "", {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, PROXY),
        ("http://localhost:1", PROXY, {"HTTP_PROXY": PROXY}, ""),
        ("https://127.8.9.1", PROXY, {"ALL_PROXY": PROXY}, ""),
        ("http://[::1]:1", PROXY, {"HTTP_PROXY": PROXY}, ""),
    ],
)
def test_which_proxy(base_url, setting, environ, expected):
    """The proxy setting overrides the environment, and loopback addresses never use a proxy."""
    settings = UpstreamSettings(base_url=base_url, proxy=setting)
    assert find_proxy(settings, environ) == expected
