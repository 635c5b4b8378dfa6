"""Paths, refusals and access checks: every error is JSON, and every response has a request-id."""

import json
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.turnover import MAX_RETRY_AFTER_SECONDS
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker

FORTY_MEGABYTES = 40 * 1024 * 1024


def check_error(answer: httpx.Response, status: int, error_type: str) -> str:
    """Checks the error envelope; returns its message."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    envelope = answer.json()
    assert envelope["type"] == "error"
    assert envelope["error"]["type"] == error_type
    assert envelope["request_id"] == answer.headers["request-id"]
    message: str = envelope["error"]["message"]
    return message


@pytest.mark.parametrize("path", ["/", "/api/hello"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_probes(http: httpx.Client, path: str, method: str) -> None:
    """Claude Code's probe gets an empty 200."""
    answer = http.request(method, path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["request-id"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/models", "/v1/models/x"])
def test_head(http: httpx.Client, path: str) -> None:
    """HEAD has the status of GET, and no body."""
    answer = http.head(path)
    assert (answer.status_code, answer.content) == (http.get(path).status_code, b"")


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/v1/messages", b"{", {}, 400),
        ("/v1/messages", b"{}", {}, 400),
        ("/v1/messages", b"{}", {"x-anyclaude-mode": "warp"}, 400),
        ("/nothing", b"{}", {}, 404),
        ("/v1/models", b"{}", {}, 405),
        ("/v1/messages", b"{}", {"content-encoding": "lzma"}, 415),
    ],
)
def test_a_connection_lives_on_behind_an_error(
    front: FrontendProcess,
    body: dict[str, Any],
    path: str,
    content: bytes,
    headers: dict[str, str],
    status: int,
) -> None:
    """The next request on the same connection is answered."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    last = _post("/v1/messages", json.dumps(body).encode(), "Connection: close\r\n")
    received = talk(front, _post(path, content, lines) + last)
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"HTTP/1.1 200 " in received


def _post(path: str, content: bytes, lines: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    return (head + lines + "\r\n").encode() + content


def test_telemetry_is_dropped(http: httpx.Client) -> None:
    """The client's event log is accepted and dropped."""
    answer = http.post("/api/event_logging/batch", json={"events": [{}] * 1000})
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize(
    "path",
    ["/nope", "/v1", "/v1/messages/batches", "/messages", "/v1messages", "/v1/complete"],
)
def test_unknown_paths(http: httpx.Client, path: str) -> None:
    """An unknown path is a 404 and is not forwarded."""
    check_error(http.post(path, json={}), 404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/messages", "POST"), ("POST", "/v1/models", "GET"), ("OPTIONS", "/", "GET")],
)
def test_wrong_method(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    """A wrong method is 405, names the right one, and sends no CORS header."""
    answer = http.request(method, path)
    check_error(answer, 405, "invalid_request_error")
    assert allowed in answer.headers["allow"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_date(http: httpx.Client):
    """The date header has the form of RFC 9110, section 5.6.7."""
    told = http.get("/health/live").headers["date"]
    date = parsedate_to_datetime(told)
    assert format_datetime(date, usegmt=True) == told
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "Input should be an object"),
        (b'{"model": "m", "max_tokens": 1, "messages": {}}', "messages: Input should be an array"),
        (
            b'{"model": "m", "max_tokens": 1, "messages": [5]}',
            "messages.0: Input should be an object",
        ),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}', "max_tokens"),
        (b'{"model": "m", "max_tokens": 1, "messages": []}', "messages"),
        (b'{"max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}', "model"),
    ],
)
def test_bad_bodies(http: httpx.Client, content: bytes, named: str) -> None:
    """An invalid body is refused with the name of the field, and the service continues."""
    message = check_error(http.post("/v1/messages", content=content), 400, "invalid_request_error")
    assert named in message
    assert http.get("/health/live").status_code == 200


def test_large_body(http: httpx.Client, body: dict[str, Any]) -> None:
    """40 MB is a 413, on a connection that can be used again."""
    for content in (b"x" * FORTY_MEGABYTES, iter([b"x" * 1024 * 1024] * 40)):
        check_error(http.post("/v1/messages", content=content), 413, "request_too_large")
    assert http.post("/v1/messages", json=body).status_code == 200


