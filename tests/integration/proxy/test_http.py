"""HTTP as clients speak it: old versions, half-closed sockets, compressed bodies, preflights."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import brotli
import httpx
import pytest

from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess
from tests.integration.scripted_worker import ScriptedWorker

PATIENCE_SECONDS = 60
STREAMED = [say.started(), say.text_start(), say.delta(text="Hello."), say.stop(), say.finished()]


def request_bytes(
    body: dict[str, Any], *, version: str = "1.1", path: str = "/v1/messages", more: str = ""
) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    return (head + more + "\r\n").encode() + content


def exchange(front: FrontendProcess, sent: bytes, *, half_close: bool = False) -> tuple[str, bytes]:
    """Everything that comes back until the server closes the connection: head and body."""
    with socket.create_connection(front.listener.getsockname(), timeout=PATIENCE_SECONDS) as client:
        client.sendall(sent)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while piece := client.recv(65536):
            received += piece
    while received.startswith(b"HTTP/1.1 100"):
        received = received.partition(b"\r\n\r\n")[2]
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode().lower(), rest


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n", "Connection: close\r\n"])
def test_http_1_0(front: FrontendProcess, body: dict[str, Any], stream: bool, more: str) -> None:
    """A response to HTTP/1.0 is not chunked and ends with its connection."""
    sent = request_bytes({**body, "stream": stream}, version="1.0", more=more)
    head, rest = exchange(front, sent)
    assert " 200 " in head
    assert "transfer-encoding" not in head
    assert "connection: close" in head
    if stream:
        assert rest.startswith(b"event: message_start")
        assert b"event: message_stop" in rest
    else:
        assert json.loads(rest)["type"] == "message"


def test_http_1_0_errors_and_probes(front: FrontendProcess) -> None:
    """Errors and bodyless responses have their length in HTTP/1.0 too."""
    head, rest = exchange(front, request_bytes({}, version="1.0"))
    assert " 400 " in head
    assert json.loads(rest)["type"] == "error"
    head, rest = exchange(front, b"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (" 200 " in head, rest) == (True, b"")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("slow", [True, False], ids=["slow", "at once"])
def test_half_closed_sockets_are_answered(
    front: FrontendProcess,
    scripted: ScriptedWorker,
    body: dict[str, Any],
    version: str,
    stream: bool,
    slow: bool,
) -> None:
    """A client that closed its sending side gets its response, however long that takes."""
    probed = threading.Event()

    def script(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        yield STREAMED[0]
        yield STREAMED[1]
        if slow:
            probed.wait(0.6)
        yield from STREAMED[2:]

    scripted.script = script
    sent = request_bytes({**body, "stream": stream}, version=version)
    head, rest = exchange(front, sent, half_close=True)
    assert " 200 " in head
    assert b"Hello." in rest
    assert not stream or b"message_stop" in rest


CODED = {"gzip": gzip.compress, "br": brotli.compress}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_compressed_bodies(
    http: httpx.Client, scripted: ScriptedWorker, body: dict[str, Any], coding: str, path: str
) -> None:
    """The worker gets a compressed body as it was before."""
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer = http.post(path, content=CODED[coding](content), headers=headers)
    assert answer.status_code == 200, answer.text
    if path == "/v1/messages":
        assert scripted.requests[-1].body_json == content


def test_a_bomb_is_refused(http: httpx.Client) -> None:
    """A small body that expands beyond the limit is a 413, and the front end goes on."""
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    answer = http.post("/v1/messages", content=bomb, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")
    assert http.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("//v1/messages", "/v1//messages", "/v1/messages/", "///v1///messages///"),
        "/v1/messages/?beta=true",
    ],
)
def test_extra_slashes(front: FrontendProcess, body: dict[str, Any], path: str) -> None:
    """A path with more slashes than it needs is served: many base URLs end in one."""
    head, _ = exchange(front, request_bytes(body, path=path, more="Connection: close\r\n"))
    assert " 200 " in head


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "app://obsidian.md"]
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens"])
def test_preflight(http: httpx.Client, body: dict[str, Any], origin: str, path: str) -> None:
    """A page of a served origin may send requests and read the responses, errors included."""
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key,anthropic-version",
        "access-control-request-private-network": "true",
    }
    allowed = http.options(path, headers=asked)
    assert (allowed.status_code, allowed.content) == (204, b"")
    assert allowed.headers["access-control-allow-origin"] == origin
    assert allowed.headers["access-control-allow-methods"] == "POST"
    assert "x-api-key" in allowed.headers["access-control-allow-headers"]
    assert allowed.headers["access-control-allow-private-network"] == "true"
    for answer in (
        http.post("/v1/messages", json=body, headers={"origin": origin}),
        http.post("/v1/messages", json={}, headers={"origin": origin}),
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
def test_preflight_of_a_foreign_origin(http: httpx.Client, origin: str) -> None:
    """A foreign page is refused without a CORS header, before it sends anything."""
    asked = {"origin": origin, "access-control-request-method": "POST"}
    refused = http.options("/v1/messages", headers=asked)
    assert refused.status_code == 403
    assert not [name for name in refused.headers if name.startswith("access-control")]


def test_streams_are_not_collected_by_proxies(http: httpx.Client, body: dict[str, Any]) -> None:
    """A stream asks proxies such as nginx to pass each event on at once."""
    assert (
        http.post("/v1/messages", json={**body, "stream": True}).headers["x-accel-buffering"]
        == "no"
    )


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("abc-123", "abc-123"),
        ("01J8ZQ:7/x=~", "01J8ZQ:7/x=~"),
        ("x" * 200, "x" * 200),
        ("x" * 201, None),
        ("two words", None),
    ],
    ids=["plain", "signs", "long", "too long", "blank"],
)
@pytest.mark.parametrize("path", ["/health/live", "/nothing"])
def test_request_ids_are_echoed(
    http: httpx.Client, given: str, echoed: str | None, path: str
) -> None:
    """The client's own request id comes back with every response, beside ours."""
    answer = http.get(path, headers={"x-request-id": given})
    assert answer.headers.get("x-request-id") == echoed
    assert answer.headers["request-id"].startswith("req_")
