"""The caller's side of one `Generate`, blocking: a test in the front end's place."""

import socket
from collections.abc import Iterator
from pathlib import Path

from anyclaude.runtime.streams import Frames, framed, stream_socket
from anyclaude.worker.v1 import worker_pb2 as pb


class WorkerGoneError(Exception):
    """The connection ended before the response did."""


class Call:
    """The events of a running generation, one by one."""

    def __init__(self, socket_path: Path, request: pb.GenerateRequest, seconds: float) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(seconds)
        self._connection.connect(str(stream_socket(socket_path)))
        self._connection.sendall(framed(request))
        self._events = self._read()

    def __iter__(self) -> Iterator[pb.GenerateResponse]:
        return self._events

    def __next__(self) -> pb.GenerateResponse:
        return next(self._events)

    def cancel(self) -> None:
        self._connection.close()

    def _read(self) -> Iterator[pb.GenerateResponse]:
        with self._connection:
            frames = Frames()
            while data := self._connection.recv(65536):
                for payload in frames.feed(data):
                    if not payload:
                        return
                    yield pb.GenerateResponse.FromString(payload)
        raise WorkerGoneError
