"""The whole service's errors for bad input and bad settings; it keeps running."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.messages.windows import window_problem
from tests.integration.conversation import body
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved
from tests.models.requests import BASH, user
from tests.unprivileged import bound_by_modes

_WINDOW_TOKENS: Final = 512
_LONG: Final = "the quick brown fox " * 200


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a small window, which must survive every test here."""
    model = saved.save(tmp_path_factory.mktemp("models") / "tiny", template="qwen3", endless=True)
    window = str(_WINDOW_TOKENS)
    with Service(model=model, ANYCLAUDE__MODEL__CONTEXT_WINDOW_TOKENS=window) as service:
        yield service.ready()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client; afterwards the same processes must still run."""
    before = [worker.pid for worker in service.status().workers]
    with service.http() as client:
        yield client
        assert client.get("/health/ready").status_code == 200
        assert client.post("/v1/messages", json=body(user("hi"), max_tokens=2)).status_code == 200
    assert [worker.pid for worker in service.status().workers] == before


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path for a service that does not make its own."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-") as folder:
        yield Path(folder)


def refusal(answer: httpx.Response, status: int, kind: str) -> str:
    """The message of an error in the API's envelope."""
    document = answer.json()
    assert (answer.status_code, document["error"]["type"]) == (status, kind), answer.text
    assert document["type"] == "error"
    assert document["request_id"] == answer.headers["request-id"]
    message: str = document["error"]["message"]
    return message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"model": "any", "messages": [', "not valid JSON"),
        (b"", "not valid JSON"),
        (json.dumps({"model": "any", "messages": [user("hi")]}).encode(), "max_tokens"),
        (json.dumps(body()).encode(), "messages"),
        (json.dumps(body({"role": "robot", "content": "hi"})).encode(), "messages.0.role"),
        (json.dumps(body(user("hi"), temperature=9)).encode(), "temperature"),
        (json.dumps(body(user({"text": "hi"}))).encode(), "messages.0.content"),
    ],
)
def test_a_malformed_request_is_named(http: httpx.Client, content: bytes, named: str) -> None:
    """The 400 names the part of the request that is wrong."""
    answer = http.post("/v1/messages", content=content)
    assert named in refusal(answer, 400, "invalid_request_error")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_window(http: httpx.Client, stream: bool) -> None:
    """The 400 has the sentence on which Claude Code compacts, streaming or not."""
    request = body(user(_LONG), tools=[BASH], stream=stream)
    answer = http.post("/v1/messages", json=request)
    counted = http.post(
        "/v1/messages/count_tokens",
        json={key: request[key] for key in ("model", "messages", "tools")},
    )

    message = refusal(answer, 400, "invalid_request_error")
    tokens = counted.json()["input_tokens"]
    assert tokens > _WINDOW_TOKENS
    sentence, _, advice = message.partition(". ")
    assert sentence == f"prompt is too long: {tokens} tokens > {_WINDOW_TOKENS} maximum"
    assert advice == window_problem(_WINDOW_TOKENS)


def test_an_answer_that_fills_the_window(http: httpx.Client) -> None:
    """A max_tokens beyond the window is accepted, and the answer ends with the window."""
    answer = http.post("/v1/messages", json=body(user("Talk."), max_tokens=100_000)).json()
    usage = answer["usage"]
    assert answer["stop_reason"] == "model_context_window_exceeded"
    assert sum(usage[key] for key in usage if key.endswith("_tokens")) == _WINDOW_TOKENS


def test_a_body_of_40_megabytes(http: httpx.Client) -> None:
    """The 413 names the limit, whether or not the client expects 100-continue."""
    answer = http.post("/v1/messages", json=body(user("x" * 40_000_000)))
    assert "33554432 bytes" in refusal(answer, 413, "request_too_large")


def test_an_unknown_path(http: httpx.Client) -> None:
    """An unknown path is 404 in the envelope for every method."""
    assert "/v1/complete" in refusal(http.post("/v1/complete", json={}), 404, "not_found_error")
    assert "/nothing" in refusal(http.get("/nothing"), 404, "not_found_error")


def test_an_unknown_mode(http: httpx.Client) -> None:
    """A launch with an unknown mode is refused with the known ones."""
    answer = http.post("/v1/messages", json=body(user("hi")), headers={"x-anyclaude-mode": "warp"})
    assert "mlx-lm" in refusal(answer, 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[server\nport = 1", "/config.toml is not valid TOML"),
        ("[server]\nprot = 1", "/config.toml: unknown key server.prot. Did you mean server.port?"),
        ('[cache]\nkv_bits = "many"', '/config.toml: cache.kv_bits = "many"'),
        ('mode = "warp"', 'There is no mode "warp". Known modes: mlx-lm'),
    ],
)
def test_a_broken_config(home: Path, config: str, said: str) -> None:
    """The daemon exits with 78 before it starts anything, and says what to correct."""
    (home / "config.toml").write_text(config)
    with Service(home=home) as service:
        assert service.process.wait(WAIT_SECONDS) == 78
        assert said in service.output
        assert "Traceback" not in service.output
        assert service.sockets() == []


def test_a_model_that_is_not_there_until_it_is(tmp_path: Path) -> None:
    """Each wrong folder is said with what to do, by status, wait and messages alike; the service
    lives on, and a restart of the worker takes the model that was put there meanwhile."""
    folder = tmp_path / "model"
    with Service(model=folder) as service:
        waited = service.control("wait", "--ready", "--timeout", str(WAIT_SECONDS))
        assert waited.code == 7
        assert str(folder) in waited.stderr
        given_up(service, f"There is no model at {folder}")

        folder.mkdir()
        restarted(service)
        given_up(service, f"{folder} holds no config.json")

        (folder / "config.json").write_text('{"model_type": "unheard-of"}')
        restarted(service)
        given_up(service, f"The model in {folder} cannot be loaded")

        saved.save(folder, template="qwen3")
        restarted(service)
        with service.ready().http() as http:
            answer = http.post("/v1/messages", json=body(user("hi"), max_tokens=2))
        assert answer.status_code == 200
        assert service.status().model.id == "anyclaude-model"
        assert service.stop() == 0


def restarted(service: Service) -> None:
    assert service.control("worker", "restart", "mlx").code == 0


def given_up(service: Service, why: str) -> None:
    """Waits until the worker gave up for this reason, and checks where it is shown."""
    exit_ = service.wait_worker(control_pb2.WORKER_STATE_FATAL).last_exit
    assert (exit_.code, why in exit_.reason) == (69, True), exit_.reason
    status = service.control("status", "--json")
    assert status.code == 7
    assert status.json["readiness"] == "degraded"
    (problem,) = status.json["problems"]
    assert why in problem
    assert "ANYCLAUDE_MODEL" in problem
    assert "anyclaudectl worker restart mlx" in problem
    with service.http() as http:
        answer = http.post("/v1/messages", json=body(user("hi")))
        assert http.get("/health/live").status_code == 200
    assert why in refusal(answer, 400, "invalid_request_error")
    assert answer.headers["x-should-retry"] == "false"


def test_a_model_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """The worker is started once, and status says which folder to open and how."""
    model = saved.save(tmp_path / "closed", template="qwen3")
    model.chmod(0o000)
    with Service(model=model, within=bound_by_modes) as service:
        worker = service.wait_worker(control_pb2.WORKER_STATE_FATAL)
        status = service.control("status")
        assert service.stop() == 0
    model.chmod(0o755)

    assert worker.generation == 1
    assert f"The model cannot be read: Permission denied: {model}" in worker.last_exit.reason
    assert f"chmod -R u+rX {model}" in " ".join(status.stdout.split())
