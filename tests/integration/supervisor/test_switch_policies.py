"""start-first and stop-first: what happens to our own worker when the mode changes."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from tests.integration.conversation import Talker, arguments, body, instructions, prompt_tokens
from tests.integration.conversation import text_of as said
from tests.integration.mlx_server import MlxServer
from tests.integration.service import WAIT_SECONDS, Service, wait_ended, worker_of
from tests.models import saved
from tests.models.requests import BASH, assistant, user

_MODE: Final = "x-anyclaude-mode"
_STOPPED: Final = control_pb2.WORKER_STATE_STOPPED
_READY: Final = control_pb2.WORKER_STATE_READY


@pytest.fixture(scope="module")
def server() -> Iterator[MlxServer]:
    """A real server of the user."""
    with MlxServer(MODEL_PATH) as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does not stop by itself."""
    return saved.save(tmp_path_factory.mktemp("models") / "tiny", endless=True)


def _environ(server: MlxServer) -> dict[str, str]:
    """`near` is start-first, `big` and `away` are stop-first, and `away` has no server."""
    tables = {
        "LMSTUDIO": {"BASE_URL": server.base_url, "MODEL": "default_model"},
        "BIG": {"BASE_URL": server.base_url, "MODEL": "default_model", "SWITCH": "stop-first"},
        "AWAY": {
            "BASE_URL": "http://127.0.0.1:9",
            "SWITCH": "stop-first",
            "SWITCH_READY_SECONDS": "0",
        },
    }
    return {
        f"ANYCLAUDE__UPSTREAMS__{name}__{key}": value
        for name, table in tables.items()
        for key, value in table.items()
    }


@pytest.fixture(scope="module")
def whole(server: MlxServer, model: Path) -> Iterator[Service]:
    with Service(model=model, **_environ(server)) as service:
        yield service.ready()


@pytest.fixture
def service(whole: Service) -> Iterator[Service]:
    """The service, in mode mlx-lm before and after each test."""
    assert whole.control("mode", "mlx-lm").code == 0
    yield whole
    assert whole.control("mode", "mlx-lm").code == 0


class Asking:
    """Sends requests in the service's mode, over and over, in a thread."""

    def __init__(self, service: Service) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._seen = self._pool.submit(self._ask, service)

    def _ask(self, service: Service) -> list[tuple[int, str | None]]:
        seen = []
        with service.http() as http:
            while not self._stop.is_set():
                answer = http.post("/v1/messages", json=body(user("Hi."), max_tokens=2))
                seen.append((answer.status_code, answer.headers.get(_MODE)))
        return seen

    def finish(self) -> list[tuple[int, str | None]]:
        self._stop.set()
        self._pool.shutdown()
        return self._seen.result()


def test_stop_first_frees_the_process_and_brings_the_caches_back(service: Service) -> None:
    """Streams finish, the process ends, the mode works; back again all tokens are reused."""
    pid = service.worker().pid
    restarts = service.worker().restart_count
    fields: dict[str, Any] = {"system": instructions("Room"), "tools": [BASH]}
    turns = [user("What is in here?")]
    with Talker(service, "room") as talker, Talker(service, "long") as other:
        first = talker.ask(*turns, **fields)
        with other.messages.stream(**arguments(user("Go on."), max_tokens=400)) as stream:
            next(iter(stream.text_stream))
            asking = Asking(service)
            with ThreadPoolExecutor(1) as pool:
                switched = pool.submit(service.control, "mode", "big", "--json")
                answer = stream.get_final_message()
                assert switched.result().code == 0
        statuses = asking.finish()
        told = talker.ask(user("Who are you?"), max_tokens=8)
        status, shown = service.status(), service.control("status").stdout
        listed = {mode["name"]: mode for mode in service.control("mode", "--json").json["modes"]}
        with service.http() as http:
            refused = http.post("/v1/messages", json=body(user("hi")), headers={_MODE: "mlx-lm"})
        caches = service.control("cache", "list")
        back = service.control("mode", "mlx-lm")
        turns += [assistant(said(first)), user("And here again?")]
        again = talker.ask(*turns, **fields)

    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 400)
    assert {code for code, _ in statuses} <= {200, 529}
    assert statuses[-1] == (200, "big")
    assert said(told)
    assert not psutil.pid_exists(pid)
    (worker,) = (worker for worker in status.workers if worker.name == "mlx")
    assert (worker.state, worker.makes_room_for) == (_STOPPED, "big")
    assert worker.last_exit.code == 0
    assert (status.readiness, list(status.problems)) == (control_pb2.READINESS_READY, [])
    assert "stopped (stop-first)" in shown
    assert listed["big"]["switch_policy"] == "stop_first"
    assert "stop-first: our own worker stops and frees its memory" in listed["big"]["description"]
    assert "anyclaudectl mode mlx-lm" in listed["mlx-lm"]["reason"]
    assert refused.status_code == 400
    assert "stopped (stop-first) while big is the mode" in refused.json()["error"]["message"]
    assert caches.code != 0
    assert "stop-first" in caches.stderr
    assert back.code == 0
    assert (again.usage.cache_read_input_tokens or 0) >= prompt_tokens(first) - 8
    assert service.worker().state == _READY
    assert service.worker().restart_count == restarts + 1


