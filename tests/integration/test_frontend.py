"""The front end's answers, over real processes and sockets, by the official client."""

from collections.abc import Iterator

import anthropic
import pytest

from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker


@pytest.fixture
def scripted() -> Iterator[ScriptedWorker]:
    with ScriptedWorker() as worker:
        yield worker


@pytest.fixture
def front(scripted: ScriptedWorker) -> Iterator[FrontendProcess]:
    with FrontendProcess() as process:
        process.push(route(scripted.socket_path))
        yield process


@pytest.fixture
def client(front: FrontendProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=front.base_url, api_key="x", max_retries=0) as made:
        yield made


HELLO = [{"role": "user", "content": "hello"}]


def test_whole_answer(client: anthropic.Anthropic) -> None:
    """A non-streaming request gets the content and the worker's own token counts."""
    message = client.messages.create(model="claude-x", max_tokens=10, messages=HELLO)
    assert message.content[0].text == "Hello there"
    assert message.model == "claude-x"
    assert message.usage.cache_read_input_tokens == 90


def test_streamed_answer(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="claude-x", max_tokens=10, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "Hello there"
