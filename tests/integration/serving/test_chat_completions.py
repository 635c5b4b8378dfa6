"""Chat completions of the whole service, with OpenAI's official client and the local model."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.integration.conversation import instructions
from tests.integration.service import WAIT_SECONDS, Service

_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "Bash",
        "description": "Runs a command.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}


@pytest.fixture(scope="module")
def client(demo: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{demo.base_url}/v1",
        api_key="any",
        max_retries=0,
        timeout=WAIT_SECONDS,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        yield client


def _create(client: openai.OpenAI, messages: Any, **fields: Any) -> Any:
    asked = {"model": "any", "messages": messages, "temperature": 0, "max_tokens": 200}
    return client.chat.completions.create(**asked, **fields)


def test_models_are_listed(client: openai.OpenAI) -> None:
    """The one list serves both clients."""
    (model,) = client.models.list().data
    assert (model.object, model.owned_by) == ("model", "anyclaude")
    assert client.models.retrieve(model.id).id == model.id


def test_a_tool_loop(client: openai.OpenAI) -> None:
    """The model's call and its end arrive, whole and streamed, and its result ends the loop."""
    messages: list[Any] = [{"role": "user", "content": "Run something."}]
    whole = _create(client, messages, tools=[_TOOL])
    (call,) = whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, list(json.loads(call.function.arguments))) == ("Bash", ["command"])

    with client.chat.completions.stream(
        model="any", messages=messages, tools=[_TOOL], temperature=0, max_tokens=200
    ) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments

    messages += [
        whole.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "hello"},
    ]
    answer = _create(client, messages, tools=[_TOOL]).choices[0]
    assert answer.message.content.startswith("The tool call came back")
    assert answer.finish_reason == "stop"


def test_cached_tokens_are_reported(client: openai.OpenAI) -> None:
    """A repeated prompt comes from the cache, and the stream's last chunk says how much."""
    messages = [
        {"role": "system", "content": instructions("chat completions")},
        {"role": "user", "content": "Hello."},
    ]
    first = _create(client, messages, tools=[_TOOL]).usage
    chunks = list(
        _create(
            client, messages, tools=[_TOOL], stream=True, stream_options={"include_usage": True}
        )
    )
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert usage.prompt_tokens == first.prompt_tokens > 500
    assert usage.prompt_tokens_details.cached_tokens > 0.9 * usage.prompt_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_answer_by_a_schema(client: openai.OpenAI) -> None:
    """A JSON schema is held to, as in the Messages API."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 20}},
        "required": ["title"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema}}
    said = _create(client, [{"role": "user", "content": "A title?"}], response_format=wanted)
    assert list(json.loads(said.choices[0].message.content)) == ["title"]


def test_an_answer_that_is_cut(client: openai.OpenAI) -> None:
    """max_completion_tokens ends an answer by length."""
    said = client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "Hello, who are you?"}],
        max_completion_tokens=3,
    )
    assert said.choices[0].finish_reason == "length"
    assert said.usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 2}, "n: only one choice"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"7": 100}}, "logit_bias"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [_TOOL]}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0"),
        ({"messages": []}, "messages"),
    ],
)
def test_refusals_name_the_field(client: openai.OpenAI, fields: Any, why: str) -> None:
    """What cannot be done is a 400 in OpenAI's envelope, which the client reads."""
    asked = {"model": "any", "messages": [{"role": "user", "content": "x"}], **fields}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**asked)
    assert why in refused.value.body["message"]
    assert refused.value.type == "invalid_request_error"


def test_a_prompt_that_is_too_long(client: openai.OpenAI) -> None:
    """The code is the one by which clients shorten their conversations."""
    with pytest.raises(openai.BadRequestError) as refused:
        _create(client, [{"role": "user", "content": "word " * 200_000}])
    assert refused.value.code == "context_length_exceeded"
