"""The relay with servers that refuse, hang, break off, rate-limit and send invalid data."""

import json
import socket
import threading
import time

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Hang,
    Pause,
    Reset,
    ScriptedUpstream,
    chunk,
    event,
    openai_server,
    response,
)

KEY = "sk-very-secret-key-0123456789"
ASK = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]}


def served(*steps, **settings):
    """A relay with one upstream `it`, which responds to every generation by `steps`."""
    return Served(openai_server(lambda _: steps), settings)


class Served:
    def __init__(self, script, settings):
        self.upstream = ScriptedUpstream(script)
        self._settings = {"kind": "other", "dialect": "openai", **settings}

    def __enter__(self):
        self.upstream.__enter__()
        table = {"base_url": self.upstream.base_url, **self._settings}
        self.relay = RelayProcess({"it": table}, {"IT_KEY": KEY})
        self.relay.__enter__()
        return self

    def __exit__(self, *error):
        self.relay.__exit__(*error)
        self.upstream.__exit__(*error)

    def refused(self, body=ASK):
        with pytest.raises(ApiError) as error:
            self.relay.message("it", body)
        return error.value

    def message(self, body=ASK):
        return self.relay.message("it", body)

    def generations(self):
        return self.upstream.posts("/v1/chat/completions")


def failing(body, code, *headers, **settings):
    with served(response(code, body, *headers), **settings) as it:
        return it.refused(), len(it.generations())


def test_a_server_that_is_down():
    """The client gets an error to retry, whose message says what to start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with RelayProcess({"lmstudio": {"base_url": url}}) as relay:
            with pytest.raises(ApiError) as error:
                relay.message("lmstudio", ASK)
            assert (error.value.status, error.value.type) == (529, "overloaded_error")
            assert error.value.retry_after_seconds
            assert "lms server start" in error.value.message
            assert "anyclaudectl mode mlx-lm" in error.value.message
            status = relay.status("lmstudio")
            assert status.reachability == pb.REACHABILITY_UNREACHABLE
            assert "lms server start" in status.last_error


def test_a_name_that_does_not_resolve():
    """An unknown host name is an error that is not retried."""
    table = {"base_url": "http://nowhere.invalid:1", "dialect": "openai", "model": "m"}
    with RelayProcess({"it": table}) as relay:
        with pytest.raises(ApiError) as error:
            relay.message("it", ASK)
        assert (error.value.status, error.value.should_retry) == (500, False)
        assert "does not resolve" in error.value.message


def test_an_address_that_does_not_answer():
    """Connecting is given up after two seconds by default."""
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        # The backlog has one connection that is never accepted, so the next one gets no response.
        full.listen(0)
        waiting.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        table = {"base_url": url, "dialect": "openai", "model": "m"}
        with RelayProcess({"it": table}) as relay:
            begin = time.monotonic()
            with pytest.raises(ApiError) as error:
                relay.message("it", ASK)
            assert 1.9 < time.monotonic() - begin < 30
            assert error.value.status == 529
            assert "2 s" in error.value.message


def test_the_breaker_opens_after_five_and_closes_by_itself():
    """After five failures in a row requests are refused; later one may test the server."""
    with served(response(500, {"error": "boom"}), breaker_open_seconds=3) as it:
        for _ in range(5):
            assert it.refused().status == 500
        error = it.refused()
        assert (error.status, len(it.generations())) == (529, 5)
        assert "5 times in a row" in error.message
        assert it.relay.status("it").breaker == pb.BREAKER_STATE_OPEN
        it.upstream.script = openai_server(lambda _: HELLO)
        deadline = time.monotonic() + 10
        while it.relay.status("it").breaker != pb.BREAKER_STATE_HALF_OPEN:
            assert time.monotonic() < deadline
        assert it.message()["content"][0]["text"] == "Hello"
        assert it.relay.status("it").breaker == pb.BREAKER_STATE_CLOSED


@pytest.mark.parametrize(
    ("code", "body", "expected", "words"),
    [
        (401, {"error": {"message": "bad key"}}, (401, "authentication_error"), "IT_KEY"),
        (404, {"error": {"message": "model 'x' not found"}}, (404, "not_found_error"), ".model"),
        (404, {"detail": "Not Found"}, (404, "not_found_error"), "base_url"),
        (400, {"error": {"message": "No models loaded."}}, (404, "not_found_error"), "load one"),
        (503, {"error": {"message": "Loading model"}}, (529, "overloaded_error"), "loading"),
        (503, b"<html>", (529, "overloaded_error"), "unavailable"),
        (500, {"error": "boom"}, (500, "api_error"), "boom"),
        (422, {"detail": [{"msg": "odd"}]}, (400, "invalid_request_error"), "odd"),
        (302, b"", (500, "api_error"), "base_url"),
    ],
)  # fmt: skip
def test_refusals(code, body, expected, words):
    """Each status has its error and says what to do; none is retried in vain."""
    error, tries = failing(body, code, model="x", api_key_env="IT_KEY")
    assert (error.status, error.type) == expected
    assert words in error.message
    assert tries == 1
    assert KEY not in error.message


def test_a_limit_keeps_its_wait():
    """A 429 is passed on with the server's retry-after."""
    error, _ = failing({"error": {"message": "slow down"}}, 429, "retry-after: 7")
    assert (error.status, error.type, error.retry_after_seconds) == (429, "rate_limit_error", 7)


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 7000 "
            "tokens (5000 in the messages, 2000 in the completion).",
            "prompt is too long: 5000 tokens > 4096 maximum",
        ),
        (
            500,
            "request (5000 tokens) exceeds the available context size (4096 tokens), try "
            "increasing it",
            "prompt is too long: 5000 tokens > 4096 maximum",
        ),
        (
            400,
            "This endpoint's maximum context length is 4096 tokens. However, you requested about "
            "6000 tokens (4000 of text input, 2000 in the output).",
            "input length and `max_tokens` exceed context limit: 4000 + 2000 > 4096, decrease "
            "input length or `max_tokens` and try again",
        ),
    ],
)
def test_overflow(code, message, expected):
    """A prompt that is too long gets the API's sentence, whatever status the server used."""
    error, _ = failing({"error": {"message": message}}, code)
    assert (error.status, error.type, error.message) == (400, "invalid_request_error", expected)


