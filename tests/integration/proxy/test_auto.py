"""Mode auto in the front end: fall back before the first byte, never after it."""

from collections.abc import Iterator

import httpx

from anyclaude.worker.v1 import worker_pb2 as worker
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker
from tests.worker_events import started

QUESTION = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def refusing(status: int) -> Iterator[worker.GenerateResponse]:
    yield worker.GenerateResponse(failed=worker.Failed(status=status, message="secret words"))


def breaking() -> Iterator[worker.GenerateResponse]:
    yield started()
    yield from refusing(500)


def ask(front: FrontendProcess, *, stream: bool = False) -> httpx.Response:
    return httpx.post(
        f"{front.base_url}/v1/messages", json=QUESTION | {"stream": stream}, trust_env=False
    )


def test_falls_back_before_the_first_byte() -> None:
    """The next server of this machine answers, streaming or not, and the record says why."""
    with ScriptedWorker(lambda _: refusing(529)) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            for stream in (False, True):
                answer = ask(front, stream=stream)
                assert (answer.status_code, answer.headers["x-anyclaude-mode"]) == (200, "lmstudio")
            record = front.next_record()
            assert record.mode == "lmstudio"
            assert "no rule" in record.route_reason
            assert "mlx-lm failed (overloaded_error)" in record.route_reason
            assert "secret" not in record.route_reason
        assert [request.mode for request in theirs.requests] == ["lmstudio", "lmstudio"]


def test_does_not_fall_back_from_what_the_request_is_to_blame_for() -> None:
    """A refusal of the request itself is the answer."""
    with ScriptedWorker(lambda _: refusing(400)) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            assert ask(front).status_code == 400
        assert theirs.requests == []


def test_does_not_fall_back_after_the_first_byte() -> None:
    """A stream that breaks off ends in its error; no second answer follows the first."""
    with ScriptedWorker(lambda _: breaking()) as ours, ScriptedWorker() as theirs:
        with FrontendProcess() as front:
            routes = (route(ours.socket_path), route(theirs.socket_path, mode="lmstudio"))
            front.push(*routes, default_mode="auto")
            assert "event: error" in ask(front, stream=True).text
        assert theirs.requests == []
