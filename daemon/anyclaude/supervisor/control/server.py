"""The gRPC server of the control API, with health and reflection."""

from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.sockets import RpcServer
from anyclaude.supervisor.control.caches import SERVICE_NAME as CACHE_SERVICE
from anyclaude.supervisor.control.caches import CacheForwarder
from anyclaude.supervisor.control.services import (
    DaemonService,
    MetricsService,
    ModeService,
    WorkerControlService,
)
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.supervisor import State

_SERVICES: Final[tuple[tuple[Any, Any], ...]] = (
    (control_pb2_grpc.add_DaemonServiceServicer_to_server, DaemonService),
    (control_pb2_grpc.add_ModeServiceServicer_to_server, ModeService),
    (control_pb2_grpc.add_WorkerControlServiceServicer_to_server, WorkerControlService),
    (control_pb2_grpc.add_MetricsServiceServicer_to_server, MetricsService),
)
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class ControlServer:
    """Serves the control socket, which belongs to the process that holds the daemon's lock."""

    def __init__(self, daemon: Daemon, paths: Paths) -> None:
        self._daemon = daemon
        self._health = health.aio.HealthServicer()
        self._services = [(add, service(daemon)) for add, service in _SERVICES]
        self._server = RpcServer(paths.control_socket, self._add_services)
        self.keep_listening = self._server.keep_listening

    def _add_services(self, server: grpc.aio.Server) -> None:
        for add, service in self._services:
            add(service, server)
        server.add_generic_rpc_handlers((CacheForwarder(self._daemon),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.full_name for service in control_pb2.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection(
            [*names, CACHE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )

    async def start(self) -> None:
        await self._server.start()
        await self._health.set("", _SERVING)

    async def keep_health(self) -> None:
        """Keeps one health status per child up to date; runs until cancelled."""
        version = -1
        while True:
            version = await self._daemon.changes.after(version)
            for child in self._daemon.children:
                serving = child.state is State.READY
                await self._health.set(child.name, _SERVING if serving else _NOT_SERVING)

    async def drain(self) -> None:
        """Reports NOT_SERVING from now on, and still answers calls."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        await self._server.stop(grace_seconds)
