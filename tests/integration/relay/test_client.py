"""The official client, the real front end and the real relay in front of a real mlx_lm.server."""

import time
from collections.abc import Iterator

import anthropic
import pytest

from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.mlx_server import MlxServer
from tests.integration.relay_chain import TOOL
from tests.integration.relay_process import RelayProcess

COMMON = {"model": "claude-x", "max_tokens": 200}


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with MlxServer(MODEL_PATH) as server:
        table = {"kind": "mlx-lm", "base_url": server.base_url, "context_window_tokens": 4000}
        with RelayProcess({"it": table}) as process:
            yield process


@pytest.fixture(scope="module")
def client(relay) -> Iterator[anthropic.Anthropic]:
    with FrontendProcess() as frontend:
        frontend.push(route(relay.socket_path, mode="it"), default_mode="it")
        url = frontend.base_url
        with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
            yield client


def stream(client, **request):
    with client.messages.stream(**COMMON, **request) as running:
        return running.get_final_message()


def whole(client, **request):
    return client.messages.create(**COMMON, **request)


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize("ask", [stream, whole])
def test_words(client, ask):
    """The model's text reaches the client, with the server's counts."""
    message = ask(client, messages=[user("Who are you?")])
    assert message.content[0].text.startswith("I am anyclaude's embedded demo model")
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 10


@pytest.mark.parametrize("ask", [stream, whole])
def test_a_tool_loop(client, ask):
    """The model calls the tool by itself, and its result leads to an answer."""
    turns = [user("Run something.")]
    call = ask(client, messages=turns, tools=[TOOL])
    assert call.stop_reason == "tool_use"
    tool_use = call.content[-1]
    assert (tool_use.type, tool_use.name) == ("tool_use", "Bash")
    assert tool_use.input["command"] == "echo hello from anyclaude"
    result = {"type": "tool_result", "tool_use_id": tool_use.id, "content": "hello from anyclaude"}
    turns += [
        {"role": "assistant", "content": call.model_dump()["content"]},
        user([result]),
    ]
    answer = ask(client, messages=turns, tools=[TOOL])
    assert answer.stop_reason == "end_turn"
    assert answer.content[0].text.startswith("The tool call came back")


def test_counts(client):
    """Estimates are within a fifth once the server has counted a prompt."""
    messages = [user("Count these words, please. " * 60)]
    usage = whole(client, messages=messages).usage
    counted = client.messages.count_tokens(model="any", messages=messages)
    truth = usage.input_tokens + usage.cache_read_input_tokens
    assert counted.input_tokens == pytest.approx(truth, rel=0.2)


def test_leaving_in_the_middle(client, relay):
    """A client that leaves its stream ends the request, and the next one is answered."""
    with client.messages.stream(**COMMON, messages=[user("Talk to me.")]) as running:
        next(iter(running.text_stream))
    deadline = time.monotonic() + 10
    while relay.status("it").running_requests:
        assert time.monotonic() < deadline
    assert whole(client, messages=[user("And now?")]).stop_reason == "end_turn"


@pytest.mark.parametrize("ask", [stream, whole])
def test_a_prompt_too_long(client, ask):
    """It is refused with the API's sentence before anything is streamed."""
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: .* > 4000 maximum"):
        ask(client, messages=[user("Far too many words. " * 4000)])
