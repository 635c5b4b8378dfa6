"""The client of the daemon's control socket, for every verb and the launcher.

Every call has a deadline: 2 s to connect and 5 s to respond, longer only where the daemon has to
stop something first or a worker computes. Failures are raised as `CommandError`, with their exit
code.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

# First: it sets gRPC's environment before gRPC is imported.
from anyclaude.runtime import channels  # isort: skip
import grpc
from google.protobuf.message import Message

from anyclaude.cache.v1 import cache_pb2, cache_pb2_grpc
from anyclaude.cli.errors import explain, no_answer, nobody_listens, not_running, unreachable
from anyclaude.control.v1 import control_pb2, control_pb2_grpc

CONNECT_SECONDS: Final = 2.0
CALL_SECONDS: Final = 5.0
# A worker drains before it restarts; pruning may wait for the disk.
SLOW_CALL_SECONDS: Final = 60.0
# Running requests may have to end and a model to load; the daemon limits the time of each.
MODE_CALL_SECONDS: Final = 1800.0

# gRPC's standard health check; an empty request asks for the server as a whole.
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

# Generated without annotations.
_stubs: Any = control_pb2_grpc
_cache_stubs: Any = cache_pb2_grpc


class ControlClient:
    """One connection to the daemon; a context manager."""

    def __init__(self, socket_path: Path) -> None:
        """Connects.

        Raises:
            CommandError: NOT_RUNNING or TIMEOUT, saying how to start the daemon.
        """
        self._socket_path = socket_path
        _probe(socket_path)
        self._channel = channels.sync_channel(socket_path)
        self._check_answers()
        # The cache verbs, called by `call`; the other services have a method for each of theirs.
        self.caches = _cache_stubs.CacheServiceStub(self._channel)
        self._daemon = _stubs.DaemonServiceStub(self._channel)
        self._modes = _stubs.ModeServiceStub(self._channel)
        self._workers = _stubs.WorkerControlServiceStub(self._channel)
        self._metrics = _stubs.MetricsServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._channel.close()

    def status(self) -> control_pb2.Status:
        response: control_pb2.GetStatusResponse = self.call(
            self._daemon.GetStatus, control_pb2.GetStatusRequest()
        )
        return response.status

    def watch_status(self, seconds: float) -> Iterator[control_pb2.Status]:
        """The status now and at every change; ends by a TIMEOUT error after `seconds`."""
        call = self._daemon.WatchStatus(control_pb2.WatchStatusRequest(), timeout=seconds)
        try:
            for response in call:
                yield response.status
        except grpc.RpcError as error:
            raise explain(error, self._socket_path) from None
        finally:
            call.cancel()

    def config(self) -> control_pb2.GetConfigResponse:
        response: control_pb2.GetConfigResponse = self.call(
            self._daemon.GetConfig, control_pb2.GetConfigRequest()
        )
        return response

    def reload(self, *, trial: bool) -> control_pb2.ReloadConfigResponse:
        """Applies changed settings; with `trial` only says what that would do."""
        response: control_pb2.ReloadConfigResponse = self.call(
            self._daemon.ReloadConfig, control_pb2.ReloadConfigRequest(validate_only=trial)
        )
        return response

    def shutdown(self) -> None:
        self.call(self._daemon.Shutdown, control_pb2.ShutdownRequest())

    def modes(self) -> control_pb2.GetModeResponse:
        response: control_pb2.GetModeResponse = self.call(
            self._modes.GetMode, control_pb2.GetModeRequest()
        )
        return response

    def set_mode(self, name: str, ready_seconds: float = 0.0) -> control_pb2.SetModeResponse:
        """Switches; a stop-first mode's server may take `ready_seconds` to come up."""
        request = control_pb2.SetModeRequest(mode=name)
        request.ready_timeout.FromMilliseconds(round(ready_seconds * 1000))
        response: control_pb2.SetModeResponse = self.call(
            self._modes.SetMode, request, MODE_CALL_SECONDS
        )
        return response

    def workers(self) -> control_pb2.ListWorkersResponse:
        response: control_pb2.ListWorkersResponse = self.call(
            self._workers.ListWorkers, control_pb2.ListWorkersRequest()
        )
        return response

    def restart_worker(self, name: str) -> control_pb2.Worker:
        response: control_pb2.RestartWorkerResponse = self.call(
            self._workers.RestartWorker,
            control_pb2.RestartWorkerRequest(name=name),
            SLOW_CALL_SECONDS,
        )
        return response.worker

    def forget_learned(self, mode: str) -> control_pb2.ForgetLearnedResponse:
        response: control_pb2.ForgetLearnedResponse = self.call(
            self._workers.ForgetLearned, control_pb2.ForgetLearnedRequest(mode=mode)
        )
        return response

    def list_caches(self) -> cache_pb2.ListCachesResponse:
        """Every cache, all pages put together."""
        request = cache_pb2.ListCachesRequest()
        whole: cache_pb2.ListCachesResponse = self.call(self.caches.ListCaches, request)
        while whole.next_page_token:
            request.page_token = whole.next_page_token
            page = self.call(self.caches.ListCaches, request)
            whole.caches.extend(page.caches)
            whole.next_page_token = page.next_page_token
        return whole

    def metrics(self) -> control_pb2.GetMetricsResponse:
        response: control_pb2.GetMetricsResponse = self.call(
            self._metrics.GetMetrics, control_pb2.GetMetricsRequest()
        )
        return response

    def requests(self, count: int) -> control_pb2.ListRequestsResponse:
        """The newest `count` request records, newest first."""
        response: control_pb2.ListRequestsResponse = self.call(
            self._metrics.ListRequests, control_pb2.ListRequestsRequest(page_size=count)
        )
        return response

    def call(
        self, method: Callable[..., Any], request: Message, seconds: float = CALL_SECONDS
    ) -> Any:
        """Calls one method of a stub, such as `client.caches.PinCache`.

        Raises:
            CommandError: the call failed, or took longer than `seconds`.
        """
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise explain(error, self._socket_path) from None

    def _check_answers(self) -> None:
        """Waits until the daemon answers at all.

        This call waits for the connection. `grpc.channel_ready_future` would do the same, and makes
        closing the channel take 0.2 s.
        """
        check = self._channel.unary_unary(_HEALTH_CHECK)
        try:
            check(b"", timeout=CONNECT_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._channel.close()
                raise no_answer(self._socket_path, CONNECT_SECONDS) from None
            # Any other error shows that the daemon responds.


def _probe(socket_path: Path) -> None:
    """Finds out at once that no daemon listens; gRPC would retry until its deadline."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(str(socket_path))
        except FileNotFoundError:
            raise not_running(socket_path) from None
        except ConnectionRefusedError:
            raise nobody_listens(socket_path) from None
        except (TimeoutError, BlockingIOError):
            raise no_answer(socket_path, CONNECT_SECONDS) from None
        except OSError as error:
            raise unreachable(socket_path, error) from None
