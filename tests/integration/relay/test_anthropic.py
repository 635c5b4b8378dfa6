"""The relay with servers of the Anthropic dialect, and bytes passed through to one."""

import base64
import json
import threading

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    STREAM,
    Pause,
    Reset,
    ScriptedUpstream,
    event,
    response,
)
from tests.models.pdf import pdf_file
from tests.models.requests import user

KEY = "sk-ant-secret-0123456789"
ASK = {"model": "claude-x", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
EVENTS = [
    {
        "type": "message_start",
        "message": {"type": "message", "content": [], "usage": {"input_tokens": 5}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]
STREAMED = b"".join(event(told, told["type"]) for told in EVENTS)
TOO_LONG = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "prompt is too long: 210000 tokens > 200000 maximum",
    },
}


def anthropic_server(request):
    """A local server that speaks both dialects."""
    match request.method, request.path.split("?")[0]:
        case "GET", "/v1/models":
            return [response(200, {"data": [{"id": "served"}]})]
        case "POST", "/v1/messages" if request.body == b"{}":
            return [response(400, {"error": {"message": "messages: field required"}})]
        case "POST", "/v1/messages":
            return [STREAM, STREAMED]
        case "POST", "/v1/messages/count_tokens":
            return [response(200, {"input_tokens": 77})]
    return [response(404, {"detail": "Not Found"})]


def relay(upstream, **settings):
    table = {"kind": "other", "base_url": upstream.base_url, **settings}
    return RelayProcess({"it": table}, {"IT_KEY": KEY})


def test_the_dialect_is_found_and_spoken():
    """A server with the Messages API gets requests in it once it was probed."""
    with ScriptedUpstream(anthropic_server) as upstream, relay(upstream) as process:
        for _ in range(2):
            assert process.message("it", ASK)["content"][0]["text"] == "Hello"
        assert process.status("it").dialect == pb.DIALECT_ANTHROPIC
        sent = upstream.posts("/v1/messages")
        assert [request.body == b"{}" for request in sent] == [True, False, False]
        assert sent[1].json["model"] == "served"
        assert sent[1].header("anthropic-version") == "2023-06-01"


def test_the_settings_bound_documents():
    """The relay reads the pages of a PDF that the settings allow."""
    data = base64.b64encode(pdf_file(("first", "second"))).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    ask = {**ASK, "messages": [user({"type": "document", "source": source})]}
    with ScriptedUpstream(anthropic_server) as upstream:
        table = {"base_url": upstream.base_url, "kind": "lmstudio", "dialect": "anthropic"}
        with RelayProcess({"it": table}, documents={"pdf_max_pages": 1}) as process:
            process.message("it", ask)
        [block] = upstream.requests[-1].json["messages"][-1]["content"]
    assert "first" in block["text"]
    assert "pages from 2 on are left out" in block["text"]


@pytest.mark.parametrize(
    ("paths", "dialect"),
    [
        ({"/v1/messages", "/v1/chat/completions"}, pb.DIALECT_OPENAI),
        ({"/v1/messages"}, pb.DIALECT_ANTHROPIC),
    ],
)
def test_vllm_gets_chat_completions(paths, dialect):
    """vLLM gets chat completions if it has them, otherwise the Messages API."""

    def script(request):
        if request.path in paths:
            return [response(400, {"error": {"message": "messages: field required"}})]
        return anthropic_server(request) if request.method == "GET" else [response(404, {})]

    with (
        ScriptedUpstream(script) as upstream,
        RelayProcess({"vllm": {"base_url": upstream.base_url}}) as process,
    ):
        assert process.status("vllm", check=True).dialect == dialect


def broken(status, body=b"Internal Server Error"):
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n"
    return [head.encode() + body]


FAILS = broken(500)
FAILS_IN_JSON = broken(500, b'{"detail": "KeyError"}')
UNFIT = [response(422, {"detail": "field required"})]
NOT_FOUND = [response(404, {"detail": "Not Found"})]
COUNTED = [response(200, {"input_tokens": 8})]


@pytest.mark.parametrize(
    ("messages", "chat", "count", "dialect"),
    [
        (FAILS, UNFIT, COUNTED, pb.DIALECT_ANTHROPIC),
        (FAILS, UNFIT, NOT_FOUND, pb.DIALECT_OPENAI),
        (FAILS, NOT_FOUND, NOT_FOUND, pb.DIALECT_ANTHROPIC),
        (FAILS, FAILS, COUNTED, pb.DIALECT_ANTHROPIC),
        (FAILS_IN_JSON, UNFIT, NOT_FOUND, pb.DIALECT_OPENAI),
        (NOT_FOUND, FAILS, NOT_FOUND, pb.DIALECT_OPENAI),
    ],
)
def test_an_endpoint_that_fails_is_no_evidence(messages, chat, count, dialect):
    """If an endpoint fails, the other is probed, and then a token count decides."""
    answers = {
        "/v1/messages": messages,
        "/v1/chat/completions": chat,
        "/v1/messages/count_tokens": count,
    }

    def script(request):
        return anthropic_server(request) if request.method == "GET" else answers[request.path]

    with ScriptedUpstream(script) as upstream, relay(upstream) as process:
        assert process.status("it", check=True).dialect == dialect


def test_the_server_counts():
    """The server's own count is exact and not marked as an estimate."""
    with ScriptedUpstream(anthropic_server) as upstream, relay(upstream) as process:
        counted = process.count("it", ASK)
        assert (counted.input_tokens, counted.is_estimate) == (77, False)


def test_a_server_that_answers_200_to_everything():
    """LM Studio's 200 for unknown paths is not mistaken for the Messages API or a count."""
    junk = {"error": "Unexpected endpoint or method. (POST /v1/messages). Returning 200 anyway"}

    def script(request):
        if request.path.startswith("/v1/messages/count"):
            return [response(200, junk)]
        return anthropic_server(request)

    with ScriptedUpstream(script) as upstream, relay(upstream) as process:
        assert process.count("it", ASK).is_estimate
    with ScriptedUpstream(lambda _: [response(200, junk)]) as upstream, relay(upstream) as process:
        with pytest.raises(ApiError) as error:
            process.message("it", ASK)
        assert (error.value.status, error.value.type) == (404, "not_found_error")
        assert process.status("it").dialect == pb.DIALECT_OPENAI


def test_another_server_at_the_same_address():
    """After a 404 the server is probed again, and its new dialect is used."""
    with ScriptedUpstream(anthropic_server) as upstream, relay(upstream) as process:
        process.message("it", ASK)

        def openai_only(request):
            if request.path == "/v1/chat/completions":
                choice = {"message": {"content": "other"}, "finish_reason": "stop"}
                return [response(200, {"choices": [choice]})]
            if request.path == "/v1/models":
                return [response(200, {"data": [{"id": "new"}]})]
            return [response(404, {"detail": "Not Found"})]

        upstream.script = openai_only
        assert process.message("it", ASK)["content"][0]["text"] == "other"
        assert process.status("it").dialect == pb.DIALECT_OPENAI


def claude(upstream, **settings):
    table = {"base_url": upstream.base_url, **settings}
    return RelayProcess({"claude": table}, {"ANTHROPIC_API_KEY": settings.pop("key", "")})


def forward(process, *body, headers=(), path="/v1/messages", query="beta=true", method="POST"):
    head = {"method": method, "path": path, "query": query}
    length = [("content-length", str(sum(map(len, body))))] if body else []
    return process.forward("claude", head, [*headers, *length], *body)


def answered(parts):
    head = parts[0].head
    return head.status, {h.name: h.value for h in head.headers}, b"".join(p.body for p in parts[1:])


def test_bytes_pass_unchanged():
    """Bodies and headers pass unchanged, except headers of the connection."""
    body = b'{ "model":"claude-x",  "odd": "\\u00e9" }'
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"request-id: req_1\r\nanthropic-ratelimit-requests-remaining: 9\r\n"
        b"Connection: close, x-hop\r\nx-hop: 1\r\n\r\n"
    )
    with ScriptedUpstream(lambda _: [answer, STREAMED]) as upstream, claude(upstream) as process:
        sent = [
            ("authorization", "Bearer client-own"),
            ("anthropic-beta", "a-1,b-2"),
            ("x-app", "cli"),
            ("accept-encoding", "gzip, br"),
            ("host", "127.0.0.1:49152"),
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("x-anyclaude-mode", "claude"),
        ]
        parts = forward(process, body[:10], body[10:], headers=sent)
        status, headers, received = answered(parts)
        assert (status, received) == (200, STREAMED)
        assert headers == {
            "content-type": "text/event-stream; charset=utf-8",
            "request-id": "req_1",
            "anthropic-ratelimit-requests-remaining": "9",
        }
        request = upstream.requests[0]
        assert (request.path, request.body) == ("/v1/messages?beta=true", body)
        names = {name.lower() for name, _ in request.headers}
        assert names == {
            *("host", "authorization", "anthropic-beta", "x-app", "accept-encoding"),
            "content-length",
        }
        assert request.header("authorization") == "Bearer client-own"
        assert request.header("host") == upstream.base_url.removeprefix("http://")


