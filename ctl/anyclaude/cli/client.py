"""The control API as typed calls: the one client of the daemon, for every verb and the launcher.

Every call has a deadline: connecting 2 s, answering 5 s, and longer only where the daemon has to
stop something first. Failures are raised as `CommandError`, with the exit code they stand for.
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

from anyclaude.cli.errors import explain, no_answer, nobody_listens, not_running, unreachable
from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.worker.v1 import worker_pb2

CONNECT_SECONDS: Final = 2.0
CALL_SECONDS: Final = 5.0
# A worker drains before it restarts; pruning may wait for the disk.
SLOW_CALL_SECONDS: Final = 60.0
# Running answers may have to end and a model to load; each has a bound of its own in the daemon.
MODE_CALL_SECONDS: Final = 1800.0

# Generated without annotations.
_stubs: Any = control_pb2_grpc


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
        try:
            grpc.channel_ready_future(self._channel).result(CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise no_answer(socket_path, CONNECT_SECONDS) from None
        self._daemon = _stubs.DaemonServiceStub(self._channel)
        self._modes = _stubs.ModeServiceStub(self._channel)
        self._workers = _stubs.WorkerControlServiceStub(self._channel)
        self._caches = _stubs.CacheServiceStub(self._channel)
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
        response: control_pb2.GetStatusResponse = self._call(
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
        response: control_pb2.GetConfigResponse = self._call(
            self._daemon.GetConfig, control_pb2.GetConfigRequest()
        )
        return response

    def shutdown(self) -> None:
        self._call(self._daemon.Shutdown, control_pb2.ShutdownRequest())

    def modes(self) -> control_pb2.GetModeResponse:
        response: control_pb2.GetModeResponse = self._call(
            self._modes.GetMode, control_pb2.GetModeRequest()
        )
        return response

    def set_mode(self, name: str, ready_seconds: float = 0.0) -> control_pb2.SetModeResponse:
        """Switches; a stop-first mode's server may take `ready_seconds` to come up."""
        request = control_pb2.SetModeRequest(mode=name)
        request.ready_timeout.FromMilliseconds(round(ready_seconds * 1000))
        response: control_pb2.SetModeResponse = self._call(
            self._modes.SetMode, request, MODE_CALL_SECONDS
        )
        return response

    def workers(self) -> control_pb2.ListWorkersResponse:
        response: control_pb2.ListWorkersResponse = self._call(
            self._workers.ListWorkers, control_pb2.ListWorkersRequest()
        )
        return response

    def restart_worker(self, name: str) -> control_pb2.Worker:
        response: control_pb2.RestartWorkerResponse = self._call(
            self._workers.RestartWorker,
            control_pb2.RestartWorkerRequest(name=name),
            SLOW_CALL_SECONDS,
        )
        return response.worker

    def caches(self) -> control_pb2.ListCachesResponse:
        """Every cache, all pages put together."""
        whole = control_pb2.ListCachesResponse()
        token = ""
        while True:
            page: control_pb2.ListCachesResponse = self._call(
                self._caches.ListCaches, control_pb2.ListCachesRequest(page_token=token)
            )
            whole.caches.extend(page.caches)
            whole.models.extend(page.models)
            if page.HasField("memory"):
                whole.memory.CopyFrom(page.memory)
            token = page.next_page_token
            if not token:
                return whole

    def cache(self, name: str) -> worker_pb2.Cache:
        response: control_pb2.GetCacheResponse = self._call(
            self._caches.GetCache, control_pb2.GetCacheRequest(name=name)
        )
        return response.cache

    def prune(
        self, prune_filter: worker_pb2.PruneFilter, *, force: bool
    ) -> control_pb2.PruneCachesResponse:
        """Removes what the filter selects; without `force` only says what would go."""
        response: control_pb2.PruneCachesResponse = self._call(
            self._caches.PruneCaches,
            control_pb2.PruneCachesRequest(filter=prune_filter, force=force),
            SLOW_CALL_SECONDS,
        )
        return response

    def cache_tree(self) -> control_pb2.GetCacheTreeResponse:
        """Every segment, parents before children."""
        response: control_pb2.GetCacheTreeResponse = self._call(
            self._caches.GetCacheTree, control_pb2.GetCacheTreeRequest()
        )
        return response

    def pin(self, name: str, *, pinned: bool) -> worker_pb2.PinCacheResponse:
        response: control_pb2.PinCacheResponse = self._call(
            self._caches.PinCache, control_pb2.PinCacheRequest(name=name, pinned=pinned)
        )
        return response.result

    def warm(self, body_json: bytes, seconds: float) -> worker_pb2.Usage:
        """Computes a request's prompt for its cache; what it took."""
        response: control_pb2.WarmCacheResponse = self._call(
            self._caches.WarmCache, control_pb2.WarmCacheRequest(body_json=body_json), seconds
        )
        return response.usage

    def verify(self, max_tokens: int, seconds: float) -> worker_pb2.VerifyCachesResponse:
        """Compares kept segments with fresh runs."""
        response: control_pb2.VerifyCachesResponse = self._call(
            self._caches.VerifyCaches,
            control_pb2.VerifyCachesRequest(max_tokens=max_tokens),
            seconds,
        )
        return response.result

    def export(
        self, request: worker_pb2.ExportCachesRequest, seconds: float
    ) -> worker_pb2.ExportCachesResponse:
        """Writes caches to a file."""
        response: control_pb2.ExportCachesResponse = self._call(
            self._caches.ExportCaches, control_pb2.ExportCachesRequest(request=request), seconds
        )
        return response.result

    def take_over(
        self, request: worker_pb2.ImportCachesRequest, seconds: float
    ) -> worker_pb2.ImportCachesResponse:
        """Takes the caches of an export over."""
        response: control_pb2.ImportCachesResponse = self._call(
            self._caches.ImportCaches, control_pb2.ImportCachesRequest(request=request), seconds
        )
        return response.result

    def explain(self, request_id: str) -> worker_pb2.Explanation:
        """Why a request reused what it did."""
        response: control_pb2.ExplainCacheResponse = self._call(
            self._caches.ExplainCache, control_pb2.ExplainCacheRequest(request_id=request_id)
        )
        return response.explanation

    def metrics(self) -> control_pb2.GetMetricsResponse:
        response: control_pb2.GetMetricsResponse = self._call(
            self._metrics.GetMetrics, control_pb2.GetMetricsRequest()
        )
        return response

    def requests(self, count: int) -> control_pb2.ListRequestsResponse:
        """The newest `count` request records, newest first."""
        response: control_pb2.ListRequestsResponse = self._call(
            self._metrics.ListRequests, control_pb2.ListRequestsRequest(page_size=count)
        )
        return response

    def _call(
        self, method: Callable[..., Any], request: Message, seconds: float = CALL_SECONDS
    ) -> Any:
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise explain(error, self._socket_path) from None


def _probe(socket_path: Path) -> None:
    """Tells a missing daemon from a slow one at once; gRPC would retry until its deadline."""
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