def test_overflow_within_the_stream():
    """LM Studio's overflow event with status 200 becomes a refusal."""
    words = (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is "
        "loaded with context length of only 4096 tokens, which is not enough."
    )
    with served(STREAM, event({"error": {"message": words}}, "error")) as it:
        assert it.refused().message == "prompt is too long: 5000 tokens > 4096 maximum"


def test_an_answer_too_long_for_the_window_is_asked_shorter():
    """If the prompt fits, the request is repeated with a smaller max_tokens."""
    words = (
        "maximum context length is 4096 tokens. However, you requested 5000 tokens (3000 in the "
        "messages, 2000 in the completion)."
    )

    def answer(request):
        if request.json["max_tokens"] == 2000:
            return [response(400, {"error": {"message": words}})]
        return [STREAM, chunk("length", content="as much as fits")]

    with Served(openai_server(answer), {}) as it:
        assert it.message()["stop_reason"] == "model_context_window_exceeded"
        assert [r.json["max_tokens"] for r in it.generations()] == [2000, 1096]


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens exceeds server limit (1000)",
        "max_tokens is too large: 2000. This model supports at most 1000 completion tokens, "
        "whereas you provided 2000.",
        "max_tokens: 2000 > 1000, which is the maximum allowed number of output tokens for m",
    ],
)
def test_the_longest_answer_of_a_server_is_learned(words):
    """The server's limit of max_tokens is learned from one refusal."""

    def answer(request):
        if request.json["max_tokens"] > 1000:
            return [response(400, {"error": {"message": words}})]
        return [STREAM, chunk("length", content="as long as it gets")]

    with Served(openai_server(answer), {}) as it:
        for _ in range(2):
            assert it.message()["stop_reason"] == "max_tokens"
        assert [r.json["max_tokens"] for r in it.generations()] == [2000, 1000, 1000]


def test_refused_fields_and_roles_are_learned():
    """A field and a role that are refused cost one repeated request each, once."""

    def answer(request):
        if "stream_options" in request.json:
            return [response(400, {"error": "Unrecognized field stream_options"})]
        if "system" in [message["role"] for message in request.json["messages"][1:]]:
            return [response(500, {"error": "System message must be at the beginning"})]
        return HELLO

    turns = [ASK["messages"][0], {"role": "assistant", "content": "a"}, ASK["messages"][0]]
    body = {**ASK, "messages": [*turns, {"role": "system", "content": "plan"}]}
    with Served(openai_server(answer), {}) as it:
        assert it.message(body)["content"][0]["text"] == "Hello"
        assert len(it.generations()) == 3
        it.message(body)
        assert len(it.generations()) == 4


