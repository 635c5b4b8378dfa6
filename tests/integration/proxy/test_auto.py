"""Mode auto in the front end: fall back before the first byte, never after it."""

from collections.abc import Iterator
from typing import Any

from anyclaude.worker.v1 import worker_pb2 as worker
from tests.integration.frontend_process import FrontendProcess, post, route
from tests.integration.scripted_worker import ScriptedWorker
from tests.worker_events import started


def refusing(status: int) -> Iterator[worker.GenerateResponse]:
    yield worker.GenerateResponse(failed=worker.Failed(status=status, message="secret words"))


def breaking() -> Iterator[worker.GenerateResponse]:
    yield started()
    yield from refusing(500)


def test_falls_back_before_the_first_byte(body: dict[str, Any]) -> None:
    """The next server of this machine responds, and the record gives the reason."""
    with ScriptedWorker(lambda _: refusing(529)) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            for stream in (False, True):
                answer = post(front, {**body, "stream": stream})
                assert (answer.status_code, answer.headers["x-anyclaude-mode"]) == (200, "lmstudio")
            record = front.next_record()
            assert record.mode == "lmstudio"
            assert "no rule" in record.route_reason
            assert "mlx-lm failed (overloaded_error)" in record.route_reason
            assert "secret" not in record.route_reason
        assert [request.mode for request in theirs.requests] == ["lmstudio", "lmstudio"]


def test_does_not_fall_back_from_an_error_of_the_request(body: dict[str, Any]) -> None:
    """An error that the request caused is sent to the client, and no other server is tried."""
    with ScriptedWorker(lambda _: refusing(400)) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            assert post(front, body).status_code == 400
        assert theirs.requests == []


def test_does_not_fall_back_after_the_first_byte(body: dict[str, Any]) -> None:
    """A stream that breaks off ends in its error; no other server continues it."""
    with ScriptedWorker(lambda _: breaking()) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            assert "event: error" in post(front, {**body, "stream": True}).text
        assert theirs.requests == []
