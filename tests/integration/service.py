"""A real `anyclauded` under a temporary home, run as a user runs it."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import httpx
import psutil

from anyclaude.cache.v1 import cache_pb2_grpc
from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.runtime.channels import sync_channel
from anyclaude.runtime.paths import find_paths
from tests.integration import kernels

# A generous limit, since a busy machine takes long to start four processes.
WAIT_SECONDS: Final = 120
REAL: Final = (sys.executable, "-m", "anyclaude.supervisor")

Command = Sequence[str]


class Controlled(NamedTuple):
    """The result of an `anyclaudectl` command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def _as_it_is(command: Command) -> list[str]:
    return list(command)


class Service:
    """Starts on construction; a context manager that always ends the daemon."""

    def __init__(
        self,
        *flags: str,
        model: Path | str = "",
        home: Path | None = None,
        command: Command = REAL,
        within: Callable[[Command], list[str]] = _as_it_is,
        **environ: str,
    ) -> None:
        """
        Args:
            flags: of the daemon.
            model: a model folder; the demo model without one.
            home: a short path that outlives the daemon; else a folder of its own.
            command: what stands in for `anyclauded`.
            within: makes of a command the one that runs it in a sandbox.
            environ: variables beside the few that every service under test has.
        """
        self.home = home or Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-"))
        self._owns_home = home is None
        self._within = within
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANYCLAUDE_HOME": str(self.home),
            "ANYCLAUDE_PORT": "0",
            **({"ANYCLAUDE_MODEL": str(model)} if model else {}),
            **environ,
        }
        self.paths = find_paths(self.environ)
        self._has_model = command is REAL
        if self._has_model:
            kernels.lend(self.paths.worker_tmp)
        self._log = (self.home / "output").open("a+")
        self.process = subprocess.Popen(
            within([*command, *flags]),
            cwd=self.home,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self.channel = sync_channel(self.paths.control_socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        if self.process.poll() is None:
            children = self.children()
            self.process.kill()
            self.process.wait()
            # Children end by themselves, and write into the home until then.
            wait_ended(children, WAIT_SECONDS)
        self._log.close()
        if self._has_model:
            kernels.collect(self.paths.worker_tmp)
        if self._owns_home:
            shutil.rmtree(self.home)

    @property
    def output(self) -> str:
        """Everything the daemon wrote."""
        return (self.home / "output").read_text(errors="replace")

    def control(self, *arguments: str) -> Controlled:
        """Runs `anyclaudectl ARGUMENTS`."""
        done = subprocess.run(
            self._within([sys.executable, "-m", "anyclaude.cli", *arguments]),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        return Controlled(done.returncode, done.stdout, done.stderr)

    def ready(self) -> Self:
        """Returns once the mode is ready; fails as soon as a worker gave up."""
        status = self.wait_for(lambda s: s.is_serving or _gave_up(s))
        assert status.is_serving, f"{status}\n{self.output}"
        return self

    @functools.cached_property
    def base_url(self) -> str:
        """The address for clients."""
        return self.status().base_url

    def http(self) -> httpx.Client:
        """A client of the endpoint; the caller closes it."""
        return httpx.Client(base_url=self.base_url, timeout=WAIT_SECONDS, trust_env=False)

    def stub(self, service: str) -> Any:
        """A stub that waits for the daemon to respond instead of failing."""
        module: Any = cache_pb2_grpc if service == "CacheService" else control_pb2_grpc
        return _Patient(getattr(module, service + "Stub")(self.channel))

    def status(self) -> control_pb2.Status:
        answer = self.stub("DaemonService").GetStatus(control_pb2.GetStatusRequest())
        status: control_pb2.Status = answer.status
        return status

    def wait_for(self, holds: Callable[[control_pb2.Status], bool]) -> control_pb2.Status:
        """Returns the first status that `holds`; never polls."""
        call = control_pb2_grpc.DaemonServiceStub(self.channel).WatchStatus(
            control_pb2.WatchStatusRequest(), timeout=WAIT_SECONDS, wait_for_ready=True
        )
        try:
            for answer in call:
                status: control_pb2.Status = answer.status
                if holds(status):
                    return status
        finally:
            call.cancel()
        raise AssertionError("the daemon ended its stream\n" + self.output)

    def poll(self, holds: Callable[[control_pb2.Status], bool]) -> control_pb2.Status:
        """Like `wait_for`, for values that the daemon does not announce, such as counters."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(status := self.status()):
            assert time.monotonic() < deadline, f"{status}\n{self.output}"
            time.sleep(0.02)
        return status

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

    def worker(self, name: str = "mlx") -> control_pb2.Worker:
        """The child as it is now."""
        return worker_of(self.status(), name)

    def stop(self) -> int:
        """Sends SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.paths.run.glob("*") if path.is_socket())


class _Patient:
    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return lambda request: method(request, timeout=WAIT_SECONDS, wait_for_ready=True)


def _gave_up(status: control_pb2.Status) -> bool:
    return any(worker.state == control_pb2.WORKER_STATE_FATAL for worker in status.workers)


def worker_of(status: control_pb2.Status, name: str) -> control_pb2.Worker:
    return next(worker for worker in status.workers if worker.name == name)


def wait_ended(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so long.

    An orphan that ended stays a zombie until the machine's first process takes note of it, which in
    a container may be seconds later.
    """
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _runs(process)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
