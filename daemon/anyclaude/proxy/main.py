"""The front end as a process: one inherited HTTP socket, one gRPC socket for the daemon.

Stopping (SIGTERM): no new connection is accepted, requests in progress have
`server.drain_timeout_seconds` to finish, those that still run then end in an error, the records
reach the daemon, and the process exits with 0.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import structlog
import uvloop

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.frontend.v1.frontend_pb2_grpc import (
    FrontendServiceServicer,
    add_FrontendServiceServicer_to_server,
)
from anyclaude.proxy.access import AccessChecks, Admission, TokenError, read_token
from anyclaude.proxy.app import App, build_router
from anyclaude.proxy.auto import Policy
from anyclaude.proxy.body_budget import BodyBudget
from anyclaude.proxy.endpoints import Endpoints
from anyclaude.proxy.keep_awake import KeepAwake, command_of
from anyclaude.proxy.messages import MessagesEndpoint
from anyclaude.proxy.page import StatusPage
from anyclaude.proxy.passthrough import Passthrough
from anyclaude.proxy.records import RecordFeed
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.search import SearchClient
from anyclaude.proxy.server import HttpServer
from anyclaude.proxy.submission import Submissions
from anyclaude.proxy.vision import Vision
from anyclaude.proxy.workers import Workers
from anyclaude.runtime import logs
from anyclaude.runtime.child import Birth, Child, ExitCode, begin
from anyclaude.runtime.sockets import RpcServer

log = structlog.get_logger("anyclaude.proxy")

# How long the daemon may take to read the last records.
_LAST_RECORDS_SECONDS: Final = 1.0


def main() -> None:
    child = begin()
    logs.configure(child.birth.settings.log.level, console=False)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        uvloop.run(_serve(child, _Frontend(child.birth)))
    except TokenError as error:
        child.leave(ExitCode.CONFIG, str(error))
    except Exception as error:
        log.exception("front end failed")
        child.leave(ExitCode.FAILED, f"{type(error).__name__}: {error}")


class _Frontend:
    """The parts of the process, wired."""

    def __init__(self, birth: Birth) -> None:
        server = birth.settings.server
        self.drained = asyncio.Event()
        routes = RouteTable()
        workers = Workers(self.drained)
        self.workers = workers
        submissions = Submissions(
            workers,
            routes,
            self.drained,
            wait_seconds=server.worker_restart_wait_seconds,
            max_answer_tokens=server.continued_answer_tokens,
        )
        self.awake = KeepAwake(command_of() if server.keep_awake else (), server.keep_awake_seconds)
        self.records = RecordFeed(birth.settings.log.max_records, self.awake.set_running)
        self.service = FrontendService(routes, workers, self.records)
        admission = Admission(server.max_requests)
        bodies = BodyBudget(
            server.body_memory_bytes, server.body_wait_seconds, server.small_body_bytes
        )
        self.search = SearchClient(birth.settings.search)
        token = read_token(server.auth_token_file)
        router = build_router(
            MessagesEndpoint(
                routes,
                workers,
                submissions,
                admission,
                bodies,
                Policy(birth.settings),
                self.search,
                Vision(birth.settings.vision, birth.paths.descriptions_folder, routes, submissions),
            ),
            Endpoints(birth.paths, routes),
            Passthrough(routes, workers, admission, token),
            StatusPage(birth.paths, has_token=token is not None),
        )
        access = AccessChecks(token, server.allowed_hosts, server.allowed_origins)
        app = App(server, access, router, self.records)
        self.http = HttpServer(
            app,
            drain_timeout_seconds=server.drain_timeout_seconds,
            client_stall_seconds=server.client_stall_seconds,
        )


class FrontendService(FrontendServiceServicer):
    """What the daemon calls: it pushes routes, and reads running requests and records."""

    def __init__(self, routes: RouteTable, workers: Workers, records: RecordFeed) -> None:
        self._routes = routes
        self._workers = workers
        self._records = records

    async def SetRoutes(
        self, request: frontend.SetRoutesRequest, context: Any
    ) -> frontend.SetRoutesResponse:
        if self._routes.push(request):
            self._workers.keep({route.worker_socket for route in request.routes})
            log.debug("routes", version=request.version, default_mode=request.default_mode)
        return frontend.SetRoutesResponse()

    async def StreamRecords(
        self, request: frontend.StreamRecordsRequest, context: Any
    ) -> AsyncIterator[frontend.StreamRecordsResponse]:
        async for response in self._records.follow():
            yield response

    async def ListRunning(
        self, request: frontend.ListRunningRequest, context: Any
    ) -> frontend.ListRunningResponse:
        return frontend.ListRunningResponse(requests=self._records.running())


async def _serve(child: Child, frontend: _Frontend) -> None:
    birth = child.birth
    _stop_on_sigterm(frontend, birth.settings.server.drain_timeout_seconds)
    rpc = await _start_rpc(frontend.service, birth.socket_path)
    listening_again = asyncio.ensure_future(rpc.keep_listening())
    keeping_awake = asyncio.ensure_future(frontend.awake.run())
    serving = asyncio.ensure_future(frontend.http.serve([_listener(birth)]))
    listening = asyncio.ensure_future(frontend.http.listening.wait())
    await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not frontend.http.listening.is_set():
        # The server ended before it listened: this raises the reason.
        await serving
    child.pulse.keep_beating()
    child.ready()
    log.info("front end ready", generation=birth.generation)
    await serving
    listening_again.cancel()
    keeping_awake.cancel()
    frontend.records.close()
    await rpc.stop(_LAST_RECORDS_SECONDS)
    await frontend.workers.close()
    await frontend.search.close()
    await asyncio.wait([keeping_awake])


async def _start_rpc(service: FrontendService, socket_path: Path) -> RpcServer:
    def add(server: grpc.aio.Server) -> None:
        add_FrontendServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]

    rpc = RpcServer(socket_path, add)
    await rpc.start()
    return rpc


def _listener(birth: Birth) -> socket.socket:
    assert birth.listen_fd is not None, "the front end inherits the HTTP socket"
    listener = socket.socket(fileno=birth.listen_fd)
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _stop_on_sigterm(frontend: _Frontend, drain_timeout_seconds: float) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        log.info("front end stopping", drain_timeout_seconds=drain_timeout_seconds)
        frontend.http.should_exit = True
        loop.call_later(drain_timeout_seconds, frontend.drained.set)

    loop.add_signal_handler(signal.SIGTERM, stop)