def test_large_body_of_a_client_that_will_close(http: httpx.Client) -> None:
    """A client that asks to close gets the response before the connection ends."""
    headers = {"connection": "close"}
    answer = http.post("/v1/messages", content=b"x" * FORTY_MEGABYTES, headers=headers)
    check_error(answer, 413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/messages", "/nope"])
def test_large_body_of_a_client_that_sends_before_it_reads(
    front: FrontendProcess, path: str
) -> None:
    """A client that first sends its whole body gets the 413 and no reset."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {FORTY_MEGABYTES}\r\n"
    content = b"x" * FORTY_MEGABYTES
    received = talk(front, head.encode() + b"Connection: close\r\n\r\n" + content)
    assert received.startswith(b"HTTP/1.1 4")
    assert b'"type":"error"' in received


def test_large_body_of_a_client_that_expects_continue(front: FrontendProcess) -> None:
    """A client that expects 100-continue gets the 413 before it sends its body."""
    head = (
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 41943040\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    assert talk(front, head).startswith(b"HTTP/1.1 413")


def test_refused_before_its_body_is_read(http: httpx.Client) -> None:
    """Other refusals of a long request are received too."""
    content = b"x" * FORTY_MEGABYTES
    check_error(http.post("/nope", content=content), 404, "not_found_error")
    headers = {"origin": "https://evil.example"}
    answer = http.post("/v1/messages", content=content, headers=headers)
    check_error(answer, 403, "permission_error")


def talk(front: FrontendProcess, data: bytes) -> bytes:
    """Sends raw bytes and reads to the end of the connection, or for a second."""
    with socket.create_connection(front.listener.getsockname()) as connection:
        connection.settimeout(1)
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            pass
        return received


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: ten\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_broken_http(front: FrontendProcess, request_bytes: bytes) -> None:
    """Bytes that are not HTTP get the error envelope and a request-id."""
    head, _, content = talk(front, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"request-id: req_" in head
    assert json.loads(content)["error"]["type"] == "invalid_request_error"


def test_body_longer_than_declared(front: FrontendProcess, body: dict[str, Any]) -> None:
    """Bytes beyond Content-Length are not read as part of the body."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    received = talk(front, head.encode() + content + b"x" * 1000 + b"\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in received


def test_another_protocol_is_declined(front: FrontendProcess, body: dict[str, Any]) -> None:
    """A request that offers another protocol is served whole, and so is the next one."""
    content = json.dumps(body).encode()
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    first = f"GET /health/live HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n"
    second = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}"
    received = talk(front, f"{first}{second}\r\n{offer}\r\n".encode() + content + first.encode())
    assert received.count(b"HTTP/1.1 200") == 3
    assert b"Hello there" in received


def test_trailers_are_not_headers(front: FrontendProcess, body: dict[str, Any]) -> None:
    """A mode in the trailers of a chunked body is ignored."""
    content = json.dumps(body).encode()
    received = talk(
        front,
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(content):x}\r\n".encode()
        + content
        + b"\r\n0\r\nx-anyclaude-mode: nonsense\r\n\r\n",
    )
    assert received.startswith(b"HTTP/1.1 200")


def test_requests_in_a_row(front: FrontendProcess, body: dict[str, Any]) -> None:
    """Pipelined requests are served one after the other."""
    content = json.dumps(body).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}"
    received = talk(front, (head.encode() + b"\r\n\r\n" + content) * 3)
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.count(b"Hello there") == 3


def test_foreign_host(http: httpx.Client) -> None:
    """A host name that is rebound to this machine is refused."""
    answer = http.get("/", headers={"host": "evil.example"})
    check_error(answer, 403, "permission_error")


def test_foreign_origin(http: httpx.Client, body: dict[str, Any]) -> None:
    """A web page of another origin is refused."""
    answer = http.post("/v1/messages", json=body, headers={"origin": "https://evil.example"})
    check_error(answer, 403, "permission_error")


def test_health(front: FrontendProcess, scripted: ScriptedWorker, http: httpx.Client) -> None:
    """`live` shows that the process responds, `ready` whether the default mode does."""
    assert http.get("/health/live").json() == {"status": "live"}
    assert http.get("/health/ready").json() == {"status": "ready", "mode": "mlx-lm"}
    front.push(route(state=frontend.ROUTE_STATE_STARTING, reason="The model is loading."))
    answer = http.get("/health/ready")
    assert check_error(answer, 503, "overloaded_error") == "The model is loading."
    assert http.get("/health/live").status_code == 200


