"""The worker contract for all relayed modes. A refused request becomes a Failed event."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc.aio
import structlog

from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.relay.counting import count_tokens
from anyclaude.relay.forward import forward
from anyclaude.relay.generation import generate
from anyclaude.relay.upstream import Upstream
from anyclaude.runtime.streams import Emit
from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.worker.v1 import worker_pb2_grpc

log = structlog.get_logger(__name__)

# How long a status request waits for probes of servers; then it shows what is known.
_STATUS_SECONDS: Final = 0.5
_BUG: Final = ApiError(500, "The relay failed on this request; `anyclaudectl logs` says more.")


class WorkerService(worker_pb2_grpc.WorkerServiceServicer):
    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._upstreams = upstreams
        self._totals = pb.TokenTotals()
        self._checks: dict[str, asyncio.Task[None]] = {}

    async def generate(self, request: pb.GenerateRequest, emit: Emit) -> None:
        """Generates the events of one Messages request."""
        try:
            upstream = self._find(request.mode)
            self._note(await generate(upstream, request.body_json, emit))
        except ApiError as error:
            await emit([pb.GenerateResponse(failed=error.to_failed())])

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTokensResponse:
        try:
            return await count_tokens(self._find(request.mode), request.body_json)
        except ApiError as error:
            return pb.CountTokensResponse(failed=error.to_failed())

    async def Forward(
        self,
        request_iterator: AsyncIterator[pb.ForwardRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[pb.ForwardResponse]:
        try:
            first = await anext(request_iterator, None)
            if first is None or not first.HasField("head"):
                raise ApiError(500, "A forwarded request must begin with its head.")
            upstream = self._find(first.head.mode)
            async with aclosing(forward(upstream, first.head, request_iterator)) as parts:
                async for part in parts:
                    yield part
        except ApiError as error:
            yield pb.ForwardResponse(failed=error.to_failed())
        except Exception:
            log.exception("forwarding failed")
            yield pb.ForwardResponse(failed=_BUG.to_failed())

    async def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetStatusResponse:
        await self._check(request.check_mode)
        return pb.GetStatusResponse(
            running_requests=sum(upstream.running for upstream in self._upstreams.values()),
            totals=self._totals,
            upstreams=[upstream.status() for upstream in self._upstreams.values()],
        )

    async def ForgetLearned(
        self, request: pb.ForgetLearnedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ForgetLearnedResponse:
        upstream = self._upstreams.get(request.mode)
        learned = upstream.quirks.describe() if upstream else []
        if upstream:
            upstream.forget()
        return pb.ForgetLearnedResponse(learned=learned)

    def _find(self, mode: str) -> Upstream:
        if mode in self._upstreams:
            return self._upstreams[mode]
        known = ", ".join(self._upstreams) or "none"
        raise invalid_request(
            f"The relay has no server for mode {mode!r}. Known: {known}. "
            f"Add upstreams.{mode or 'NAME'}.base_url to the settings."
        )

    async def _check(self, mode: str) -> None:
        """Probes the server of `mode`, wherever it is; without a mode, those on this machine.

        Other servers are never probed unless named: in a local mode nothing leaves the machine.
        """
        if mode in self._upstreams:
            await self._upstreams[mode].check(anew=True)
            return
        local = [
            name for name, upstream in self._upstreams.items() if upstream.settings.is_loopback
        ]
        if tasks := [self._checking(name) for name in local]:
            await asyncio.wait(tasks, timeout=_STATUS_SECONDS)

    def _checking(self, name: str) -> asyncio.Task[None]:
        """Probes one server; at most one probe of a server runs at a time."""
        task = self._checks.get(name)
        if task is None or task.done():
            task = asyncio.ensure_future(self._upstreams[name].check(anew=False))
            self._checks[name] = task
        return task

    def _note(self, usage: pb.Usage) -> None:
        self._totals.generated_tokens += usage.output_tokens
        self._totals.reused_tokens += usage.cache_read_tokens
        self._totals.computed_tokens += usage.input_tokens + usage.cache_creation_tokens
