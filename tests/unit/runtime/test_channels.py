"""Channels to processes of a busy machine."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from anyclaude.runtime.channels import sync_channel

# Longer than every pause between two attempts to connect.
_LATE_SECONDS = 1.0
_CALL_SECONDS = 60


@pytest.fixture
def late_socket() -> Iterator[Path]:
    """A socket whose server, which knows no method, starts to answer late."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-"))
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix:{folder / 'server'}")
    server.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "late"))
        listener.listen()
        serving = threading.Thread(target=_serve_late, args=(listener, folder / "server"))
        serving.start()
        yield folder / "late"
        serving.join()
    server.stop(0).wait()
    shutil.rmtree(folder)


def _serve_late(listener: socket.socket, server: Path) -> None:
    near, _ = listener.accept()
    with near, socket.socket(socket.AF_UNIX) as far:
        time.sleep(_LATE_SECONDS)
        far.connect(str(server))
        back = threading.Thread(target=_pump, args=(far, near))
        back.start()
        _pump(near, far)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_a_process_that_answers_late_is_not_gone(late_socket: Path) -> None:
    """A connection may take longer than the pause before the next attempt."""
    with sync_channel(late_socket) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/none/None")(b"", timeout=_CALL_SECONDS)
        # The server itself answered.
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
