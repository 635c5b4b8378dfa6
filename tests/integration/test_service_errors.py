"""Bad input and broken settings: a clear error each, and the service goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from anyclaude.control.v1 import control_pb2
from tests.integration.prompts import body
from tests.integration.service import Service
from tests.models import saved

WINDOW = 600


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The demo model behind a small window."""
    with Service(ANYCLAUDE__MODEL__CONTEXT_WINDOW_TOKENS=str(WINDOW)) as started:
        yield started.ready()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client; whatever a test sent, the service still answers afterwards."""
    with service.http() as client:
        yield client
        assert client.post("/v1/messages", json=body(sentences=0)).status_code == 200


def refusal(response: httpx.Response, status: int, error_type: str) -> str:
    """The message of an error in Anthropic's envelope."""
    assert response.status_code == status
    assert response.headers["request-id"]
    envelope = response.json()
    assert envelope["type"] == "error"
    assert envelope["error"]["type"] == error_type
    message: str = envelope["error"]["message"]
    return message


def test_malformed_json(http: httpx.Client) -> None:
    """A body that is not JSON is named as such."""
    response = http.post("/v1/messages", content=b'{"model": ')
    assert "not valid JSON" in refusal(response, 400, "invalid_request_error")


def test_missing_max_tokens(http: httpx.Client) -> None:
    """The missing field is named."""
    incomplete = body(sentences=0)
    del incomplete["max_tokens"]
    response = http.post("/v1/messages", json=incomplete)
    assert "max_tokens" in refusal(response, 400, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_window_gets_the_sentence_that_compacts(
    http: httpx.Client, stream: bool
) -> None:
    """Claude Code acts on these very words, so they come before any stream begins."""
    long = body(sentences=400, stream=stream)
    counted = {
        key: value for key, value in long.items() if key in ("model", "system", "messages", "tools")
    }
    tokens = http.post("/v1/messages/count_tokens", json=counted).json()["input_tokens"]
    message = refusal(http.post("/v1/messages", json=long), 400, "invalid_request_error")
    assert message == f"prompt is too long: {tokens} tokens > {WINDOW} maximum"


def test_a_body_of_40_mb_is_too_large(http: httpx.Client) -> None:
    """413, as an answer that the client gets to read."""
    response = http.post("/v1/messages", content=b'{"x": "' + b"a" * 40_000_000 + b'"}')
    refusal(response, 413, "request_too_large")


def test_an_unknown_path(http: httpx.Client) -> None:
    """Nothing is forwarded anywhere: what is not served is a 404."""
    refusal(http.get("/v1/files"), 404, "not_found_error")


def test_an_image_is_named(http: httpx.Client) -> None:
    """A block that a text model cannot take is refused by its place, never dropped."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
    content: Any = [{"type": "text", "text": "look"}, image]
    response = http.post("/v1/messages", json=body(content, sentences=0))
    message = refusal(response, 400, "invalid_request_error")
    assert message.startswith("messages.0.content.1: image")


def test_an_unknown_model_name_is_answered_by_the_resident_model(
    service: Service, http: httpx.Client
) -> None:
    """No name loads or unloads anything: the same process, the same model."""
    before = service.status()
    response = http.post("/v1/messages", json=body(sentences=0, model="claude-opus-99"))
    assert response.status_code == 200
    assert response.json()["model"] == "claude-opus-99"
    after = service.status()
    assert after.model == before.model
    assert [worker.pid for worker in after.workers] == [worker.pid for worker in before.workers]


def test_a_broken_setting_is_named_with_what_would_fit() -> None:
    """The daemon does not start, and says which key, from where, and the likely right one."""
    with Service(ANYCLAUDE__SERVER__PROT="1") as service:
        assert service.process.wait(30) == 78
        assert "unknown key server.prot. Did you mean server.port?" in service.output


def test_a_missing_model_is_said_and_mended_without_a_restart_of_the_daemon(
    tmp_path: Path,
) -> None:
    """Status is degraded with what to do; requests say the same; a good model brings it back."""
    missing = tmp_path / "model"
    with Service(model=missing) as service:
        worker = service.wait_worker(control_pb2.WORKER_STATE_FATAL)
        assert f"no model at {missing}" in worker.last_exit.reason
        shown = service.control("status")
        assert shown.code == 7
        assert "ANYCLAUDE_MODEL" in shown.stdout
        with service.http() as client:
            message = refusal(
                client.post("/v1/messages", json=body()), 400, "invalid_request_error"
            )
            assert "no model at" in message
            saved.save(missing)
            assert service.control("worker", "restart", "mlx").code == 0
            service.ready()
            assert client.post("/v1/messages", json=body()).status_code == 200


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    """A folder that holds something else is told apart from a missing one."""
    with Service(model=tmp_path) as service:
        worker = service.wait_worker(control_pb2.WORKER_STATE_FATAL)
        assert "holds no config.json" in worker.last_exit.reason
