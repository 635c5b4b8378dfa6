"""One front end for a module's tests; a scripted worker for each."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker


@pytest.fixture(scope="module")
def shared_front() -> Iterator[FrontendProcess]:
    """A scripted worker that dies is not replaced, so no request waits for the next one."""
    with FrontendProcess(
        accept_wait_seconds=0.3, ping_interval_seconds=0.2, worker_restart_wait_seconds=0
    ) as process:
        yield process


@pytest.fixture
def scripted() -> Iterator[ScriptedWorker]:
    with ScriptedWorker() as worker:
        yield worker


@pytest.fixture
def front(shared_front: FrontendProcess, scripted: ScriptedWorker) -> FrontendProcess:
    """The front end, its default mode routed to `scripted`."""
    shared_front.push(route(scripted.socket_path))
    return shared_front


@pytest.fixture
def client(front: FrontendProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=front.base_url, api_key="x", max_retries=0) as made:
        yield made


@pytest.fixture
def http(front: FrontendProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.base_url, timeout=30) as made:
        yield made


@pytest.fixture
def body() -> dict[str, Any]:
    """A small valid request."""
    return {
        "model": "claude-x",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "hello"}],
    }
