"""The official client for Python reads the server's responses."""

import asyncio
from typing import Any

import anthropic
import pytest

from tests.conformance import bodies as b
from tests.conformance.endpoint import Endpoint, prompt_tokens
from tests.conformance.rows import Row, row

pytestmark = row(Row.PYTHON_SDK)

HI: list[Any] = list(b.HI)
TOOLS: list[Any] = [b.BASH]


def test_create(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """A whole answer is a Message, with its request id."""
    message = client.messages.create(model=endpoint.model, max_tokens=8, messages=HI)
    assert message.type == "message"
    assert message._request_id
    assert prompt_tokens(message.usage.to_dict()) == endpoint.count()


def test_stream(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """The text of the stream is the text of the final message."""
    with client.messages.stream(model=endpoint.model, max_tokens=24, messages=HI) as stream:
        heard = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert heard == "".join(block.text for block in final.content if block.type == "text")
    assert final.stop_reason in ("end_turn", "max_tokens")
    assert final.usage.output_tokens > 0


def test_tool_stream(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """A streamed call arrives as parsed input."""
    with client.messages.stream(
        model=endpoint.model,
        max_tokens=400,
        messages=[{"role": "user", "content": "Say hello with Bash."}],
        tools=TOOLS,
        tool_choice={"type": "any"},
    ) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    uses = [block for block in final.content if block.type == "tool_use"]
    if not uses:
        pytest.skip("the model made no call")
    assert final.stop_reason == "tool_use"
    assert snapshots[-1] == uses[-1].input


def test_beta_stream(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """The beta endpoint, with betas named, streams as well."""
    with client.beta.messages.stream(
        model=endpoint.model, max_tokens=8, messages=HI, betas=["context-management-2025-06-27"]
    ) as stream:
        assert stream.get_final_message().stop_reason


def test_async_stream(endpoint: Endpoint) -> None:
    """The asynchronous client reads several streams at once."""

    async def ask(client: anthropic.AsyncAnthropic) -> str | None:
        async with client.messages.stream(
            model=endpoint.model, max_tokens=8, messages=HI
        ) as stream:
            return (await stream.get_final_message()).stop_reason

    async def ask_all() -> list[str | None]:
        async with anthropic.AsyncAnthropic(
            base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=2, timeout=120
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(4)))

    assert set(asyncio.run(ask_all())) <= {"end_turn", "max_tokens"}


def test_leaving_a_stream(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """After a stream is left in the middle, client and server still work."""
    with client.messages.stream(model=endpoint.model, max_tokens=400, messages=HI) as stream:
        next(iter(stream))
    assert client.messages.create(model=endpoint.model, max_tokens=2, messages=HI).stop_reason


def test_count(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """Counting works with tools and system."""
    counted = client.messages.count_tokens(
        model=endpoint.model, messages=HI, system="Be brief.", tools=TOOLS
    )
    assert counted.input_tokens == endpoint.count(system="Be brief.", tools=TOOLS)


def test_models(client: anthropic.Anthropic) -> None:
    """All pages of models are listed, and each is found by id."""
    models = list(client.models.list(limit=1000))
    assert models
    assert client.models.retrieve(models[0].id).display_name == models[0].display_name


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"max_tokens": -1}, anthropic.BadRequestError),
        ({"messages": [{"role": "robot", "content": "x"}]}, anthropic.BadRequestError),
        ({"messages": []}, anthropic.BadRequestError),
    ],
    ids=["max_tokens", "role", "no messages"],
)
def test_refusal(
    client: anthropic.Anthropic,
    endpoint: Endpoint,
    fields: dict[str, Any],
    error: type[anthropic.APIStatusError],
) -> None:
    """A refusal is the exception of its status, with type and request id."""
    whole: dict[str, Any] = {"model": endpoint.model, "max_tokens": 8, "messages": HI} | fields
    with pytest.raises(error) as raised:
        client.messages.create(**whole)
    assert raised.value.request_id
    body: Any = raised.value.body
    assert body["error"]["type"] == "invalid_request_error"
    with pytest.raises(error), client.messages.stream(**whole) as stream:
        stream.get_final_message()


def test_not_found(client: anthropic.Anthropic, endpoint: Endpoint) -> None:
    """A model that does not exist is not found."""
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("no-such-model")