def test_errors_pass_unchanged():
    """Errors pass unchanged, since clients act on the API's own messages and headers."""
    content = json.dumps(TOO_LONG).encode()
    for code, extra in ((400, "x-should-retry: false"), (529, "retry-after: 9")):
        script = [response(code, content, extra)]
        with (
            ScriptedUpstream(lambda _, script=script: script) as upstream,
            claude(upstream) as process,
        ):
            status, headers, body = answered(forward(process, b"{}"))
            assert (status, body) == (code, content)
            name, value = extra.split(": ")
            assert headers[name] == value


def test_compressed_bytes_stay_compressed():
    """A compressed response is not decoded on the way."""
    raw = b"\x1f\x8b not really gzip"
    script = [response(200, raw, "content-encoding: gzip")]
    with ScriptedUpstream(lambda _: script) as upstream, claude(upstream) as process:
        _, headers, body = answered(forward(process, b"{}"))
        assert (headers["content-encoding"], body) == ("gzip", raw)


def test_the_configured_key_replaces_the_clients():
    """With a configured key the client's credentials are not sent; neither is logged."""
    own = [("authorization", "Bearer client-own"), ("X-Api-Key", "client-other")]
    with (
        ScriptedUpstream(anthropic_server) as upstream,
        RelayProcess(
            {"claude": {"base_url": upstream.base_url}}, {"ANTHROPIC_API_KEY": KEY}
        ) as process,
    ):
        forward(process, b'{"a": 1}', headers=own)
        request = upstream.requests[0]
        assert request.header("x-api-key") == KEY
        assert request.header("authorization") is None
        shown = process.log_text() + str(process.status("claude"))
        assert not any(secret in shown for secret in (KEY, "client-own", "client-other"))


