"""Records of finished requests: followed from the front end, kept in memory, counted."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio
import structlog

from anyclaude.frontend.v1 import frontend_pb2, frontend_pb2_grpc
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.links import Link, NotReadyError

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_RETRY_SECONDS: Final = 0.2

Record = frontend_pb2.RequestRecord


class Journal:
    """The last records, newest first."""

    def __init__(self, max_records: int) -> None:
        self._records: deque[Record] = deque(maxlen=max_records)

    def add(self, record: Record) -> None:
        self._records.appendleft(record)

    def newest(self, count: int) -> list[Record]:
        return list(self._records)[:count]


class RecordFollower:
    """Passes on every record of every front end, one after the other."""

    def __init__(
        self,
        frontend: SupervisedChild,
        changes: Changes,
        on_record: Callable[[Record], None],
        on_dropped: Callable[[int], None],
    ) -> None:
        self._changes = changes
        self._on_record = on_record
        self._on_dropped = on_dropped
        self._link = Link(frontend)

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            version = self._changes.version
            try:
                await self._follow()
            except NotReadyError:
                await self._changes.after(version)
            except grpc.aio.AioRpcError as error:
                _log.debug("record stream ended", why=error.details())
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        await self._link.close()

    async def _follow(self) -> None:
        stub = frontend_pb2_grpc.FrontendServiceStub(await self._link.channel())  # type: ignore[no-untyped-call]
        call = stub.StreamRecords(frontend_pb2.StreamRecordsRequest())
        try:
            async for answer in call:
                self._take(answer)
        finally:
            # Leaving the loop alone would keep the stream running.
            call.cancel()
        await asyncio.sleep(_RETRY_SECONDS)

    def _take(self, answer: frontend_pb2.StreamRecordsResponse) -> None:
        if answer.dropped_records:
            self._on_dropped(answer.dropped_records)
        if answer.HasField("record"):
            self._on_record(answer.record)
