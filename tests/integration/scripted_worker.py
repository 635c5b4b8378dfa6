"""A worker that sends what the test wrote: for faults and orders that a real one never has.

Run as a program it answers every request with the beginning of an answer and kills itself.
"""

import contextlib
import os
import shutil
import signal
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from anyclaude.runtime.channels import SERVER_OPTIONS, target
from anyclaude.runtime.streams import END, Frames, framed, stream_socket
from anyclaude.worker.v1 import worker_pb2 as worker
from anyclaude.worker.v1.worker_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)
from tests.worker_events import delta, started, text_answer, text_start

Script = Callable[[worker.GenerateRequest], Iterator[worker.GenerateResponse]]


class StreamServer(socketserver.ThreadingUnixStreamServer):
    """Responds by a script, in a thread for each call."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, socket_path: Path, script: Script, on_over: Callable[[], None]) -> None:
        super().__init__(str(stream_socket(socket_path)), _Handler)
        self.script = script
        self.on_over = on_over


class _Handler(socketserver.BaseRequestHandler):
    server: StreamServer

    def handle(self) -> None:
        frames, asked = Frames(), list[bytes]()
        while not asked:
            data = self.request.recv(1 << 20)
            if not data:
                # A connection that waited for a call and was not needed.
                return
            asked += frames.feed(data)
        threading.Thread(target=self._watch, daemon=True).start()
        with contextlib.suppress(OSError):
            for event in self.server.script(worker.GenerateRequest.FromString(asked[0])):
                self.request.sendall(framed(event))
            self.request.sendall(END)

    def _watch(self) -> None:
        """Waits for the end of the caller or of the response."""
        with contextlib.suppress(OSError):
            self.request.recv(1)
        self.server.on_over()


class ScriptedWorker(WorkerServiceServicer):
    """Serves the worker contract on sockets of its own."""

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
        self._streams = StreamServer(self.socket_path, self._generate, self.over.set)

    def __enter__(self) -> "ScriptedWorker":
        self._server.start()
        threading.Thread(target=self._streams.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.shutdown()
        self._streams.server_close()
        self._server.stop(None).wait(5)
        shutil.rmtree(self.folder)

    def _generate(self, request: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        self.requests.append(request)
        self.called.set()
        yield from self.script(request)

    def CountTokens(
        self, request: worker.CountTokensRequest, context: Any
    ) -> worker.CountTokensResponse:
        return self.count


def _main(socket_path: str, events_before_death: str) -> None:
    """Sends that many events, then kills itself with SIGKILL."""

    def script(_: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        events = [started(), text_start(), delta(text="The answer is")]
        yield from events[: int(events_before_death)]
        # Only after the transport has had its turn, so that the test sees all events.
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        threading.Event().wait()

    with StreamServer(Path(socket_path), script, lambda: None) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    _main(*sys.argv[1:])
