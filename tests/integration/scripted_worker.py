"""A worker that says what the test wrote: for faults and orders that a real one will not show.

Run as a program it answers every request with the beginning of an answer and kills itself.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from anyclaude.runtime.channels import SERVER_OPTIONS, target
from anyclaude.worker.v1 import worker_pb2 as worker
from anyclaude.worker.v1.worker_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from tests.worker_events import delta, started, text_answer, text_start

Script = Callable[[worker.GenerateRequest], Iterator[worker.GenerateResponse]]


class ScriptedWorker(WorkerServiceServicer):
    """Serves the worker contract on a socket of its own."""

    def __init__(self, script: Script | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-w-"))
        self.socket_path = self.folder / "w.sock"
        self.script: Script = script or (lambda _: text_answer("Hello", " there"))
        self.count = worker.CountTokensResponse(input_tokens=100)
        self.requests: list[worker.GenerateRequest] = []
        self.called = threading.Event()
        # Set when a call is over, by its end or by cancellation.
        self.over = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        add_WorkerServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(target(self.socket_path))

    def __enter__(self) -> "ScriptedWorker":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait(5)
        shutil.rmtree(self.folder)

    def Generate(
        self, request: worker.GenerateRequest, context: Any
    ) -> Iterator[worker.GenerateResponse]:
        self.requests.append(request)
        context.add_callback(self.over.set)
        self.called.set()
        yield from self.script(request)

    def CountTokens(
        self, request: worker.CountTokensRequest, context: Any
    ) -> worker.CountTokensResponse:
        return self.count


class _DyingWorker(WorkerServiceServicer):
    """Says `events_before_death` events, then dies as by SIGKILL."""

    def __init__(self, events_before_death: int) -> None:
        self._events_before_death = events_before_death

    def Generate(
        self, request: worker.GenerateRequest, context: Any
    ) -> Iterator[worker.GenerateResponse]:
        events = [started(), text_start(), delta(text="The answer is")]
        yield from events[: self._events_before_death]
        # Only after the transport has had its turn, so that the test sees all events.
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        threading.Event().wait()


def _main(socket_path: str, events_before_death: str) -> None:
    server = grpc.server(ThreadPoolExecutor(2), options=SERVER_OPTIONS)
    dying = _DyingWorker(int(events_before_death))
    add_WorkerServiceServicer_to_server(dying, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(target(socket_path))
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    _main(*sys.argv[1:])
