"""The client of the daemon's control socket, for every verb and the launcher.

Every call has a deadline: 2 s to connect and 5 s to respond, longer only where the daemon has to
stop something first or a worker computes. Failures are raised as `CommandError`, with their exit
code.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

# First: it sets gRPC's environment before gRPC is imported.
from anyclaude.runtime import channels  # isort: skip
import grpc
from google.protobuf.message import Message

from anyclaude.cache.v1 import cache_pb2, cache_pb2_grpc
from anyclaude.cli.errors import explain, no_answer, nobody_listens, not_running, unreachable
from anyclaude.control.v1 import control_pb2 as pb
from anyclaude.control.v1 import control_pb2_grpc
from anyclaude.frontend.v1.frontend_pb2 import RequestRecord

# More request records than any daemon keeps (`log.max_records`).
_ALL: Final = 2**31
CONNECT_SECONDS: Final = 2.0
CALL_SECONDS: Final = 5.0
# A worker drains before it restarts; pruning may wait for the disk.
SLOW_CALL_SECONDS: Final = 60.0
# Running requests may have to end and a model to load; the daemon limits the time of each.
MODE_CALL_SECONDS: Final = 1800.0

Response = TypeVar("Response", bound=Message)

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

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def status(self) -> pb.Status:
        return self._get(pb.GetStatusResponse, self._daemon.GetStatus, pb.GetStatusRequest()).status

    def watch_status(self, seconds: float) -> Iterator[pb.Status]:
        """The status now and at every change; ends by a TIMEOUT error after `seconds`."""
        call = self._daemon.WatchStatus(pb.WatchStatusRequest(), timeout=seconds)
        try:
            for response in call:
                yield response.status
        except grpc.RpcError as error:
            raise explain(error, self._socket_path) from None
        finally:
            call.cancel()

    def config(self) -> pb.GetConfigResponse:
        return self._get(pb.GetConfigResponse, self._daemon.GetConfig, pb.GetConfigRequest())

    def reload(self, *, trial: bool) -> pb.ReloadConfigResponse:
        """Applies changed settings; with `trial` only says what that would do."""
        request = pb.ReloadConfigRequest(validate_only=trial)
        return self._get(pb.ReloadConfigResponse, self._daemon.ReloadConfig, request)

    def shutdown(self) -> None:
        self.call(self._daemon.Shutdown, pb.ShutdownRequest())

    def modes(self) -> pb.GetModeResponse:
        return self._get(pb.GetModeResponse, self._modes.GetMode, pb.GetModeRequest())

    def set_mode(self, name: str, ready_seconds: float = 0.0) -> pb.SetModeResponse:
        """Switches; a stop-first mode's server may take `ready_seconds` to come up."""
        request = pb.SetModeRequest(mode=name)
        request.ready_timeout.FromMilliseconds(round(ready_seconds * 1000))
        return self._get(pb.SetModeResponse, self._modes.SetMode, request, MODE_CALL_SECONDS)

    def workers(self) -> pb.ListWorkersResponse:
        return self._get(pb.ListWorkersResponse, self._workers.ListWorkers, pb.ListWorkersRequest())

    def restart_worker(self, name: str) -> pb.Worker:
        request, restart = pb.RestartWorkerRequest(name=name), self._workers.RestartWorker
        return self._get(pb.RestartWorkerResponse, restart, request, SLOW_CALL_SECONDS).worker

    def forget_learned(self, mode: str) -> pb.ForgetLearnedResponse:
        return self._get(
            pb.ForgetLearnedResponse,
            self._workers.ForgetLearned,
            pb.ForgetLearnedRequest(mode=mode),
        )

    def list_caches(self) -> cache_pb2.ListCachesResponse:
        """Every cache, all pages put together."""
        request = cache_pb2.ListCachesRequest()
        whole = self._get(cache_pb2.ListCachesResponse, self.caches.ListCaches, request)
        while whole.next_page_token:
            request.page_token = whole.next_page_token
            page = self.call(self.caches.ListCaches, request)
            whole.caches.extend(page.caches)
            whole.next_page_token = page.next_page_token
        return whole

    def metrics(self) -> pb.GetMetricsResponse:
        return self._get(pb.GetMetricsResponse, self._metrics.GetMetrics, pb.GetMetricsRequest())

    def requests(self, count: int) -> pb.ListRequestsResponse:
        """The newest `count` request records, newest first."""
        return self._get(
            pb.ListRequestsResponse,
            self._metrics.ListRequests,
            pb.ListRequestsRequest(page_size=count),
        )

    def requests_of(self, *, session_id: str = "", launch_id: str = "") -> list[RequestRecord]:
        """The kept records of one session or launch, newest first."""
        request = pb.ListRequestsRequest(page_size=_ALL, session_id=session_id, launch_id=launch_id)
        return list(self._get(pb.ListRequestsResponse, self._metrics.ListRequests, request).records)

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

    def _get(
        self,
        kind: type[Response],
        method: Callable[..., Any],
        request: Message,
        seconds: float = CALL_SECONDS,
    ) -> Response:
        """As `call`, for a method whose response is of this `kind`."""
        response = self.call(method, request, seconds)
        assert isinstance(response, kind)
        return response

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
