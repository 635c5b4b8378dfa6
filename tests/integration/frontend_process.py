"""The real front end as a child process, with a test in the daemon's place."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.frontend.v1.frontend_pb2_grpc import FrontendServiceStub
from anyclaude.runtime.channels import sync_channel
from anyclaude.runtime.child import Birth
from anyclaude.runtime.paths import find_paths
from anyclaude.runtime.settings import SearchSettings, ServerSettings, Settings, VisionSettings
from anyclaude.worker.v1 import worker_pb2 as worker

WAIT_SECONDS = 120
MODEL = worker.ModelInfo(
    id="anyclaude-scripted", display_name="Scripted", context_window_tokens=32768
)


def listen() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


class FrontendProcess:
    """Starts `python -m anyclaude.proxy`, waits until it is ready, and always ends it."""

    def __init__(
        self,
        listener: socket.socket | None = None,
        search: SearchSettings | None = None,
        vision: VisionSettings | None = None,
        **server: Any,
    ) -> None:
        self.home = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-fe-"))
        self.listener = listener or listen()
        self.base_url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._log_file = (self.home / "log").open("w+")
        self._version = 0
        paths = find_paths({"ANYCLAUDE_HOME": str(self.home)})
        paths.create()
        self.paths = paths
        self.birth = Birth(
            name="frontend",
            generation=1,
            socket_path=paths.worker_socket("frontend", 1),
            paths=paths,
            settings=Settings(
                server=ServerSettings(**server),
                search=search or SearchSettings(),
                vision=vision or VisionSettings(),
            ),
            listen_fd=self.listener.fileno(),
        )
        self.process = self._start()
        self.channel = sync_channel(self.birth.socket_path)
        self._stub = FrontendServiceStub(self.channel)

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "anyclaude.proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            pass_fds=[self.listener.fileno()],
        )
        assert process.stdin is not None
        process.stdin.write(self.birth.to_json() + "\n")
        process.stdin.flush()
        return process

    def notice(self) -> dict[str, Any]:
        """The next line that the child reports to its daemon."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"no notice; log: {self.log_text()}"
        notice: dict[str, Any] = json.loads(line)
        return notice

    def __enter__(self) -> "FrontendProcess":
        assert "ready" in self.notice()
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self._log_file.close()
        self.listener.close()
        shutil.rmtree(self.home)

    def push(self, *routes: frontend.Route, default_mode: str = "mlx-lm", version: int = 0) -> None:
        """Sends a routing table."""
        self._version = version or self._version + 1
        self._stub.SetRoutes(
            frontend.SetRoutesRequest(
                version=self._version, default_mode=default_mode, routes=routes
            ),
            timeout=WAIT_SECONDS,
            # On a busy machine the first attempt to connect may time out.
            wait_for_ready=True,
        )

    def running(self) -> list[frontend.RunningRequest]:
        """The requests that the front end lists as running."""
        answer = self._stub.ListRunning(frontend.ListRunningRequest(), timeout=WAIT_SECONDS)
        return list(answer.requests)

    def follow_records(self) -> Any:
        return self._stub.StreamRecords(frontend.StreamRecordsRequest(), timeout=WAIT_SECONDS)

    def next_record(self) -> frontend.RequestRecord:
        """The oldest record that nobody has read."""
        call = self.follow_records()
        try:
            record: frontend.RequestRecord = next(call).record
            return record
        finally:
            call.cancel()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def log_text(self) -> str:
        return (self.home / "log").read_text()

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_text().splitlines()]
        return [line for line in lines if line["event"] == event]


def post(front: FrontendProcess, body: object, **headers: str) -> httpx.Response:
    """The response to a Messages request."""
    url = f"{front.base_url}/v1/messages"
    return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)


def route(
    worker_socket: Path | str = "",
    *,
    mode: str = "mlx-lm",
    state: frontend.RouteState = frontend.ROUTE_STATE_READY,
    reason: str = "",
    retry_after_seconds: int = 0,
    generation: int = 1,
    relayed: bool = False,
) -> frontend.Route:
    made = frontend.Route(
        mode=mode,
        worker_socket=str(worker_socket),
        generation=generation,
        state=state,
        reason=reason,
        model=MODEL,
        relayed=relayed,
    )
    if retry_after_seconds:
        made.retry_after.FromSeconds(retry_after_seconds)
    return made


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Returns once the condition is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
