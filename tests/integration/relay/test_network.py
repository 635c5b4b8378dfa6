"""The relay behind forward proxies, over HTTP/2, TLS and compressed bodies, by real sockets."""

import gzip
import ssl
import time

import brotli
import pytest
from backports import zstd

from anyclaude.messages.errors import ApiError
from tests.certificates import make_certificate
from tests.integration.forward_proxy import ForwardProxy
from tests.integration.http2_upstream import Http2Response, Http2Upstream
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    HELLO,
    ScriptedUpstream,
    chunk,
    openai_server,
)

ASK = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"
USER, PASSWORD = "user%40corp", "p%3Ass"
DECODED = "user@corp:p:ss"
BODY = b"".join(HELLO[1:])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["http", "https"])
def upstream(request, certificate):
    """A server of either scheme, known as upstream.test to whoever asks the proxy."""
    tls = None
    if request.param == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    with ScriptedUpstream(openai_server(lambda _: HELLO), tls) as running:
        yield running


@pytest.fixture
def plain():
    with ScriptedUpstream(openai_server(lambda _: HELLO)) as running:
        yield running


def at(host, upstream, certificate=None, **settings):
    """Settings of a server under a name other than 127.0.0.1."""
    base_url = upstream.base_url.replace("127.0.0.1", host)
    ca_file = str(certificate[0]) if certificate else ""
    return {
        "base_url": base_url,
        "dialect": "openai",
        "model": "m",
        "ca_file": ca_file,
        "retries": 0,
        **settings,
    }


def text(relay):
    return relay.message("it", ASK)["content"][0]["text"]


@pytest.mark.parametrize("credentials", ["", f"{USER}:{PASSWORD}@"])
def test_through_the_proxy_of_the_environment(upstream, certificate, credentials):
    """The relay connects to the proxy alone, which gets its credentials; no log shows them."""
    table = at("upstream.test", upstream, certificate)
    with ForwardProxy(DECODED if credentials else "") as proxy:
        url = f"http://{credentials}{proxy.address}"
        with RelayProcess({"it": table}, {"HTTP_PROXY": url, "https_proxy": url}) as relay:
            assert text(relay) == "Hello"
            log = relay.log_text()
        port = upstream.base_url.rpartition(":")[2]
        is_tls = upstream.base_url.startswith("https")
        target = f"upstream.test:{port}"
        assert proxy.requests == [
            f"CONNECT {target}" if is_tls else f"POST http://{target}{PATH}",
        ]
    (request,) = upstream.posts(PATH)
    assert request.header("proxy-authorization") is None
    assert proxy.address in log
    assert "corp" not in log
    assert PASSWORD not in log


def test_the_proxy_of_the_settings(upstream, certificate):
    """`upstreams.NAME.proxy` wins over the environment."""
    with ForwardProxy() as proxy:
        table = at("upstream.test", upstream, certificate, proxy=f"http://{proxy.address}")
        dead = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
        with RelayProcess({"it": table}, dead) as relay:
            assert text(relay) == "Hello"
        assert len(proxy.requests) == 1


def test_a_proxy_that_refuses_the_credentials(upstream, certificate):
    """The error names the proxy and the settings to check, and shows no password."""
    table = at("upstream.test", upstream, certificate)
    with ForwardProxy("user:right") as proxy:
        url = f"http://user:wrong@{proxy.address}"
        variables = {"HTTP_PROXY": url, "HTTPS_PROXY": url}
        with RelayProcess({"it": table}, variables) as relay:
            with pytest.raises(ApiError) as error:
                text(relay)
            shown = error.value.message + relay.log_text() + str(relay.status("it"))
    assert (error.value.status, error.value.should_retry) == (500, False)
    assert f"The proxy http://***@{proxy.address}" in error.value.message
    assert "407" in error.value.message
    assert "upstreams.it.proxy" in error.value.message
    assert "wrong" not in shown
    assert upstream.requests == []


def test_a_proxy_that_is_down(plain):
    """The error says that the proxy refuses connections, not the server."""
    table = at("upstream.test", plain, proxy="http://user:secret@127.0.0.1:9")
    with RelayProcess({"it": table}) as relay, pytest.raises(ApiError) as error:
        text(relay)
    assert "The proxy http://***@127.0.0.1:9 refuses connections" in error.value.message