def test_start_first_keeps_process_and_caches(service: Service) -> None:
    """By default the same worker answers after the change, from memory."""
    before = service.worker()
    assert service.control("mode", "lmstudio").code == 0
    after = service.worker()
    listed = {mode["name"]: mode for mode in service.control("mode", "--json").json["modes"]}
    assert (after.pid, after.generation, after.state) == (before.pid, before.generation, _READY)
    assert listed["lmstudio"]["switch_policy"] == "start_first"


def test_a_target_that_is_down_changes_nothing(service: Service) -> None:
    """The worker starts again, the mode stays, and tokens are read from disk."""
    pid = service.worker().pid
    fields: dict[str, Any] = {"system": instructions("Rollback"), "tools": [BASH]}
    with Talker(service, "rollback") as talker:
        first = talker.ask(user("What is in here?"), **fields)
        refused = service.control("mode", "away")
        service.wait_ready()
        turns = [user("What is in here?"), assistant(said(first)), user("And now?")]
        again = talker.ask(*turns, **fields)

    assert refused.code == 5
    assert "stays mlx-lm" in refused.stderr
    assert "127.0.0.1:9" in refused.stderr
    assert service.status().mode == "mlx-lm"
    assert service.worker().pid not in (0, pid)
    assert service.worker().makes_room_for == ""
    assert (again.usage.cache_read_input_tokens or 0) >= prompt_tokens(first) - 8


def test_to_a_start_first_mode_the_worker_comes_back_beside_it(service: Service) -> None:
    """From big to lmstudio the mode changes at once, and our worker starts again."""
    assert service.control("mode", "big").code == 0
    refused = service.control("mode", "away")
    still = service.worker()
    assert service.control("mode", "lmstudio").code == 0
    assert service.wait_worker(_READY).makes_room_for == ""
    assert refused.code == 5
    assert (still.state, still.makes_room_for) == (_STOPPED, "big")


def test_a_restart_asked_for_by_hand_brings_it_back(service: Service) -> None:
    """An explicit restart starts the worker in any mode."""
    assert service.control("mode", "big").code == 0
    assert service.control("worker", "restart", "mlx").code == 0
    assert service.wait_worker(_READY).makes_room_for == ""
    assert service.status().mode == "big"


def test_a_restart_in_a_stop_first_mode_starts_no_worker(server: MlxServer, model: Path) -> None:
    """After a restart of the daemon the mode stays, and the worker is not started."""
    with Service("--mode", "big", model=model, **_environ(server)) as service:
        status = service.wait_ready()
        with service.http() as http:
            answer = http.post("/v1/messages", json=body(user("Hello?"), max_tokens=4))
        (worker,) = (worker for worker in status.workers if worker.name == "mlx")
        assert (worker.state, worker.pid, worker.makes_room_for) == (_STOPPED, 0, "big")
        assert (answer.status_code, answer.headers[_MODE]) == (200, "big")
        assert service.control("mode", "mlx-lm").code == 0
        assert service.worker().state == _READY


def test_a_worker_that_cannot_come_back_changes_nothing(
    server: MlxServer, model: Path, tmp_path: Path
) -> None:
    """If our model is missing, big still responds; once it is back, the same command works."""
    here, away = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(model, here)
    with Service("--mode", "big", model=here, **_environ(server)) as service:
        service.wait_ready()
        here.rename(away)
        refused = service.control("mode", "mlx-lm")
        status, worker = service.wait_ready(), service.worker()
        away.rename(here)
        mended = service.control("mode", "mlx-lm")

    assert refused.code == 5
    assert "stays big" in refused.stderr
    assert "The mlx worker does not start" in refused.stderr
    assert (status.mode, list(status.problems)) == ("big", [])
    assert (worker.state, worker.makes_room_for) == (_STOPPED, "big")
    assert mended.code == 0, mended.stderr


