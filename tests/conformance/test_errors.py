"""Errors: one envelope, the right status, and messages on which the client acts."""

import json
import re
from typing import Any

import pytest

from tests.conformance import bodies as b
from tests.conformance.endpoint import COUNT, MESSAGES, Endpoint, check_refusal
from tests.conformance.rows import Row, row

pytestmark = row(Row.ERRORS)

INVALID = (400, "invalid_request_error")
TOO_LONG = re.compile(r"prompt is too long: (\d+) tokens > (\d+) maximum")
JSON = {"content-type": "application/json"}
MEGABYTE = 1024 * 1024
MAX_BODY_BYTES = 32 * MEGABYTE


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 50_000, b"not json"),
        b'{"model": "m", "max_tokens": 1e400, "messages": []}',
    ],
    ids=["empty", "cut", "list", "null", "string", "bytes", "deep", "words", "number"],
)
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_malformed_body(endpoint: Endpoint, raw: bytes, path: str) -> None:
    """An invalid body is refused in the envelope."""
    check_refusal(endpoint.http.post(path, content=raw, headers=JSON), *INVALID)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": None},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [7]}]},
        {"messages": [{"role": "user", "content": [{"text": "no type"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
        {"model": None},
        {"model": 7},
        {"stream": "perhaps"},
        {"stop_sequences": "x"},
        {"tools": {}},
        {"tools": [{}]},
        {"system": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_field(endpoint: Endpoint, fields: dict[str, Any], stream: bool) -> None:
    """An invalid field is refused by name, before any stream begins."""
    response = endpoint.post(**({"stream": stream} | fields))
    assert next(iter(fields)) in check_refusal(response, *INVALID)


def test_request_id_in_the_envelope(endpoint: Endpoint) -> None:
    """The envelope has the same request id as the header."""
    response = endpoint.post(max_tokens=-1)
    assert response.json()["request_id"] == response.headers["request-id"]


def test_no_stack_trace(endpoint: Endpoint) -> None:
    """A refusal contains nothing of the server's code."""
    sentence = check_refusal(endpoint.post(messages=[{"role": "robot"}]), *INVALID)
    assert not re.search(r"Traceback|\.py|pydantic|httpx", sentence)


def window_of(endpoint: Endpoint) -> int:
    answer = endpoint.http.get("/v1/models").json()
    return int((answer.get("data") or [{}])[0].get("max_input_tokens") or 0)


@pytest.mark.parametrize("stream", [False, True])
def test_overflow(endpoint: Endpoint, stream: bool) -> None:
    """A prompt over the window is a 400 with the sentence on which Claude Code compacts."""
    window = window_of(endpoint)
    if not window or window > 300_000:
        pytest.skip(f"the window is {window or 'not told'}: no prompt of a test is too long for it")
    messages = [b.user("word " * (window + 100))]
    sentence = check_refusal(endpoint.post(messages=messages, stream=stream), *INVALID)
    match = TOO_LONG.fullmatch(sentence)
    assert match, sentence
    assert (int(match[1]), int(match[2])) == (endpoint.count(messages=messages), window)


def test_counting_has_no_limit(endpoint: Endpoint) -> None:
    """A prompt over the window can be counted, so that a client sees by how much."""
    window = window_of(endpoint)
    if not window or window > 300_000:
        pytest.skip(f"the window is {window or 'not told'}: no prompt of a test is too long for it")
    assert endpoint.count(messages=[b.user("word " * (window + 100))]) > window


@pytest.mark.heavy
def test_large_body(endpoint: Endpoint) -> None:
    """A body over 32 MB is a 413."""
    raw = json.dumps(endpoint.body(messages=[b.user("x" * (MAX_BODY_BYTES + MEGABYTE))])).encode()
    response = endpoint.http.post(MESSAGES, content=raw, headers=JSON)
    check_refusal(response, 413, "request_too_large")


def test_alive_after_errors(endpoint: Endpoint) -> None:
    """After all these errors the server responds as before."""
    endpoint.create()
