"""The services that produce every error, and their responses as text that never varies.

All of them are real: whole services with the local model and with scripted servers behind the
relay, one whose model is missing, one whose front end gave up, and a front end without a daemon.
"""

import os
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from anyclaude.control.v1 import control_pb2
from tests.integration.conversation import body
from tests.integration.frontend_process import FrontendProcess
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Pause,
    Request,
    ScriptedUpstream,
    Step,
    openai_server,
    response,
)
from tests.integration.service import WAIT_SECONDS, Service, worker_of
from tests.models import saved
from tests.models.requests import user

TOKEN: Final = "the-token"
# The limits of the local model's queue and of the front end's concurrent requests.
_QUEUED: Final = 1
_HELD: Final = 4
# Long enough that an endless answer outlasts the requests beside it.
_WINDOW_TOKENS: Final = 4096
# Headers that say something about an error, in the order in which they are shown.
_SHOWN: Final = ("content-type", "request-id", "retry-after", "x-should-retry", "allow")

Message = dict[str, Any]


class Stage:
    """The services for the examples; each is started when it is first needed."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-e-"))
        stack.callback(shutil.rmtree, self._folder)
        self._server = stack.enter_context(ScriptedUpstream(openai_server(lambda _: HELLO)))
        self._closed = _closed_address()
        self._service: Service | None = None
        self._modelless: Service | None = None
        self._replaced = {
            self._server.base_url: "http://127.0.0.1:1234",
            self._closed: "http://127.0.0.1:8080",
            str(self._folder): "/path/to",
            # The server counts the request from the moment it arrives.
            ", anyclaude-served": "",
        }

    @property
    def service(self) -> Service:
        """A ready service that requires a token."""
        if self._service is None:
            model = saved.save(self._folder / "tiny", template="qwen3", endless=True)
            token = self._folder / "token"
            token.write_text(TOKEN)
            service = Service(
                model=model,
                ANYCLAUDE__MODEL__CONTEXT_WINDOW_TOKENS=str(_WINDOW_TOKENS),
                ANYCLAUDE__SERVER__AUTH_TOKEN_FILE=str(token),
                ANYCLAUDE__SERVER__MAX_REQUESTS=str(_HELD),
                # A request that waits in a queue is known to wait after so long.
                ANYCLAUDE__SERVER__ACCEPT_WAIT_SECONDS="0.5",
                ANYCLAUDE__MLX__MAX_RUNNING_REQUESTS="1",
                ANYCLAUDE__MLX__MAX_QUEUED_REQUESTS=str(_QUEUED),
                **_upstream("LMSTUDIO", self._server.base_url, FIRST_BYTE_TIMEOUT_SECONDS="3"),
                **_upstream("OPENROUTER", self._server.base_url, MODEL="served"),
                **_upstream("VLLM", self._closed, BREAKER_FAILURES="1"),
                **_upstream("LLAMA_CPP", self._closed),
            )
            self._service = self._stack.enter_context(service).ready()
        return self._service

    def answering(self, *steps: Step) -> None:
        """Sets the response of the server behind modes lmstudio and openrouter."""
        self._server.script = openai_server(lambda _: steps)

    def refusing(self, status: int, message: str, *headers: str, **details: Any) -> None:
        """Makes that server refuse with the OpenAI API's error."""
        error = {"error": {"message": message, **details}}
        self.answering(response(status, error, *headers))

    def post(self, **fields: Any) -> str:
        """Sends a request to the local model."""
        return self.ask("POST", "/v1/messages", json=body(user("Hi"), **fields))

    def relayed(self, mode: str = "lmstudio", **fields: Any) -> str:
        """Sends a request to a server behind the relay."""
        asked = body(user("Hi"), **fields)
        return self.ask("POST", "/v1/messages", json=asked, headers={"x-anyclaude-mode": mode})

    def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = TOKEN,
        headers: Message | None = None,
        **rest: Any,
    ) -> str:
        """Sends a request to the service; returns its response as it is shown."""
        with self.client() as http:
            given = {**({"x-api-key": token} if token else {}), **(headers or {})}
            return self.show(http.request(method, path, headers=given, **rest))

    def client(self) -> httpx.Client:
        return self.service.http()

    @contextmanager
    def streaming(self, mode: str = "mlx-lm") -> Iterator[httpx.Response]:
        """A response of the local model, or of a server, whose head has arrived."""
        asked = body(user("Hi"), stream=True, max_tokens=100_000)
        headers = {"x-api-key": TOKEN, "x-anyclaude-mode": mode}
        with (
            self.client() as http,
            http.stream("POST", "/v1/messages", json=asked, headers=headers) as answer,
        ):
            yield answer

    @contextmanager
    def full(self) -> Iterator[None]:
        """Keeps as many requests in progress as the front end accepts."""
        release = threading.Event()
        arrived = threading.Semaphore(0)

        def held(_: Request) -> Sequence[Step]:
            arrived.release()
            return [STREAM, Pause(release), *HELLO[1:]]

        self._server.script = openai_server(held)
        waiting = [threading.Thread(target=self._wait) for _ in range(_HELD)]
        try:
            for thread in waiting:
                thread.start()
            for _ in waiting:
                assert arrived.acquire(timeout=WAIT_SECONDS)
            yield
        finally:
            release.set()
            for thread in waiting:
                thread.join()

    def _wait(self) -> None:
        with self.streaming("openrouter") as answer:
            answer.read()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keeps the local model busy with one request and its queue full."""
        with ExitStack() as stack:
            lines = stack.enter_context(self.streaming()).iter_lines()
            # Wait until it runs: before that it would use a place in the queue.
            next(line for line in lines if "content_block_delta" in line)
            for _ in range(_QUEUED):
                stack.enter_context(self.streaming())
            yield

    def kill_worker(self, name: str = "mlx") -> control_pb2.Worker:
        """Kills a worker, and returns what it was."""
        worker = self.service.worker(name)
        # A worker that does not run has the pid 0, which means our own process group.
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        return worker

    def kill_at_work(self, other_than: int = 0) -> control_pb2.Worker:
        """Kills the MLX worker, of another pid, once it works on one request."""
        self.service.poll(
            lambda status: (
                status.running_requests == 1 and worker_of(status, "mlx").pid not in (0, other_than)
            )
        )
        return self.kill_worker()

    def recovered(self, killed: control_pb2.Worker) -> None:
        """Waits until the successor of a killed worker is ready.

        The status may call a killed worker ready until the daemon learns of its end.
        """
        ready = control_pb2.WORKER_STATE_READY
        self.service.wait_worker(ready, killed.name, killed.generation + 1)
        self.service.ready()

    def show(self, answer: httpx.Response) -> str:
        """The response without what differs from run to run."""
        told = [f"{name}: {answer.headers[name]}" for name in _SHOWN if name in answer.headers]
        # The phrase after the status differs between Python versions.
        head = f"HTTP/1.1 {answer.status_code}"
        return self.same("\n".join([head, *told, "", _shortened(answer)]))

    def same(self, text: str) -> str:
        """`text` with addresses, paths and ids replaced by fixed ones."""
        for found, shown in self._replaced.items():
            text = text.replace(found, shown)
        return re.sub(r"req_[0-9a-f]{24}", "req_0123456789abcdef01234567", text)

    def without_model(self) -> httpx.Client:
        """A client of a service whose model folder is missing; the caller closes it."""
        if self._modelless is None:
            service = Service(model=self._folder / "model")
            self._modelless = self._stack.enter_context(service)
            service.wait_worker(control_pb2.WORKER_STATE_FATAL)
            waited = service.control("wait", "--ready", "--timeout", str(WAIT_SECONDS))
            assert waited.code == 7, waited
        return self._modelless.http()

    @contextmanager
    def making_room(self) -> Iterator[httpx.Client]:
        """A service in a mode whose server has the memory of the local model."""
        big = _upstream("BIG", self._server.base_url, SWITCH="stop-first")
        with Service("--mode", "big", **big) as service, service.ready().http() as http:
            yield http

    @contextmanager
    def without_front_end(self) -> Iterator[httpx.Client]:
        """A service whose front end cannot start, since its token file is missing."""
        token = str(self._folder / "no-token")
        with Service(ANYCLAUDE__SERVER__AUTH_TOKEN_FILE=token) as service:
            service.wait_worker(control_pb2.WORKER_STATE_FATAL, "frontend")
            with service.http() as http:
                yield http

    @contextmanager
    def without_daemon(self, **server: Any) -> Iterator[httpx.Client]:
        """A front end that has received nothing from a daemon."""
        with (
            FrontendProcess(accept_wait_seconds=0, **server) as front,
            httpx.Client(base_url=front.base_url, timeout=WAIT_SECONDS, trust_env=False) as http,
        ):
            yield http


def _shortened(answer: httpx.Response) -> str:
    """The body; of a failed stream only its first and its last event."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.text
    frames = answer.text.removesuffix("\n\n").split("\n\n")
    names = [frame.split("\n")[0] for frame in frames]
    assert names[0] == "event: message_start"
    assert names.index("event: error") == len(names) - 1
    assert "event: message_stop" not in names
    return f"{names[0]}\ndata: ...\n\n...\n\n{frames[-1]}"


def _upstream(name: str, base_url: str, **settings: str) -> dict[str, str]:
    """The variables that configure a server."""
    own = {"BASE_URL": base_url, "DIALECT": "openai", "RETRIES": "0", "BREAKER_FAILURES": "100"}
    prefix = f"ANYCLAUDE__UPSTREAMS__{name.replace('_', '-')}__"
    return {f"{prefix}{key}": value for key, value in (own | settings).items()}


def _closed_address() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return f"http://127.0.0.1:{made.getsockname()[1]}"


@contextmanager
def open_stage() -> Iterator[Stage]:
    """A stage; everything started on it ends with the context."""
    with ExitStack() as stack:
        yield Stage(stack)