def test_a_hang_before_the_head():
    """A server that sends no head is given up in time, and the connection closed."""
    with served(Hang(), first_byte_timeout_seconds=1) as it:
        error = it.refused()
        assert (error.status, error.type) == (504, "timeout_error")
        assert "first_byte_timeout_seconds" in error.message
        assert it.upstream.left.wait(5)
        assert len(it.generations()) == 1


def test_a_hang_before_the_first_word():
    """A server that sends a head and nothing more is given up as well."""
    with served(STREAM, Hang(), first_byte_timeout_seconds=0.3) as it:
        assert it.refused().status == 504


def test_a_hang_in_the_middle():
    """After the first content a shorter silence ends the response with an error."""
    with served(STREAM, chunk(content="a"), Hang(), idle_timeout_seconds=1) as it:
        error = it.refused()
        assert error.status == 504
        assert "idle_timeout_seconds" in error.message


def test_a_long_prompt_is_no_silence():
    """Before the first content the longer limit applies, even after an empty first event."""
    go_on = threading.Event()
    steps = [STREAM, chunk(role="assistant", content=""), Pause(go_on), *HELLO[1:]]
    with served(*steps, idle_timeout_seconds=2, first_byte_timeout_seconds=60) as it:
        call = it.relay.call("it", ASK)
        assert next(call).HasField("started")
        time.sleep(2.5)
        go_on.set()
        assert list(call)[-1].HasField("finished")


def test_a_body_that_cannot_be_decoded():
    """An invalid content coding fails like a broken connection."""
    script = response(200, b"not gzip", "content-encoding: gzip")
    with served(script) as it:
        assert it.refused().status == 529


def test_a_reset_before_the_first_byte_is_tried_again():
    """A request that was reset before the first byte is sent again."""
    tries = []

    def answer(_):
        tries.append(1)
        return [Reset()] if len(tries) == 1 else HELLO

    with Served(openai_server(answer), {}) as it:
        assert it.message()["content"][0]["text"] == "Hello"


def test_a_reset_after_the_first_byte_is_not_tried_again():
    """A reset after the first byte is an error: a repeated answer would run tools twice."""
    with served(STREAM, chunk(content="a"), Reset()) as it:
        assert it.refused().status in (500, 529)
        assert len(it.generations()) == 1


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([STREAM, chunk(content="a")], id="no end"),
        pytest.param([STREAM], id="nothing"),
        pytest.param([STREAM, chunk(content="a"), b'data: {"choices": [\n\n'], id="cut JSON"),
        pytest.param([response(200, b"not json")], id="not JSON"),
        pytest.param([response(200, {"ok": True})], id="another shape"),
        pytest.param([response(200, b"<html>", "content-type: text/html")], id="a page"),
        pytest.param([response(200, b"<!DOCTYPE html>")], id="a page without a label"),
        pytest.param([response(200, b"[" * 5000)], id="deep JSON"),
        pytest.param([response(200, b'{"choices": []}\n{"choices": [')], id="cut lines"),
    ],
)
def test_broken_answers_fail(steps):
    """No broken response ever looks complete."""
    with served(*steps) as it:
        error = it.refused()
        assert (error.status, error.type) == (500, "api_error")


def test_words_come_before_the_server_has_finished():
    """The first text is passed on while the server still generates."""
    go_on = threading.Event()
    steps = [STREAM, chunk(content="first"), Pause(go_on), chunk("stop", content=" second")]
    with served(*steps) as it:
        call = it.relay.call("it", ASK)
        kinds = [next(call).WhichOneof("event") for _ in range(3)]
        assert kinds == ["started", "block_start", "block_delta"]
        go_on.set()
        rest = list(call)
        assert rest[-1].finished.stop_reason == pb.STOP_REASON_END_TURN


@pytest.mark.parametrize("steps", [[Hang()], [STREAM, chunk(content="a"), Hang()]])
def test_a_cancelled_request_cancels_there(steps):
    """Cancelling closes the connection to the server at once."""
    with served(*steps) as it:
        call = it.relay.call("it", ASK)
        deadline = time.monotonic() + 10
        while not it.generations():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        call.cancel()
        assert it.upstream.left.wait(5)
        assert it.relay.status("it").breaker == pb.BREAKER_STATE_CLOSED


