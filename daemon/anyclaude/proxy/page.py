"""The status page: one HTML file without external assets, and the two requests that it sends.

The page itself has no data, so it needs no token. `/status.json` does like every other endpoint.
Switching the mode changes where prompts go, so `/mode` works only where a token is configured.
"""

import asyncio
import os
from importlib.resources import files
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, ValidationError

from anyclaude.cache.v1 import cache_pb2
from anyclaude.cache.v1.cache_pb2_grpc import CacheServiceStub
from anyclaude.control.v1 import control_pb2 as control
from anyclaude.control.v1.control_pb2_grpc import (
    DaemonServiceStub,
    MetricsServiceStub,
    ModeServiceStub,
)
from anyclaude.messages.errors import ApiError
from anyclaude.proxy import cache_tree
from anyclaude.proxy.context import RequestContext
from anyclaude.proxy.daemon import ask_daemon, stub
from anyclaude.runtime.conversations import Conversations
from anyclaude.runtime.paths import Paths

_REQUESTS: Final = 200
# They keep the sessions of one project apart.
_ID_CHARACTERS: Final = 8
_SECONDS: Final = 5.0
# A stop-first mode first lets running requests end.
_SWITCH_SECONDS: Final = 330.0
# Nothing from elsewhere, and no page may frame this one.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
)


class _Switch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: str


class StatusPage:
    def __init__(self, paths: Paths, *, has_token: bool) -> None:
        self._paths = paths
        self._has_token = has_token
        self._html = files(__package__).joinpath("page.html").read_bytes()

    async def show(self, context: RequestContext) -> None:
        """The page for a browser; nothing for a client that only tries whether somebody answers."""
        if "text/html" not in context.headers.get("accept", ""):
            await context.response.send_body(200, b"", "text/plain; charset=utf-8")
            return
        context.response.headers["content-security-policy"] = _POLICY
        await context.response.send_body(200, self._html, "text/html; charset=utf-8")

    async def status(self, context: RequestContext) -> None:
        """Everything that the page shows."""
        async with ask_daemon(self._paths) as channel:
            status = await stub(DaemonServiceStub, channel).GetStatus(
                control.GetStatusRequest(), timeout=_SECONDS
            )
            modes = await stub(ModeServiceStub, channel).GetMode(
                control.GetModeRequest(), timeout=_SECONDS
            )
            requests = await stub(MetricsServiceStub, channel).ListRequests(
                control.ListRequestsRequest(page_size=_REQUESTS), timeout=_SECONDS
            )
            caches = await _caches(channel)
        titles = await asyncio.to_thread(self._titles, requests, caches)
        await context.response.send_json(
            200,
            {
                "status": _document(status.status),
                "modes": _document(modes),
                "requests": _document(requests),
                "caches": await asyncio.to_thread(cache_tree.rows, caches.segments, titles),
                "titles": titles,
                "can_switch": self._has_token,
            },
        )

    def _titles(
        self, requests: control.ListRequestsResponse, caches: cache_pb2.GetCacheTreeResponse
    ) -> dict[str, str]:
        """What conversations are about. Their words are for readers with a token only."""
        records = (*requests.records, *(one.record for one in requests.running))
        sessions = {record.identity.session_id for record in records}
        lineages = (name for segment in caches.segments for name in segment.lineages)
        sessions |= set(map(cache_tree.session_of, lineages))
        conversations = Conversations(os.environ)

        def title(session: str) -> str:
            if self._has_token:
                return conversations.title(session)
            project = conversations.project(session)
            return f"{project} {session[:_ID_CHARACTERS]}" if project else ""

        return {session: found for session in sessions if (found := title(session))}

    async def switch(self, context: RequestContext) -> None:
        """Switches the mode."""
        if not self._has_token:
            raise ApiError(
                403,
                "Without a token any program on this machine could switch. Set "
                "server.auth_token_file, or use `anyclaudectl mode NAME`.",
            )
        try:
            wanted = _Switch.model_validate_json(await context.body.read())
        except ValidationError as error:
            raise ApiError(400, f'The body must be {{"mode": "NAME"}}: {error}') from None
        async with ask_daemon(self._paths) as channel:
            done = await stub(ModeServiceStub, channel).SetMode(
                control.SetModeRequest(mode=wanted.mode), timeout=_SWITCH_SECONDS
            )
        await context.response.send_json(200, _document(done))


async def _caches(channel: grpc.aio.Channel) -> cache_pb2.GetCacheTreeResponse:
    """The tree of caches; empty while their worker is down, which the status says."""
    try:
        found: cache_pb2.GetCacheTreeResponse = await stub(CacheServiceStub, channel).GetCacheTree(
            cache_pb2.GetCacheTreeRequest(), timeout=_SECONDS
        )
    except grpc.aio.AioRpcError:
        return cache_pb2.GetCacheTreeResponse()
    return found


def _document(message: Message) -> dict[str, Any]:
    # 64-bit integers are texts here, which JavaScript converts where it computes.
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
