"""A real `anyclauded` with scripted children, under a home of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.runtime.channels import sync_channel
from anyclaude.runtime.paths import find_paths

SCRIPT = Path(__file__).parent / "scripted" / "daemon.py"
WAIT_SECONDS = 30
# Quick enough for tests, slow enough for a loaded machine.
QUICK = {
    "ANYCLAUDE__SUPERVISOR__BACKOFF_INITIAL_SECONDS": "0.05",
    "ANYCLAUDE__SUPERVISOR__STOP_TIMEOUT_SECONDS": "10",
}


class DaemonProcess:
    """Starts on construction; a context manager that always ends the daemon."""

    def __init__(
        self, worker: str = "ready", *flags: str, home: Path | None = None, **environ: str
    ):
        self.home = home or Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-d-"))
        self._owns_home = home is None
        self.routes_file = self.home / "routes.json"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANYCLAUDE_HOME": str(self.home),
            "ANYCLAUDE_PORT": "0",
            **QUICK,
            **environ,
        }
        self.paths = find_paths(self.environ)
        self.log = (self.home / "output").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.routes_file), worker, *flags],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        self._channel = sync_channel(self.paths.control_socket)

    def __enter__(self) -> "DaemonProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        if self._owns_home:
            shutil.rmtree(self.home)

    @property
    def output(self) -> str:
        """Everything the daemon wrote."""
        self.log.flush()
        return (self.home / "output").read_text()

    def stub(self, service: str) -> Any:
        """A stub that waits for the daemon to answer instead of failing."""
        return _Patient(getattr(control_pb2_grpc, service + "Stub")(self._channel))

    @property
    def channel(self) -> Any:
        return self._channel

    def wait_for(self, holds: Callable[[control_pb2.Status], bool]) -> control_pb2.Status:
        """Returns the first status that `holds`; never polls."""
        call = control_pb2_grpc.DaemonServiceStub(self._channel).WatchStatus(  # type: ignore[no-untyped-call]
            control_pb2.WatchStatusRequest(), timeout=WAIT_SECONDS, wait_for_ready=True
        )
        try:
            for answer in call:
                if holds(answer.status):
                    return answer.status
        finally:
            call.cancel()
        raise AssertionError("the daemon ended its stream\n" + self.output)

    def wait_ready(self) -> control_pb2.Status:
        return self.wait_for(lambda s: s.readiness == control_pb2.READINESS_READY)

    def wait_worker(self, state: Any, name: str = "mlx", generation: int = 0) -> control_pb2.Worker:
        """Waits until the child is in `state`, in this generation or a later one."""
        status = self.wait_for(
            lambda s: (
                worker_of(s, name).state == state and worker_of(s, name).generation >= generation
            )
        )
        return worker_of(status, name)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.paths.run.glob("*.sock"))


class _Patient:
    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return lambda request: method(request, timeout=WAIT_SECONDS, wait_for_ready=True)


def worker_of(status: control_pb2.Status, name: str) -> control_pb2.Worker:
    return next(worker for worker in status.workers if worker.name == name)
