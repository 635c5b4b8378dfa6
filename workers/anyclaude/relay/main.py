"""The process of the relay worker: one event loop, two sockets, many servers.

On SIGTERM no new call is accepted, running ones have `relay.stop_grace_seconds` to finish, and the
process exits with 0.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, MutableMapping

import grpc.aio
import structlog
import uvloop

from anyclaude.messages.documents import limit_documents
from anyclaude.relay.environment import Key, find_proxy
from anyclaude.relay.service import WorkerService
from anyclaude.relay.upstream import Upstream
from anyclaude.runtime import logs
from anyclaude.runtime.child import Child, ExitCode, begin
from anyclaude.runtime.sockets import RpcServer, kept_listening
from anyclaude.runtime.streams import StreamServer, stream_socket
from anyclaude.runtime.upstreams import UpstreamSettings, without_credentials
from anyclaude.worker.v1 import worker_pb2_grpc

log = structlog.get_logger(__name__)


def main() -> None:
    child = begin()
    logs.configure(child.birth.settings.log.level, console=False)
    limit_documents(child.birth.settings.documents)
    try:
        uvloop.run(_serve(child))
    except Exception as error:
        log.exception("relay failed")
        child.leave(ExitCode.FAILED, f"{type(error).__name__}: {error}")


async def _serve(child: Child) -> None:
    birth = child.birth
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    upstreams = build_upstreams(birth.settings.upstreams, os.environ)
    service = WorkerService(upstreams)

    def add(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]

    server = RpcServer(birth.socket_path, add)
    await server.start()
    streams = StreamServer(stream_socket(birth.socket_path), service.generate)
    await streams.start()
    async with kept_listening(server, streams):
        child.pulse.keep_beating()
        child.ready({"upstreams": list(upstreams)})
        log.info("relay ready", upstreams=list(upstreams), generation=birth.generation)
        await stop.wait()
    log.info("relay stopping", grace_seconds=birth.settings.relay.stop_grace_seconds)
    grace_seconds = birth.settings.relay.stop_grace_seconds
    await asyncio.gather(server.stop(grace_seconds), streams.stop(grace_seconds))
    await asyncio.gather(*(upstream.client.close() for upstream in upstreams.values()))


def build_upstreams(
    tables: Mapping[str, UpstreamSettings], environ: MutableMapping[str, str]
) -> dict[str, Upstream]:
    """The servers that have an address. Their keys are removed from `environ`."""
    named = {name: settings for name, settings in tables.items() if settings.base_url}
    values = {name: environ.get(settings.api_key_env, "") for name, settings in named.items()}
    for settings in named.values():
        environ.pop(settings.api_key_env, None)
    proxies = {name: find_proxy(settings, environ) for name, settings in named.items()}
    for name, proxy in proxies.items():
        if proxy:
            log.info("server behind a proxy", upstream=name, proxy=without_credentials(proxy))
    return {
        name: Upstream(
            name, settings, Key(name, settings, values[name].strip()), proxy=proxies[name]
        )
        for name, settings in named.items()
    }
