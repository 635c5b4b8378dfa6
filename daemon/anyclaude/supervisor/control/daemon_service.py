"""DaemonService: status, config, shutdown."""

import json
from collections.abc import AsyncIterator
from typing import Any

from anyclaude.control.v1 import control_pb2, control_pb2_grpc
from anyclaude.supervisor.control.errors import answers
from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.status import status


class DaemonService(control_pb2_grpc.DaemonServiceServicer):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @answers
    async def GetStatus(
        self, request: control_pb2.GetStatusRequest
    ) -> control_pb2.GetStatusResponse:
        return control_pb2.GetStatusResponse(status=await status(self._daemon))

    async def WatchStatus(
        self, request: control_pb2.WatchStatusRequest, context: Any
    ) -> AsyncIterator[control_pb2.WatchStatusResponse]:
        """A watcher that does not read misses states, never the last one."""
        version = self._daemon.changes.version
        while not self._daemon.changes.closed:
            yield control_pb2.WatchStatusResponse(status=await status(self._daemon))
            version = await self._daemon.changes.after(version)

    @answers
    async def GetConfig(
        self, request: control_pb2.GetConfigRequest
    ) -> control_pb2.GetConfigResponse:
        loaded = self._daemon.loaded
        return control_pb2.GetConfigResponse(
            file=str(loaded.file),
            entries=[
                control_pb2.ConfigEntry(key=key, value_json=json.dumps(value), origin=origin)
                for key, value, origin in loaded.entries()
            ],
        )

    @answers
    async def Shutdown(self, request: control_pb2.ShutdownRequest) -> control_pb2.ShutdownResponse:
        self._daemon.stop()
        return control_pb2.ShutdownResponse()
