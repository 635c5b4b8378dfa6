"""Switching the mode of a real service: under load, back again, and to a server that is down."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.conversation import Talker, arguments, body, instructions, prompt_tokens
from tests.integration.conversation import text_of as said
from tests.integration.mlx_server import MlxServer
from tests.integration.scripted_upstream import (
    Pause,
    Request,
    ScriptedUpstream,
    Step,
    response,
)
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved
from tests.models.requests import BASH, assistant, user

_MODE: Final = "x-anyclaude-mode"
_STREAMS: Final = 8
_ROUNDS: Final = 20


@pytest.fixture(scope="module")
def server() -> Iterator[MlxServer]:
    """A real server of the user."""
    with MlxServer(MODEL_PATH) as server:
        yield server


@pytest.fixture(scope="module")
def service(server: MlxServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Our own worker with an endless model, and a server in LM Studio's place."""
    model = saved.save(tmp_path_factory.mktemp("models") / "tiny", endless=True)
    with Service(
        model=model,
        LMSTUDIO_URL=server.base_url,
        LMSTUDIO_MODEL="default_model",
        ANYCLAUDE__MLX__MAX_RUNNING_REQUESTS="16",
        ANYCLAUDE__UPSTREAMS__AWAY__BASE_URL="http://127.0.0.1:9",
    ) as service:
        yield service.ready()


def switch(service: Service, mode: str) -> control_pb2.SetModeResponse:
    answer: control_pb2.SetModeResponse = service.stub("ModeService").SetMode(
        control_pb2.SetModeRequest(mode=mode)
    )
    return answer


@dataclass(frozen=True)
class Stream:
    mode: str
    began: float
    ended: float


class Load:
    """A number of concurrent endless streams, each read to its last event."""

    def __init__(self, service: Service, count: int) -> None:
        self._service = service
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self.streams: list[Stream] = []
        self._running: list[Future[None]] = [
            self._pool.submit(self._talk, number) for number in range(count)
        ]

    def _talk(self, number: int) -> None:
        with Talker(self._service, f"load-{number}") as talker:
            while not self._stop.is_set():
                began = time.monotonic()
                question = arguments(user(f"Number {number}."), max_tokens=60)
                with talker.messages.stream(**question) as stream:
                    answer = stream.get_final_message()
                    mode = stream.response.headers[_MODE]
                assert answer.stop_reason in ("end_turn", "max_tokens")
                assert said(answer)
                self.streams.append(Stream(mode, began, time.monotonic()))

    def wait_for(self, count: int) -> None:
        """Waits until so many more streams have ended, or one has failed."""
        end, deadline = len(self.streams) + count, time.monotonic() + WAIT_SECONDS
        while len(self.streams) < end and not any(f.done() for f in self._running):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def finish(self) -> list[Stream]:
        """Lets the running ones end.

        Raises:
            Exception: whatever a stream failed with.
        """
        self._stop.set()
        self._pool.shutdown()
        for running in self._running:
            running.result()
        return self.streams


@pytest.mark.slow(40)
def test_nothing_breaks_while_the_mode_changes(service: Service) -> None:
    """Streams end on their server, none fails, and requests after a switch get its mode."""
    pid = service.worker().pid
    load = Load(service, _STREAMS)
    switched: list[float] = []
    with service.http() as http:
        load.wait_for(_STREAMS)
        for number in range(_ROUNDS):
            mode = ("lmstudio", "mlx-lm")[number % 2]
            assert switch(service, mode).mode == mode
            switched.append(time.monotonic())
            answer = http.post("/v1/messages", json=body(user("And now?"), max_tokens=1))
            assert (answer.status_code, answer.headers[_MODE]) == (200, mode)
            load.wait_for(2)
        streams = load.finish()

    crossing = [
        stream for stream in streams if any(stream.began < at < stream.ended for at in switched)
    ]
    assert {stream.mode for stream in streams} == {"mlx-lm", "lmstudio"}
    assert len([stream for stream in crossing if stream.mode == "mlx-lm"]) >= _STREAMS
    assert service.worker().pid == pid
    assert service.worker("relay").restart_count == 0


def test_a_conversation_goes_on_where_it_was(service: Service) -> None:
    """After a switch to another server and back, all earlier tokens are reused."""
    pid = service.worker().pid
    fields: dict[str, Any] = {"system": instructions("Detour"), "tools": [BASH]}
    turns = [user("What is in here?")]
    with Talker(service, "detour") as talker:
        first = talker.ask(*turns, **fields)
        switch(service, "lmstudio")
        turns += [assistant(said(first)), user("And there?")]
        away = talker.ask(*turns, **fields)
        switch(service, "mlx-lm")
        turns += [assistant(said(away)), user("And here again?")]
        back = talker.ask(*turns, **fields)

    # The answer's text need not encode to the tokens it was sampled as, so only the prompt counts.
    assert (back.usage.cache_read_input_tokens or 0) >= prompt_tokens(first) - 8
    assert service.worker().pid == pid


