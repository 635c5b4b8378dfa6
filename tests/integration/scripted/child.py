"""A child with no model and no HTTP, for tests of the daemon: it speaks the child protocol.

    child.py frontend STATE_FILE
    child.py worker BEHAVIOUR [ARGUMENT]

The front end writes each routing table it is given to STATE_FILE as JSON, and gives one request
record to whoever follows; with a file `no-frontend` beside STATE_FILE it leaves with 78.
Behaviours of the worker: `ready`; `exit CODE` at its start; `hang` before it is ready; `deaf` to
SIGTERM once it is ready; `stuck` in a decode step in its first generation.
"""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import grpc
from google.protobuf.json_format import MessageToJson

import anyclaude.runtime.cheap_start  # noqa: F401 - before the other imports
from anyclaude.cache.v1 import cache_pb2, cache_pb2_grpc
from anyclaude.frontend.v1 import frontend_pb2, frontend_pb2_grpc
from anyclaude.runtime import channels, logs
from anyclaude.runtime.call_errors import CallError, rpc_method
from anyclaude.runtime.child import Child, ExitCode, begin
from anyclaude.runtime.pulse import Phase
from anyclaude.worker.v1 import worker_pb2, worker_pb2_grpc


class ScriptedFrontend(frontend_pb2_grpc.FrontendServiceServicer):
    def __init__(self, state_file: Path) -> None:
        self._state_file = state_file
        self.stopping = asyncio.Event()

    async def SetRoutes(self, request, context):
        text = MessageToJson(request, preserving_proto_field_name=True)
        partial = self._state_file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self._state_file)
        return frontend_pb2.SetRoutesResponse()

    async def ListRunning(self, request, context):
        return frontend_pb2.ListRunningResponse()

    async def StreamRecords(self, request, context):
        record = frontend_pb2.RequestRecord(
            request_id="req_1",
            route="/v1/messages",
            mode="mlx-lm",
            status=200,
            outcome=frontend_pb2.OUTCOME_COMPLETED,
            usage=worker_pb2.Usage(
                input_tokens=1, cache_read_tokens=90, cache_creation_tokens=9, output_tokens=7
            ),
        )
        record.time_to_first_token.FromMilliseconds(300)
        yield frontend_pb2.StreamRecordsResponse(record=record)
        await self.stopping.wait()


class ScriptedWorker(worker_pb2_grpc.WorkerServiceServicer, cache_pb2_grpc.CacheServiceServicer):
    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._cancelled = []
        self._caches = [
            cache_pb2.Cache(name=f"lineages/s{n}/main", session_id=f"s{n}", bytes=100)
            for n in range(3)
        ]

    async def GetStatus(self, request, context):
        return worker_pb2.GetStatusResponse(
            model=worker_pb2.ModelInfo(id="scripted", context_window_tokens=1000),
            memory=worker_pb2.MemoryStatus(cache_bytes=300, cache_limit_bytes=1000),
            running_requests=2,
            caches=len(self._caches),
        )

    async def ListCaches(self, request, context):
        return cache_pb2.ListCachesResponse(caches=[*self._caches, *self._cancelled])

    @rpc_method
    async def GetCache(self, request):
        raise CallError(grpc.StatusCode.NOT_FOUND, "UNKNOWN_CACHE", f"no {request.name} here")

    @rpc_method
    async def PruneCaches(self, request):
        session_id = request.filter.session_id
        if session_id in _FAULTS:
            await _FAULTS[session_id](self)
        gone = [c for c in self._caches if c.session_id == session_id]
        if request.force:
            self._caches = [c for c in self._caches if c not in gone]
        return cache_pb2.PruneCachesResponse(
            caches=gone, freed_bytes=100 * len(gone), remaining_bytes=300 - 100 * len(gone)
        )

    async def _break(self):
        raise RuntimeError("scripted to fail")

    async def _refuse(self):
        raise CallError(
            grpc.StatusCode.DATA_LOSS, "SCRIPTED", "scripted to refuse", {"cache": "any"}, 7.0
        )

    async def _stall(self):
        """Never answers; the list shows when the caller has gone."""
        try:
            await self.stopping.wait()
        except asyncio.CancelledError:
            self._cancelled = [cache_pb2.Cache(name="cancelled")]
            raise

    async def _die(self):
        os._exit(1)


# What a prune of these sessions ends in.
_FAULTS = {
    "broken": ScriptedWorker._break,
    "refused": ScriptedWorker._refuse,
    "slow": ScriptedWorker._stall,
    "deadly": ScriptedWorker._die,
}


async def serve(child: Child, adds, service, deaf: bool = False) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if deaf else service.stopping.set)
    server = channels.aio_server()
    for add in adds:
        add(service, server)
    channels.bind(server, child.birth.socket_path)
    await server.start()
    child.pulse.keep_beating()
    child.ready()
    await service.stopping.wait()
    await server.stop(1)


def frontend(child: Child, state_file: str) -> None:
    if Path(state_file).with_name("no-frontend").exists():
        child.leave(ExitCode.CONFIG, "scripted to have no front end")
    add = frontend_pb2_grpc.add_FrontendServiceServicer_to_server
    asyncio.run(serve(child, [add], ScriptedFrontend(Path(state_file))))


def worker(child: Child, behaviour: str, argument: str = "") -> None:
    if behaviour == "exit":
        print("raw words of a dying process", file=sys.stderr)
        child.leave(ExitCode(int(argument)), f"scripted to leave with {argument}")
    if behaviour == "hang":
        threading.Event().wait()
    if behaviour == "stuck" and child.birth.generation == 1:
        child.pulse.step(Phase.DECODE)
    adds = [
        worker_pb2_grpc.add_WorkerServiceServicer_to_server,
        cache_pb2_grpc.add_CacheServiceServicer_to_server,
    ]
    asyncio.run(serve(child, adds, ScriptedWorker(), deaf=behaviour == "deaf"))


if __name__ == "__main__":
    me = begin()
    logs.configure(me.birth.settings.log.level)
    {"frontend": frontend, "worker": worker}[sys.argv[1]](me, *sys.argv[2:])