def test_an_exempt_server(plain):
    """A server that NO_PROXY lists is reached directly, any other through the proxy."""
    # 0.0.0.0 reaches this machine and is no loopback address.
    table = at("0.0.0.0", plain)
    with ForwardProxy() as proxy:
        variables = {"HTTP_PROXY": f"http://{proxy.address}"}
        for no_proxy, count in (("0.0.0.0", 0), ("elsewhere.test,10.0.0.0/8", 1)):
            with RelayProcess({"it": table}, {**variables, "NO_PROXY": no_proxy}) as relay:
                assert text(relay) == "Hello"
            assert len(proxy.requests) == count


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_has_no_proxy(plain, host):
    """Local requests use no proxy, whatever environment and settings contain."""
    with ForwardProxy() as proxy:
        url = f"http://{proxy.address}"
        variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), url)
        with RelayProcess({"it": at(host, plain, proxy=url)}, variables) as relay:
            assert text(relay) == "Hello"
        assert proxy.requests == []


def http2(request):
    """An HTTP/2 server that responds in pieces, each of which is a frame."""
    head = {":status": "200", "content-type": "text/event-stream"}
    return Http2Response(head, HELLO[1:])


def test_over_http2(certificate):
    """The relay uses HTTP/2 with a server that has nothing else, and reuses the connection."""
    with Http2Upstream(http2, certificate) as server:
        table = at("127.0.0.1", _Https(server), certificate)
        with RelayProcess({"it": table}) as relay:
            assert [text(relay) for _ in range(3)] == ["Hello"] * 3
            # The body's bytes, cut anywhere, arrive there as they are.
            parts = relay.forward(
                "it",
                {"method": "POST", "path": "/any"},
                [("content-length", "6"), ("X-Odd", "a")],
                b"abc",
                b"def",
            )
        assert server.connections == 1
        assert server.requests[-1].body == b"abcdef"
        assert server.requests[-1].headers["x-odd"] == "a"
        assert b"".join(part.body for part in parts) == BODY


def test_http2_through_a_proxy(certificate):
    """HTTP/2 works through the proxy's tunnel."""
    with Http2Upstream(http2, certificate) as server, ForwardProxy() as proxy:
        table = at("upstream.test", _Https(server), certificate, proxy=f"http://{proxy.address}")
        with RelayProcess({"it": table}) as relay:
            assert text(relay) == "Hello"
        assert proxy.requests == [f"CONNECT upstream.test:{server.port}"]
        assert server.requests[0].headers[":path"] == PATH


def test_cancelling_over_http2(certificate):
    """Cancelling closes the connection at once, and other requests continue."""

    def hangs(request):
        is_first = len(server.requests) == 1
        return Http2Response(
            {":status": "200", "content-type": "text/event-stream"},
            [chunk(content="a")] if is_first else HELLO[1:],
            ends=not is_first,
        )

    with Http2Upstream(hangs, certificate) as server:
        table = at("127.0.0.1", _Https(server), certificate)
        with RelayProcess({"it": table}) as relay:
            call = relay.call("it", ASK)
            assert next(call).HasField("started")
            assert text(relay) == "Hello"
            assert not server.left.is_set()
            call.cancel()
            assert server.left.wait(5)
            deadline = time.monotonic() + 5
            while relay.status("it").running_requests:
                assert time.monotonic() < deadline
            assert text(relay) == "Hello"


class _Https:
    """The address of a server, as other servers of these tests give it."""

    def __init__(self, server):
        self.base_url = f"https://127.0.0.1:{server.port}"


CODINGS = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstd.compress}


def coded_server(coding, body):
    """Responds to every generation with a body in a content coding."""
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        f"content-encoding: {coding}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return ScriptedUpstream(openai_server(lambda _: [head.encode(), body]))


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_answers(coding):
    """A generation is decoded, while Forward passes the compressed bytes on."""
    coded = CODINGS[coding](BODY)
    with (
        coded_server(coding, coded) as upstream,
        RelayProcess({"it": at("127.0.0.1", upstream)}) as relay,
    ):
        assert text(relay) == "Hello"
        head, *parts = relay.forward("it", {"method": "GET", "path": PATH}, [])
    named = {header.name.lower(): header.value for header in head.head.headers}
    assert named["content-encoding"] == coding
    assert b"".join(part.body for part in parts) == coded


@pytest.mark.parametrize("coding", CODINGS)
def test_half_a_compressed_answer(coding):
    """A compressed body that ends early is an error, even if its length is right."""
    coded = CODINGS[coding](b"".join(chunk(content=f"word {n}") for n in range(500)) + BODY)
    with (
        coded_server(coding, coded[: len(coded) // 2]) as upstream,
        RelayProcess({"it": at("127.0.0.1", upstream)}) as relay,
        pytest.raises(ApiError) as error,
    ):
        text(relay)
    assert error.value.status in (500, 529)