def test_a_server_that_is_away_changes_nothing(service: Service) -> None:
    """Exit 5 with the reason, or 6 after waiting; the old mode still responds."""
    refused = service.control("mode", "away")
    waited = service.control("mode", "away", "--wait", "--timeout", "0.5")

    assert refused.code == 5
    assert "stays mlx-lm" in refused.stderr
    assert "127.0.0.1:9" in refused.stderr
    assert waited.code == 6
    assert service.status().mode == "mlx-lm"
    with service.http() as http:
        assert http.post("/v1/messages", json=body(user("hi"))).headers[_MODE] == "mlx-lm"


def test_auto_mode_says_why(service: Service) -> None:
    """The header names the mode that responded, the record the rule that chose it."""
    assert switch(service, "auto").mode == "auto"
    with service.http() as http:
        answer = http.post("/v1/messages", json=body(user("hi"), max_tokens=4))
    record = service.control("requests", "-n", "1", "--json").json["requests"][0]
    status = service.status()
    switch(service, "mlx-lm")

    assert answer.headers[_MODE] == "mlx-lm"
    assert record["mode"] == "mlx-lm"
    assert "servers of this machine" in record["route_reason"]
    assert (status.mode, status.readiness) == ("auto", control_pb2.READINESS_READY)
    assert status.model.id


def test_two_terminals_can_differ(service: Service) -> None:
    """A launch's mode header wins over the service's mode."""
    question = body(user("hi"), max_tokens=4)
    with service.http() as http:
        modes = [
            http.post("/v1/messages", json=question, headers={_MODE: mode}).headers[_MODE]
            for mode in ("lmstudio", "mlx-lm", "lmstudio")
        ]
        unknown = http.post("/v1/messages", json=question, headers={_MODE: "warp"})

    assert modes == ["lmstudio", "mlx-lm", "lmstudio"]
    assert unknown.status_code == 400
    assert service.status().mode == "mlx-lm"


def test_the_modes_are_shown_with_what_they_are_for(service: Service) -> None:
    """Each mode has a description, and is ready or says why not."""
    document = service.control("mode", "--json").json
    modes = {mode["name"]: mode for mode in document["modes"]}

    assert document["mode"] == "mlx-lm"
    assert modes["lmstudio"]["ready"]
    assert modes["mlx-lm"]["ready"]
    assert not modes["away"]["ready"]
    assert "127.0.0.1:9" in modes["away"]["reason"]
    assert not modes["openrouter"]["ready"]
    assert "OPENROUTER_API_KEY" in modes["openrouter"]["reason"]
    assert "leave this machine" in modes["claude"]["description"]


def test_one_change_at_a_time(service: Service) -> None:
    """While one change waits for its server, a second is refused."""
    asked, answer = threading.Event(), threading.Event()

    def script(request: Request) -> list[Step]:
        asked.set()
        return [Pause(answer), response(200, {"data": [{"id": "slow"}]})]

    with ScriptedUpstream(script) as upstream:
        url = {"ANYCLAUDE__UPSTREAMS__SLOW__BASE_URL": upstream.base_url}
        # The daemon's own status calls must not be the ones that wait.
        with Service(ANYCLAUDE__UPSTREAMS__SLOW__DIALECT="openai", **url) as slow:
            slow.ready()
            asked.clear()
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(switch, slow, "slow")
                assert asked.wait(WAIT_SECONDS)
                with pytest.raises(grpc.RpcError) as second:
                    switch(slow, "mlx-lm")
                answer.set()
                assert first.result().mode == "slow"
            assert slow.stop() == 0
            assert "slow" in slow.paths.mode_file.read_text()

    assert second.value.code() is grpc.StatusCode.ABORTED
    assert "slow" in second.value.details()


def test_a_configured_server_replaces_ours(server: MlxServer) -> None:
    """With MLX_LM_URL mode mlx-lm is relayed, and status shows whose caches those are."""
    with Service(MLX_LM_URL=server.base_url) as service:
        status = service.ready().status()
        with service.http() as http:
            answer = http.post("/v1/messages", json=body(user("Hello?"), max_tokens=100))
        service.wait_worker(control_pb2.WORKER_STATE_READY)
        caches = service.control("cache", "list", "--json").json

    assert answer.headers[_MODE] == "mlx-lm"
    assert "demo model" in answer.json()["content"][0]["text"]
    assert any("caches are not ours" in problem for problem in status.problems)
    assert caches["caches"] == []