def test_a_request_without_a_body():
    """A GET is sent without a body."""
    with ScriptedUpstream(anthropic_server) as upstream, claude(upstream) as process:
        parts = forward(process, path="/v1/models", query="limit=1000", method="GET")
        assert answered(parts)[0] == 200
        assert upstream.requests[0].header("transfer-encoding") is None
        assert upstream.requests[0].path == "/v1/models?limit=1000"


def test_pieces_pass_as_they_come():
    """The head and the first bytes are passed on before the server sends the rest."""
    go_on = threading.Event()
    script = [STREAM, b"first", Pause(go_on), b"second"]
    with ScriptedUpstream(lambda _: script) as upstream, claude(upstream) as process:
        head = pb.ForwardRequestHead(mode="claude", method="GET", path="/v1/models")
        call = process.stub.Forward(iter([pb.ForwardRequest(head=head)]), timeout=20)
        assert next(call).head.status == 200
        assert next(call).body == b"first"
        go_on.set()
        assert next(call).body == b"second"


def test_an_answer_that_breaks_off_says_so():
    """Half a body is followed by Failed, so that the front end cannot end it as complete."""
    script = [STREAM, b"half", Reset()]
    with ScriptedUpstream(lambda _: script) as upstream, claude(upstream) as process:
        parts = forward(process, b"{}")
        assert parts[-1].HasField("failed")


def test_a_server_that_is_down_is_a_failed_answer():
    """A server that is down gives no head but Failed with an error of the API."""
    with ScriptedUpstream(anthropic_server) as upstream:
        url = upstream.base_url
    with RelayProcess({"claude": {"base_url": url}}) as process:
        (part,) = forward(process, b"{}")
        assert part.failed.status == 529
        assert "refuses connections" in part.failed.message


def test_words_of_the_api_are_kept():
    """Errors of the real API keep message, type and status."""
    script = [response(400, TOO_LONG)]
    with ScriptedUpstream(lambda _: script) as upstream, claude(upstream) as process:
        with pytest.raises(ApiError) as error:
            process.message("claude", ASK)
        assert error.value.message == TOO_LONG["error"]["message"]
        assert error.value.type == "invalid_request_error"
        assert upstream.requests[0].json["model"] == "claude-x"
