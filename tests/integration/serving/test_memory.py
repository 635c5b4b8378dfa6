"""What the whole service reports about its memory."""

import psutil

from anyclaude.control.v1 import control_pb2
from tests.integration.service import Service

_REQUEST = {
    "model": "any",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "Hello"}],
}


def test_a_limit_below_one_prompt_is_reported() -> None:
    """`status` names a limit into which Claude Code's prompt does not fit."""
    with Service(ANYCLAUDE__CACHE__MEMORY_LIMIT_BYTES="1000000") as service:
        assert _prompt_problems(service.ready())


def test_a_prompt_that_fits_is_no_problem(demo: Service) -> None:
    """With the machine's default limit nothing is reported."""
    assert not _prompt_problems(demo)


def _prompt_problems(service: Service) -> list[str]:
    """The reported problems of one Claude Code prompt; the figures beside them are checked."""
    status = service.control("status", "--json")
    assert status.code == 0
    assert status.json["memory"]["prompt_bytes"] > 1_000_000
    assert status.json["memory"]["available_bytes"] > 0
    assert status.json["memory"]["footprint_bytes"] > 1_000_000
    assert status.json["memory"]["pressure"] in {"normal", "warn", "critical"}
    assert status.json["memory"]["refused_requests"] == 0
    return [problem for problem in status.json["problems"] if "one Claude Code prompt" in problem]


def test_a_model_that_does_not_fit_now_is_loaded_later() -> None:
    """While other programs use its memory, the worker waits to start again; requests get 529."""
    now = psutil.virtual_memory()
    reserve = (now.total + now.available) // 2
    with Service(
        ANYCLAUDE__MLX__MEMORY_RESERVE_BYTES=str(reserve),
        # Any death that counts would be the last, and the pause is longer than the test.
        ANYCLAUDE__SUPERVISOR__CRASH_LIMIT="1",
        ANYCLAUDE__SUPERVISOR__BACKOFF_INITIAL_SECONDS="120",
        ANYCLAUDE__SUPERVISOR__BACKOFF_MAX_SECONDS="120",
    ) as service:
        service.wait_worker(control_pb2.WORKER_STATE_BACKOFF)
        status = service.control("status", "--json")
        with service.http() as client:
            answer = client.post("/v1/messages", json=_REQUEST)
    assert status.code == 7
    (problem,) = [text for text in status.json["problems"] if "waits for memory" in text]
    assert "tries again in" in problem
    assert "GB are available" in problem
    assert answer.status_code == 529
    assert int(answer.headers["retry-after"]) >= 1


def test_a_model_that_does_not_fit_is_reported_instead_of_loaded() -> None:
    """The service keeps running and shows the numbers and what to do; overruled, it loads."""
    too_much = str(1 << 50)
    with Service(ANYCLAUDE__MLX__MEMORY_RESERVE_BYTES=too_much) as service:
        service.wait_worker(control_pb2.WORKER_STATE_FATAL)
        status = service.control("status", "--json")
    assert status.code == 7
    told = " ".join(status.json["problems"])
    assert "this machine has" in told
    assert "mlx.memory_reserve_bytes" in told
    assert "mode lmstudio" in told

    with Service(
        ANYCLAUDE__MLX__MEMORY_RESERVE_BYTES=too_much, ANYCLAUDE__MLX__MEMORY_CHECK="false"
    ) as service:
        service.ready()
