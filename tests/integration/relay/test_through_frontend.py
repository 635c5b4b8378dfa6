"""The official client through the real front end and the real relay, against scripted servers."""

import json

import anthropic
import openai
import pytest

from anyclaude.messages.websearch import NOT_SEARCHED
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_chain import Chain
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    STREAM,
    Reset,
    chunk,
    event,
    messages_server,
    openai_server,
    response,
)


def loop(request):
    """Calls a tool first, then responds to its result."""
    if request.json["messages"][-1]["role"] == "tool":
        usage = {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 2}}
        return [STREAM, chunk(content="It said hi."), chunk("stop"), event(usage), event("[DONE]")]
    call = {"index": 0, "id": "call_1", "function": {"name": "Bash", "arguments": '{"comm'}}
    rest = {"index": 0, "function": {"arguments": 'and": "echo hi"}'}}
    return [
        STREAM,
        chunk(reasoning_content="A tool will do."),
        chunk(tool_calls=[call]),
        chunk("tool_calls", tool_calls=[rest]),
        event("[DONE]"),
    ]


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_a_tool_loop(way):
    """The official client reads thinking, call, result and answer."""
    with Chain(openai_server(loop)) as chain:
        ask = getattr(chain, way)
        turns = [{"role": "user", "content": "Run it."}]
        call = ask(turns)
        assert call.stop_reason == "tool_use"
        thinking, tool_use = call.content
        assert (thinking.thinking, tool_use.input) == ("A tool will do.", {"command": "echo hi"})
        result = {"type": "tool_result", "tool_use_id": tool_use.id, "content": "hi"}
        turns += [
            {"role": "assistant", "content": call.model_dump()["content"]},
            {"role": "user", "content": [result]},
        ]
        answer = ask(turns)
        assert answer.content[0].text == "It said hi."
        assert (answer.stop_reason, answer.usage.input_tokens) == ("end_turn", 50)
        sent = chain.upstream.posts("/v1/chat/completions")[-1].json["messages"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "call_1"


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_a_web_search_is_not_made_up(way):
    """A server without a search tool gets no search request; the response says so."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    with Chain(openai_server(loop)) as chain:
        asked = [{"role": "user", "content": "Perform a web search for the query: x"}]
        answer = getattr(chain, way)(asked, tools=[search])
        assert answer.content[0].text == NOT_SEARCHED
        assert answer.stop_reason == "end_turn"
        assert chain.upstream.posts("/v1/chat/completions") == []


def test_a_refusal_is_a_status():
    """An error before the first byte is an HTTP error with its headers."""
    words = "This model's maximum context length is 10 tokens. However, your request has 20 input "
    refusal = response(400, {"error": {"message": words + "tokens."}})
    with Chain(openai_server(lambda _: [refusal])) as chain:
        with pytest.raises(anthropic.BadRequestError) as error:
            chain.stream([{"role": "user", "content": "hi"}])
        assert "prompt is too long: 20 tokens > 10 maximum" in str(error.value)


def test_a_break_is_an_error_event():
    """An error after the first byte is an event, and the message never looks complete."""
    with Chain(openai_server(lambda _: [STREAM, chunk(content="half"), Reset()])) as chain:
        with pytest.raises(anthropic.APIStatusError):
            chain.stream([{"role": "user", "content": "hi"}])
        record = chain.frontend.next_record()
        assert record.mode == "it"


def test_no_retry_if_the_user_must_act():
    """x-should-retry is false if the user has to act."""
    with FrontendProcess() as frontend:
        table = {"kind": "other", "dialect": "openai", "base_url": "http://nowhere.invalid:1"}
        with RelayProcess({"it": {**table, "model": "m"}}) as relay:
            frontend.push(route(relay.socket_path, mode="it"), default_mode="it")
            client = anthropic.Anthropic(base_url=frontend.base_url, api_key="any", max_retries=0)
            with client, pytest.raises(anthropic.InternalServerError) as error:
                client.messages.create(
                    model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
                )
            assert error.value.response.headers["x-should-retry"] == "false"


def test_counts():
    """count_tokens works in every mode; estimates are marked in the contract."""
    with Chain(openai_server(loop)) as chain:
        messages = [{"role": "user", "content": "hi " * 100}]
        counted = chain.client.messages.count_tokens(model="claude-x", messages=messages)
        assert 10 < counted.input_tokens < 1000
        body = json.dumps({"model": "m", "messages": messages}).encode()
        call = pb.CountTokensRequest(body_json=body, mode="it")
        assert chain.relay.stub.CountTokens(call).is_estimate


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_context_edits_are_applied_and_named(dialect):
    """The server gets what the edits leave, and the client is told which were applied."""
    message = {
        "type": "message",
        "content": [{"type": "text", "text": "Fine."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    completion = [STREAM, chunk(content="Fine."), chunk("stop"), event("[DONE]")]
    servers = {
        "openai": openai_server(lambda _: completion),
        "anthropic": messages_server(lambda _: [response(200, message)]),
    }
    turns = [{"role": "user", "content": "Look."}]
    for number in range(3):
        use = {"type": "tool_use", "id": f"toolu_{number}", "name": "Bash", "input": {}}
        output = f"output-{number} " * 50
        done = {"type": "tool_result", "tool_use_id": use["id"], "content": output}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [done]}]
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "tool_uses", "value": 2},
        "keep": {"type": "tool_uses", "value": 1},
    }
    asked = {"model": "m", "messages": turns, "context_management": {"edits": [edit]}}
    with Chain(servers[dialect], dialect=dialect) as chain:
        post = chain.client.with_options(timeout=60).post
        answer = post("/v1/messages", body={**asked, "max_tokens": 50}, cast_to=object)
        counted = post("/v1/messages/count_tokens", body=asked, cast_to=object)
        path = "/v1/messages" if dialect == "anthropic" else "/v1/chat/completions"
        sent = json.dumps(chain.upstream.posts(path)[0].json)

    assert ["output-0" in sent, "output-1" in sent, "output-2" in sent] == [False, False, True]
    (told,) = answer["context_management"]["applied_edits"]
    assert (told["type"], told["cleared_tool_uses"]) == (edit["type"], 2)
    assert told["cleared_input_tokens"] > 100
    original = counted["context_management"]["original_input_tokens"]
    assert original - counted["input_tokens"] > 100


@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
def test_a_chat_completion_is_relayed(streams):
    """OpenAI's client reads the server's call, thinking and counts; its image arrives as it was."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    words = {"type": "text", "text": "Run it."}
    tool = {"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}}
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": [words, image]}],
        "tools": [tool],
    }
    with Chain(openai_server(loop)) as chain:
        url = f"{chain.frontend.base_url}/v1"
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
            if streams:
                with client.chat.completions.stream(**asked) as running:
                    for _ in running:
                        pass
                    choice = running.get_final_completion().choices[0]
            else:
                choice = client.chat.completions.create(**asked).choices[0]
        sent = chain.upstream.posts("/v1/chat/completions")[-1].json

    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "Bash",
        {"command": "echo hi"},
    )
    assert choice.finish_reason == "tool_calls"
    assert sent["messages"][-1]["content"] == [words, image]
