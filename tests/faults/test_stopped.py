"""What the daemon does about a child that is stopped or stuck, while it still exists."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import httpx
import pytest

from anyclaude.control.v1 import control_pb2
from tests.figures import FIGURES, RecordProperty
from tests.integration.conversation import body
from tests.integration.daemon_process import DaemonProcess
from tests.integration.scripted_upstream import HELLO, ScriptedUpstream, openai_server
from tests.integration.service import WAIT_SECONDS, Service, worker_of
from tests.models.requests import user

_BUDGET_SECONDS: Final = 5
_BUDGETS: Final = {
    "ANYCLAUDE__SUPERVISOR__LOOP_TIMEOUT_SECONDS": str(_BUDGET_SECONDS),
    "ANYCLAUDE__SUPERVISOR__DECODE_TURN_TIMEOUT_SECONDS": str(_BUDGET_SECONDS),
}
# By which a busy machine may delay the daemon itself.
_SLACK_SECONDS: Final = 5.0


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service with a local model and one other server."""
    with (
        ScriptedUpstream(openai_server(lambda _: HELLO)) as upstream,
        Service(LMSTUDIO_URL=upstream.base_url, **_BUDGETS) as service,
    ):
        yield service.ready()


@pytest.mark.parametrize(
    ("name", "mode"), [("mlx", "mlx-lm"), ("relay", "lmstudio"), ("frontend", "mlx-lm")]
)
def test_a_stopped_child_is_replaced_and_the_request_completes(
    service: Service, name: str, mode: str, record_property: RecordProperty
) -> None:
    """The status names it within its budget, its stack is in the log, and the answer comes."""
    before = service.wait_ready()
    child = worker_of(before, name)
    with ThreadPoolExecutor(1) as pool, service.http() as http:
        os.kill(child.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        answer = pool.submit(_ask, http, mode)
        seen = service.wait_for(lambda status: worker_of(status, name).state in _ENDING)
        noticed_seconds = time.monotonic() - stopped
        assert seen.readiness == control_pb2.READINESS_DEGRADED
        assert any(f"The {name} worker" in problem for problem in seen.problems)
        assert _status_of(answer) == 200
        answered_seconds = time.monotonic() - stopped
    assert noticed_seconds < _BUDGET_SECONDS + _SLACK_SECONDS
    after = service.wait_worker(control_pb2.WORKER_STATE_READY, name, child.generation + 1)
    assert after.last_exit.reason == f"its event loop did not run for {_BUDGET_SECONDS} s"
    assert "most recent call first" in after.last_exit.stderr_tail
    record_property(
        FIGURES,
        f"{name} stopped: noticed after {noticed_seconds:.1f} s (budget {_BUDGET_SECONDS} s), "
        f"request answered after {answered_seconds:.1f} s",
    )


def test_a_stopped_daemon_ends_no_child(service: Service) -> None:
    """After it continues, the budgets start again; no child is replaced."""
    before = {worker.name: worker.pid for worker in service.wait_ready().workers}
    service.process.send_signal(signal.SIGSTOP)
    time.sleep(2 * _BUDGET_SECONDS)
    service.process.send_signal(signal.SIGCONT)
    checks = time.monotonic() + 2 * _BUDGET_SECONDS
    while time.monotonic() < checks:
        assert {worker.name: worker.pid for worker in service.status().workers} == before
        time.sleep(0.5)


def test_a_stuck_worker_is_noticed_although_its_sockets_answer() -> None:
    """A decode step without end ends the worker, and the reason names the phase."""
    with DaemonProcess("stuck", **_BUDGETS) as daemon:
        worker = daemon.wait_worker(control_pb2.WORKER_STATE_READY, generation=2)
        why = f"no progress for {_BUDGET_SECONDS} s in phase decode"
        assert (worker.last_exit.reason, worker.last_exit.signal) == (why, "SIGABRT")
        assert "child makes no progress" in daemon.output


_ENDING: Final = (control_pb2.WORKER_STATE_ABORTING, control_pb2.WORKER_STATE_BACKOFF)


def _ask(http: httpx.Client, mode: str) -> httpx.Response:
    request: dict[str, Any] = body(user("Say hello."), max_tokens=4)
    return http.post("/v1/messages", json=request, headers={"x-anyclaude-mode": mode})


def _status_of(answer: Future[httpx.Response]) -> int:
    return answer.result(WAIT_SECONDS).status_code