def test_cancelled_while_the_reader_does_not_read():
    """Cancelling also works while the client does not read."""
    flood = chunk(content="x" * 10_000)
    with served(STREAM, *[flood] * 2000, Hang()) as it:
        call = it.relay.call("it", ASK)
        next(call)
        steps = 0
        while steps != it.upstream.done_steps:
            steps = it.upstream.done_steps
            time.sleep(0.1)
        assert steps < 2000
        call.cancel()
        assert it.upstream.left.wait(5)
        deadline = time.monotonic() + 5
        while it.relay.status("it").running_requests:
            assert time.monotonic() < deadline


def test_redirects_are_not_followed():
    """A redirect is not followed, so prompt and key go only to the configured server."""
    with ScriptedUpstream(lambda _: [response(200, {})]) as elsewhere:
        target = f"location: {elsewhere.base_url}/v1/chat/completions"
        with served(response(307, b"", target), api_key_env="IT_KEY") as it:
            it.refused()
            assert elsewhere.requests == []


def test_no_proxy_of_the_environment_is_used():
    """A proxy variable does not affect requests to loopback."""
    with ScriptedUpstream(openai_server(lambda _: HELLO)) as upstream:
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}
        table = {"base_url": upstream.base_url, "dialect": "openai"}
        with RelayProcess({"it": table}, proxy) as relay:
            assert relay.message("it", ASK)["content"][0]["text"] == "Hello"


def test_the_key_is_shown_nowhere():
    """The key reaches the server and no log, error or status, even if the server repeats it."""
    body = {"error": {"message": f"the key {KEY} is not valid"}}
    with served(response(401, body), api_key_env="IT_KEY", model="m") as it:
        error = it.refused()
        it.relay.count("it", ASK)
        assert it.generations()[0].header("authorization") == f"Bearer {KEY}"
        status = it.relay.status("it")
        assert status.has_key
        assert KEY not in error.message + str(status) + it.relay.log_text()


def test_a_key_file_is_read_anew(tmp_path):
    """A replaced key works without a restart; a missing file is named."""
    file = tmp_path / "key"
    with served(*HELLO, api_key_file=str(file), model="m") as it:
        error = it.refused()
        assert error.status == 401
        assert str(file) in error.message
        for key in ("one", "two"):
            file.write_text(f"{key}\n")
            it.message()
            assert it.generations()[-1].header("authorization") == f"Bearer {key}"


def test_an_unknown_mode_is_refused_with_the_known_ones():
    """A mode without a server is an error that names the known ones."""
    with served(*HELLO) as it, pytest.raises(ApiError, match=r"upstreams\.nope\.base_url"):
        it.relay.message("nope", ASK)


def test_the_loaded_model_is_asked_for_and_shown():
    """By default the server's loaded model is requested; status shows its window."""
    with served(*HELLO) as it:
        it.message()
        assert it.generations()[0].json["model"] == "served"
        status = it.relay.status("it")
        assert (status.model.id, status.model.context_window_tokens) == ("anyclaude-served", 4096)


def test_models_are_mapped():
    """A mapping by name or pattern wins over the general model setting."""
    with served(*HELLO, model="big", models={"claude-haiku-*": "small"}) as it:
        for asked in ("claude-haiku-4-5", "claude-opus-4-1"):
            it.message({**ASK, "model": asked})
        assert [r.json["model"] for r in it.generations()] == ["small", "big"]


def test_a_check_asks_a_server_anew():
    """A check for a mode switch probes the server again."""
    with served(*HELLO) as it:
        status = it.relay.status("it", check=True)
        assert status.reachability == pb.REACHABILITY_REACHABLE
        it.upstream.close()
        status = it.relay.status("it", check=True)
        assert status.reachability == pb.REACHABILITY_UNREACHABLE
        assert "refuses connections" in status.last_error


def test_stopping_lets_answers_finish():
    """After SIGTERM the running response finishes, and the process exits with 0."""
    go_on = threading.Event()
    with served(STREAM, chunk(content="a"), Pause(go_on), chunk("stop", content="b")) as it:
        call = it.relay.call("it", ASK)
        next(call)
        it.relay.terminate()
        go_on.set()
        assert list(call)[-1].HasField("finished")
        assert it.relay.process.wait(10) == 0


def test_nothing_of_a_prompt_is_logged():
    """No error writes text of the conversation to the log."""
    words = "these words are private"
    body = {**ASK, "messages": [{"role": "user", "content": words}]}
    refusal = response(500, {"error": f"cannot render: {words}"})
    with served(refusal) as it:
        it.refused(body)
        assert words not in it.relay.log_text()
        assert json.loads(it.generations()[0].body)["messages"][0]["content"] == words