def test_a_worker_that_is_short_of_memory_does_not_come_back(
    server: MlxServer, model: Path
) -> None:
    """While other programs use the memory of our model, the switch back fails at once."""
    now = psutil.virtual_memory()
    reserve = {"ANYCLAUDE__MLX__MEMORY_RESERVE_BYTES": str((now.total + now.available) // 2)}
    with Service("--mode", "big", model=model, **_environ(server), **reserve) as service:
        service.wait_ready()
        refused = service.control("mode", "mlx-lm")
        status, worker = service.wait_ready(), service.worker()

    assert refused.code == 5
    assert "stays big" in refused.stderr
    assert "GB are available" in refused.stderr
    assert (status.mode, list(status.problems)) == ("big", [])
    assert (worker.state, worker.restart_count) == (_STOPPED, 0)


def test_during_a_stop_first_change(server: MlxServer, model: Path) -> None:
    """During the change no other change or restart is allowed."""
    with (
        Service(model=model, **_environ(server)) as service,
        Talker(service.ready(), "a") as talker,
    ):
        asked = [sys.executable, "-m", "anyclaude.cli", "mode", "big"]
        with talker.messages.stream(**arguments(user("Go on."), max_tokens=3000)) as stream:
            next(iter(stream.text_stream))
            with subprocess.Popen(asked, env=service.environ) as asking:
                service.wait_for(lambda status: worker_of(status, "mlx").makes_room_for == "big")
                second = service.control("mode", "lmstudio")
                restart = service.control("worker", "restart", "mlx")
                asking.kill()
            answer = stream.get_final_message()
        status = service.wait_for(lambda status: status.mode == "big")

    assert answer.usage.output_tokens == 3000
    assert (second.code, restart.code) == (5, 5), (second.stderr, restart.stderr)
    assert "being stopped for mode big" in restart.stderr
    assert worker_of(status, "mlx").state == _STOPPED


def test_a_stop_during_a_stop_first_change(server: MlxServer, model: Path) -> None:
    """A stop during the change is clean, and the next start is in the old mode."""
    environ = _environ(server) | {"ANYCLAUDE__SERVER__DRAIN_TIMEOUT_SECONDS": "1"}
    with (
        Service(model=model, **environ) as service,
        Talker(service.ready(), "a") as talker,
    ):
        asked = [sys.executable, "-m", "anyclaude.cli", "mode", "big"]
        with talker.messages.stream(**arguments(user("Go on."), max_tokens=30_000)) as stream:
            next(iter(stream.text_stream))
            with subprocess.Popen(asked, env=service.environ, stderr=subprocess.DEVNULL) as asking:
                service.wait_for(lambda status: worker_of(status, "mlx").makes_room_for == "big")
                children = service.children()
                code = service.stop()
                asking.wait(WAIT_SECONDS)
        assert wait_ended(children, WAIT_SECONDS) == []
        assert code == 0
        assert not service.paths.mode_file.exists()


def test_work_that_does_not_end_in_time_is_not_cut(server: MlxServer, model: Path) -> None:
    """The mode stays, the stream continues, and the worker is the same."""
    environ = _environ(server) | {"ANYCLAUDE__SUPERVISOR__MAKE_ROOM_TIMEOUT_SECONDS": "0.5"}
    with Service(model=model, **environ) as service, Talker(service.ready(), "long") as talker:
        pid = service.worker().pid
        with talker.messages.stream(**arguments(user("Go on."), max_tokens=4000)) as stream:
            text = iter(stream.text_stream)
            next(text)
            refused = service.control("mode", "big")
            seen = time.monotonic()
            next(text)
        assert time.monotonic() - seen < WAIT_SECONDS
        with service.http() as http:
            answer = http.post("/v1/messages", json=body(user("Hello?"), max_tokens=4))
        assert refused.code == 5
        assert "make_room_timeout_seconds" in refused.stderr
        assert (answer.status_code, answer.headers[_MODE]) == (200, "mlx-lm")
        assert service.worker().pid == pid