def test_metrics_without_the_daemon(http: httpx.Client) -> None:
    """Without the daemon metrics are 503, and messages still work."""
    message = check_error(http.get("/metrics"), 503, "api_error")
    assert "anyclaudectl" in message


def test_token(scripted: ScriptedWorker, body: dict[str, Any], tmp_path: Path) -> None:
    """With a token file only probes work without the token, and it is never logged."""
    file = tmp_path / "token"
    file.write_text("open-sesame\n")
    with (
        FrontendProcess(auth_token_file=str(file)) as front,
        httpx.Client(base_url=front.base_url) as http,
    ):
        front.push(route(scripted.socket_path))
        check_error(http.post("/v1/messages", json=body), 401, "authentication_error")
        check_error(http.get("/metrics"), 401, "authentication_error")
        assert http.get("/health/ready").status_code == 200
        for headers in ({"authorization": "Bearer open-sesame"}, {"x-api-key": "open-sesame"}):
            assert http.post("/v1/messages", json=body, headers=headers).status_code == 200
        assert "open-sesame" not in front.log_text()


def test_unusable_token_file(tmp_path: Path) -> None:
    """A missing token file stops the start with the reason."""
    process = FrontendProcess(auth_token_file=str(tmp_path / "missing"))
    try:
        assert "auth_token_file" in process.notice()["failed"]
        assert process.process.wait(10) == 78
    finally:
        process.__exit__()


def test_too_many_requests(scripted: ScriptedWorker, body: dict[str, Any]) -> None:
    """Requests beyond server.max_requests get 529."""
    with FrontendProcess(max_requests=1, accept_wait_seconds=60) as front:
        front.push(route(state=frontend.ROUTE_STATE_STARTING))
        with socket.create_connection(front.listener.getsockname()) as waiting:
            content = json.dumps(body).encode()
            waiting.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(content), content[:-1])
            )
            with httpx.Client(base_url=front.base_url) as http:
                # The slot is used as soon as the head is read, which no response shows.
                while (answer := http.post("/v1/messages", content=b"{")).status_code == 400:
                    pass
                check_error(answer, 529, "overloaded_error")
                assert 1 <= int(answer.headers["retry-after"]) <= MAX_RETRY_AFTER_SECONDS
            waiting.sendall(content[-1:])
            front.push(route(scripted.socket_path))
            assert waiting.recv(65536).startswith(b"HTTP/1.1 200")


def test_errors_of_chat_completions(front: FrontendProcess, http: httpx.Client) -> None:
    """Whatever part of the service refuses one, the error has OpenAI's envelope."""
    path = "/v1/chat/completions"
    refused = [
        http.get(path),
        http.post(path, content=b"{"),
        http.post(path, json={}),
        http.post(path, json={}, headers={"host": "example.org"}),
        http.post(path + "/", json={}, headers={"content-encoding": "compress"}),
    ]
    assert [answer.status_code for answer in refused] == [405, 400, 400, 403, 415]
    for answer in refused:
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}


def test_chat_completions_share_the_limits(tmp_path: Path) -> None:
    """The token and the memory of all bodies count for them as for Messages requests."""
    file = tmp_path / "token"
    file.write_text("open-sesame")
    limits = {"body_memory_bytes": 1024, "body_wait_seconds": 0.2, "small_body_bytes": 0}
    with FrontendProcess(auth_token_file=str(file), **limits) as front:
        head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2048\r\n"
        with (
            socket.create_connection(front.listener.getsockname()) as other,
            httpx.Client(base_url=front.base_url) as http,
        ):
            other.sendall(f"{head}x-api-key: open-sesame\r\n\r\n".encode())
            url = "/v1/chat/completions"
            assert http.post(url, content=b"{").json()["error"]["type"] == "authentication_error"
            key = {"authorization": "Bearer open-sesame"}
            while (answer := http.post(url, content=b"{", headers=key)).status_code == 400:
                pass
    assert answer.status_code == 529
    assert "server.body_memory_bytes" in answer.json()["error"]["message"]
