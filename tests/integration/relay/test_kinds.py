"""Each kind of server: where it reports its model, its window and its counts."""

import pytest

from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Hang,
    Reset,
    ScriptedUpstream,
    chunk,
    event,
    openai_server,
    response,
)

ASK = {"model": "claude-x", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}


def server(answers):
    """Responds to paths by a table of JSON, and otherwise like a plain OpenAI server."""
    plain = openai_server(lambda _: HELLO)

    def script(request):
        path = request.path
        return [response(200, answers[path])] if path in answers else plain(request)

    return script


def relay(name, upstream, **settings):
    return RelayProcess({name: {"base_url": upstream.base_url, "dialect": "openai", **settings}})


@pytest.mark.parametrize(
    ("kind", "answers", "model", "window"),
    [
        (
            "lmstudio",
            {
                "/api/v0/models": {
                    "data": [
                        {"id": "embed", "type": "embeddings", "state": "loaded"},
                        {"id": "cold", "type": "llm", "state": "not-loaded"},
                        {"id": "warm", "state": "loaded", "loaded_context_length": 8192},
                    ]
                }
            },
            "warm",
            8192,
        ),
        ("lmstudio", {}, "served", 4096),
        (
            "ollama",
            {"/api/ps": {"models": [{"name": "qwen3:4b", "context_length": 16384}]}},
            "qwen3:4b",
            16384,
        ),
        (
            "llama-cpp",
            {"/props": {"default_generation_settings": {"n_ctx": 2048}}},
            "served",
            2048,
        ),
        ("vllm", {}, "served", 4096),
        ("mlx-lm", {}, "default_model", 0),
    ],
)
def test_the_loaded_model_is_found(kind, answers, model, window):
    """Each kind reports models in its own place; a loaded one wins over others."""
    with ScriptedUpstream(server(answers)) as upstream, relay(kind, upstream) as process:
        status = process.status(kind, check=True)
        assert status.model.id == f"anyclaude-{model}"
        assert status.model.context_window_tokens == window
        process.message(kind, ASK)
        assert upstream.posts("/v1/chat/completions")[0].json["model"] == model


def lm_studio(**facts):
    return {"/api/v0/models": {"data": [{"id": "m", "state": "loaded", **facts}]}}


def ollama(*capabilities):
    return {"/api/ps": {"models": [{"name": "m"}]}, "/api/show": {"capabilities": capabilities}}


def llama_cpp(**facts):
    return {"/props": facts}


def openrouter(**facts):
    return {"/v1/models": {"data": [{"id": "other"}, {"id": "m", **facts}]}}


@pytest.mark.parametrize(
    ("kind", "answers", "tools", "images"),
    [
        ("lmstudio", lm_studio(type="vlm", capabilities=["tool_use"]), True, True),
        ("lmstudio", lm_studio(type="llm", capabilities=[]), False, None),
        ("lmstudio", lm_studio(type="llm"), None, None),
        ("ollama", ollama("completion", "tools"), True, False),
        ("ollama", ollama("completion", "vision"), False, True),
        ("ollama", {"/api/ps": {"models": [{"name": "m"}]}}, None, None),
        (
            "llama-cpp",
            llama_cpp(chat_template_caps={"supports_tools": True}, modalities={"vision": False}),
            True,
            False,
        ),
        ("llama-cpp", llama_cpp(chat_template_caps={"supports_tools": False}), None, None),
        (
            "openrouter",
            openrouter(
                supported_parameters=["tools", "temperature"],
                architecture={"input_modalities": ["text", "image"]},
            ),
            True,
            True,
        ),
        (
            "openrouter",
            openrouter(supported_parameters=[], architecture={"input_modalities": ["text"]}),
            False,
            False,
        ),
        ("vllm", {}, None, None),
        ("mlx-lm", {}, None, None),
    ],
)
def test_abilities_are_read_where_each_server_reports_them(kind, answers, tools, images):
    """Tools and images are each reported as yes, no or unknown."""
    named = {"model": "m"} if kind == "openrouter" else {}
    with ScriptedUpstream(server(answers)) as upstream, relay(kind, upstream, **named) as process:
        model = process.status(kind, check=True).model
        assert (model.has_tools if model.HasField("has_tools") else None) is tools
        assert (model.takes_images if model.HasField("takes_images") else None) is images


def test_settings_win_over_what_is_found():
    """Window and model from the settings win over the server's."""
    settings = {"model": "mine", "context_window_tokens": 1000}
    with (
        ScriptedUpstream(server({})) as upstream,
        relay("vllm", upstream, **settings) as process,
    ):
        process.message("vllm", ASK)
        assert [request.path for request in upstream.requests] == ["/v1/chat/completions"]
        model = process.status("vllm", check=True).model
        assert (model.id, model.context_window_tokens) == ("anyclaude-mine", 1000)


