"""Claude mode: the front end and the relay in front of a scripted Anthropic API."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import anthropic
import httpx
import pytest

from anyclaude.frontend.v1 import frontend_pb2
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    STREAM,
    Hang,
    Request,
    Reset,
    ScriptedUpstream,
    Step,
    event,
    response,
)
from tests.integration.service import Service

KEY: Final = "sk-ant-secret-of-this-test"
OWN_TOKEN: Final = "the-token-of-this-service"
# Spaces, an unknown field, a duplicate key and raw UTF-8: nothing that survives a parser.
BODY: Final = '{ "model":"claude-x",\n "max_tokens" : 5, "new":1, "new":2, "messages":"ü"}'.encode()
START: Final = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    },
}
# In the shapes of the official SDK's stream fixtures.
EVENTS: Final = [
    event(START, "message_start"),
    event({"type": "ping"}, "ping"),
    event(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    ),
    event(
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hellö"},
        },
        "content_block_delta",
    ),
    event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
    event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 6},
        },
        "message_delta",
    ),
    event({"type": "message_stop"}, "message_stop"),
]


class Chain:
    """Front end, relay, scripted API; `script` may be replaced between requests."""

    def __init__(self, stack: ExitStack, key: str = KEY, token_file: str = "") -> None:
        self.upstream = stack.enter_context(ScriptedUpstream(lambda _: [response(200, {})]))
        tables = {"claude": {"base_url": self.upstream.base_url}}
        environ = {"ANTHROPIC_API_KEY": key} if key else {}
        self.relay = stack.enter_context(RelayProcess(tables, environ))
        self.front = stack.enter_context(FrontendProcess(auth_token_file=token_file))
        taken = route(self.relay.socket_path, mode="claude")
        taken.passthrough = taken.relayed = True
        local = route("/nowhere", mode="mlx-lm")
        self.front.push(taken, local, default_mode="claude")
        self.http = stack.enter_context(
            httpx.Client(base_url=self.front.base_url, trust_env=False, timeout=20)
        )

    def answer(self, *steps: Step) -> None:
        self.upstream.script = lambda _: list(steps)

    @property
    def last(self) -> Request:
        return self.upstream.requests[-1]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with ExitStack() as stack:
        yield Chain(stack)


def test_bodies_are_the_same_bytes_both_ways(chain: Chain) -> None:
    """Both bodies pass unparsed, byte for byte."""
    odd = b'{ "a":1,\r\n"a":2, "\xc3\xbc": 1e400 }\n\n'
    chain.answer(response(200, odd, "request-id: req_theirs", "x-new: \xe9"))
    headers = {"anthropic-beta": "one-2030,two-2031", "content-type": "application/json"}
    answer = chain.http.post("/v1/messages?beta=true", content=BODY, headers=headers)

    assert chain.last.body == BODY
    assert (chain.last.method, chain.last.path) == ("POST", "/v1/messages?beta=true")
    assert chain.last.header("anthropic-beta") == "one-2030,two-2031"
    assert answer.content == odd
    assert answer.headers.get_list("request-id") == ["req_theirs"]
    assert answer.headers["x-anyclaude-mode"] == "claude"
    assert len(answer.headers.get_list("date")) == 1


def test_a_stream_is_the_same_bytes(chain: Chain) -> None:
    """A stream passes event by event, and the official client reads it."""
    chain.answer(STREAM, *EVENTS)
    answer = chain.http.post("/v1/messages", content=BODY)
    assert answer.content == b"".join(EVENTS)

    client = anthropic.Anthropic(base_url=chain.front.base_url, api_key="any", max_retries=0)
    with (
        client,
        client.messages.stream(
            model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        ) as stream,
    ):
        assert stream.get_final_message().content[0].text == "Hellö"  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [400, 401, 413, 429, 500, 529])
def test_errors_are_the_apis_own(chain: Chain, status: int) -> None:
    """Status, body and retry-after pass unchanged; the record has the type and no text."""
    words = b'{"type":"error", "error":{"type":"any_error","message":"you said: secret prompt"}}'
    chain.answer(response(status, words, "retry-after: 17", "x-should-retry: true"))
    answer = chain.http.post("/v1/messages", content=BODY)

    assert (answer.status_code, answer.content) == (status, words)
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("17", "true")
    call = chain.front.follow_records()
    records = (answer.record for answer in call)
    record = next(record for record in records if record.status == status)
    call.cancel()
    assert record.outcome == frontend_pb2.OUTCOME_FAILED
    assert record.mode == "claude"
    assert record.error_type
    assert "secret prompt" not in str(record)
    assert "secret prompt" not in chain.front.log_text()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1/models?limit=1000"),
        ("GET", "/v1/models/claude-x"),
        ("DELETE", "/v1/files/file_1"),
        ("POST", "/v1/a%2Fb/new"),
    ],
)
def test_all_of_the_api_goes_through(chain: Chain, method: str, path: str) -> None:
    """Every method and path under /v1 is forwarded, with its escapes."""
    chain.answer(response(200, b"[ ]"))
    answer = chain.http.request(method, path)
    assert (answer.status_code, answer.content) == (200, b"[ ]")
    assert (chain.last.method, chain.last.path) == (method, path)


def test_other_modes_keep_their_endpoints(chain: Chain) -> None:
    """A request that names a local mode is not forwarded to the API."""
    before = len(chain.upstream.requests)
    local = {"x-anyclaude-mode": "mlx-lm"}
    listed = chain.http.get("/v1/models", headers=local)
    unknown = chain.http.get("/v1/files", headers=local)
    wrong = chain.http.get("/v1/messages", headers=local)

    assert [model["id"] for model in listed.json()["data"]] == ["anyclaude-scripted"]
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    assert len(chain.upstream.requests) == before


def test_an_answer_that_breaks_off_breaks_the_connection(chain: Chain) -> None:
    """A stream that breaks off never looks complete."""
    chain.answer(STREAM, *EVENTS[:4], Reset())
    with pytest.raises(httpx.RemoteProtocolError):
        chain.http.post("/v1/messages", content=BODY)
    assert chain.http.get("/health/live").status_code == 200


def test_a_large_request_arrives_whole(chain: Chain) -> None:
    """A request body of many pieces arrives whole."""
    chain.answer(response(413, b'{"too": "large"}'))
    answer = chain.http.post("/v1/messages", content=b"x" * 20_000_000)
    assert (answer.status_code, answer.content) == (413, b'{"too": "large"}')
    assert len(chain.last.body) == 20_000_000


def test_a_client_that_leaves_ends_the_request(chain: Chain) -> None:
    """If the client leaves, the request to the API is closed."""
    chain.upstream.left.clear()
    chain.answer(STREAM, EVENTS[0], Hang())
    with chain.http.stream("POST", "/v1/messages", content=BODY) as answer:
        assert next(answer.iter_raw())
    assert chain.upstream.left.wait(10)


def test_the_key_is_in_no_log(chain: Chain) -> None:
    """The configured key replaces the client's, and appears only in the request."""
    chain.answer(response(200, {}))
    own = "sk-ant-of-the-client"
    chain.http.post("/v1/messages", content=BODY, headers={"x-api-key": own})

    assert chain.last.header("x-api-key") == KEY
    written = chain.front.log_text() + chain.relay.log_text()
    assert KEY not in written
    assert own not in written


def test_the_token_of_this_service_stays_here(tmp_path: Path) -> None:
    """The client's own key is forwarded, and the service's token is not."""
    file = tmp_path / "token"
    file.write_text(OWN_TOKEN)
    with ExitStack() as stack:
        chain = Chain(stack, key="", token_file=str(file))
        given = {"authorization": f"Bearer {OWN_TOKEN}", "x-api-key": "sk-mine"}
        assert chain.http.post("/v1/messages", content=BODY, headers=given).status_code == 200
        assert chain.last.header("x-api-key") == "sk-mine"
        assert chain.last.header("authorization") is None
        assert chain.http.post("/v1/messages", content=BODY).status_code == 401
        assert len(chain.upstream.requests) == 1


def test_claude_mode_of_the_whole_service() -> None:
    """One command chooses the mode; the key is in no log, status, record, setting or metric."""
    with ScriptedUpstream(lambda _: [response(200, {"data": []})]) as upstream:
        url = {"ANYCLAUDE__UPSTREAMS__CLAUDE__BASE_URL": upstream.base_url}
        with Service(ANTHROPIC_API_KEY=KEY, **url) as service:
            service.ready()
            assert upstream.posts("/v1/messages") == []
            assert service.control("mode", "claude").code == 0
            with service.http() as http:
                answer = http.post("/v1/messages", content=BODY)
            shown = [
                service.control(*words.split()).stdout
                for words in ("status --json", "mode --json", "requests --json", "config --json")
            ]
            shown.append(service.control("metrics", "--prometheus").stdout)
            requests = json.loads(shown[2])["requests"]
            logs = service.paths.log_file.read_text() + service.output

    assert answer.headers["x-anyclaude-mode"] == "claude"
    (sent,) = upstream.posts("/v1/messages")
    assert (sent.body, sent.header("x-api-key")) == (BODY, KEY)
    assert requests[0]["mode"] == "claude"
    assert 'mode="claude"' in shown[-1]
    assert not any(KEY in text for text in [*shown, logs])