def test_openrouter_needs_a_model():
    """OpenRouter has no loaded model, so a request without one is refused."""
    with (
        ScriptedUpstream(server({})) as upstream,
        relay("openrouter", upstream) as process,
    ):
        with pytest.raises(Exception, match="OPENROUTER_MODEL"):
            process.message("openrouter", ASK)
        assert upstream.requests == []


def test_vllm_counts_by_its_tokenizer():
    """vLLM's own endpoint renders the template, so the count is exact."""
    with (
        ScriptedUpstream(server({"/tokenize": {"count": 31, "max_model_len": 4096}})) as upstream,
        relay("vllm", upstream) as process,
    ):
        tool = {"name": "Bash", "input_schema": {"type": "object"}}
        counted = process.count("vllm", {**ASK, "tools": [tool]})
        assert (counted.input_tokens, counted.is_estimate) == (31, False)
        sent = upstream.posts("/tokenize")[0].json
        assert sent["messages"] == [{"role": "user", "content": "hi"}]
        assert sent["tools"][0]["function"]["name"] == "Bash"


def test_a_missing_count_is_asked_for_once():
    """A server that cannot count is asked once, and logged once."""
    with (
        ScriptedUpstream(server({})) as upstream,
        relay("vllm", upstream) as process,
    ):
        for _ in range(3):
            assert process.count("vllm", ASK).is_estimate
        assert len(upstream.posts("/tokenize")) == 1
        assert process.log_text().count("cannot count tokens") == 1


@pytest.mark.parametrize("last", [Hang(), Reset()])
def test_an_answer_is_whole_after_its_last_word(last):
    """A response is complete after its finish reason, however the connection ends."""
    steps = [STREAM, chunk(content="Hello"), chunk("stop"), last]
    with (
        ScriptedUpstream(openai_server(lambda _: steps)) as upstream,
        relay("vllm", upstream) as process,
    ):
        message = process.message("vllm", ASK)
        assert message["content"] == [{"type": "text", "text": "Hello"}]
        assert message["stop_reason"] == "end_turn"


def test_status_probes_only_servers_on_this_machine():
    """Status probes only servers on this machine."""
    with ScriptedUpstream(server({})) as upstream:
        # 0.0.0.0 reaches this machine and is no loopback address.
        far = upstream.base_url.replace("127.0.0.1", "0.0.0.0")
        tables = {"near": {"base_url": upstream.base_url}, "far": {"base_url": far}}
        with RelayProcess(tables) as process:
            near, other = process.status("near"), process.status("far")
            assert near.reachability == pb.REACHABILITY_REACHABLE
            assert (other.reachability, other.is_loopback) == (
                pb.REACHABILITY_UNSPECIFIED,
                False,
            )


def test_an_unrelated_server_on_a_known_port_gets_one_request():
    """An unrelated web server on vLLM's usual port gets one harmless request from status."""
    with (
        ScriptedUpstream(lambda _: [response(404, b"<html>")]) as upstream,
        RelayProcess({"vllm": {"base_url": upstream.base_url}}) as process,
    ):
        process.status("vllm")
        assert {(request.method, request.path) for request in upstream.requests} == {
            ("GET", "/v1/models")
        }


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, "The model does not support image inputs"),
        (404, "No endpoints found that support image input"),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
        (422, "'messages.0.content' : value must be a string"),
    ],
)
def test_an_image_refuses_no_conversation(status, refusal):
    """A server that refuses images gets a sentence in their place, and answers."""

    def script(request):
        if "image_url" in request.body.decode():
            return [response(status, {"error": {"message": refusal}})]
        return openai_server(lambda _: HELLO)(request)

    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    seen = [{"type": "image", "source": image}, {"type": "text", "text": "What is it?"}]
    ask = {**ASK, "messages": [{"role": "user", "content": seen}]}
    with ScriptedUpstream(script) as upstream, relay("other", upstream, model="m") as process:
        assert process.message("other", ask)["stop_reason"] == "end_turn"
        refused, taken = upstream.posts("/v1/chat/completions")
        assert "image_url" in refused.body.decode()
        assert "does not see it" in taken.body.decode()


def test_a_warm_up_requests_one_token():
    """A warm-up requests one token from a local server and gives the client none."""
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 9}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {}},
        {"type": "message_stop"},
    ]
    steps = [STREAM, *(event(told, told["type"]) for told in events)]
    with (
        ScriptedUpstream(lambda _: steps) as upstream,
        relay("lmstudio", upstream, dialect="anthropic", model="m") as process,
    ):
        message = process.message("lmstudio", {**ASK, "max_tokens": 0})
        assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
        assert upstream.posts("/v1/messages")[0].json["max_tokens"] == 1
