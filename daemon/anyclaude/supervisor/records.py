"""Requests: those that run, asked of the front end; and records of those that ended, streamed from
the front end and kept in memory and in the history."""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import grpc
import grpc.aio
import structlog

from anyclaude.frontend.v1 import frontend_pb2, frontend_pb2_grpc
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import NotReadyError, SupervisedChild
from anyclaude.supervisor.history import History

_log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_RETRY_SECONDS: Final = 0.2
# `status` waits no longer than this for the front end.
_RUNNING_SECONDS: Final = 1.0

Record = frontend_pb2.RequestRecord


class Journal:
    """The last records, newest first; with a history also those of earlier runs."""

    def __init__(self, max_records: int, history: History | None = None) -> None:
        self._history = history
        earlier = history.read() if history else ()
        self._records: deque[Record] = deque(reversed(earlier), maxlen=max_records)

    def add(self, record: Record) -> None:
        self._records.appendleft(record)
        if self._history:
            self._history.add(record)

    def newest(self, count: int, session_id: str = "", launch_id: str = "") -> list[Record]:
        """The newest `count` records; only those of a session or a launch if one is named."""
        matching = (
            record
            for record in self._records
            if session_id in ("", record.identity.session_id)
            and launch_id in ("", record.launch_id)
        )
        return list(islice(matching, count))


async def running(frontend: SupervisedChild) -> list[frontend_pb2.RunningRequest]:
    """The requests that run now, oldest first; none while the front end does not answer."""
    try:
        stub = frontend_pb2_grpc.FrontendServiceStub(await frontend.channel())  # type: ignore[no-untyped-call]
        answer = await stub.ListRunning(frontend_pb2.ListRunningRequest(), timeout=_RUNNING_SECONDS)
    except NotReadyError:
        return []
    except grpc.aio.AioRpcError as error:
        _log.debug("front end slow to answer", why=error.details())
        return []
    return list(answer.requests)


class RecordFollower:
    """Passes on every record of the current front end, and of each one that follows it."""

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
        self._frontend = frontend

    async def run(self) -> None:
        """Follows until cancelled."""
        await self._changes.follow(self._follow, _RETRY_SECONDS)

    async def _follow(self) -> bool:
        """Reads one stream to its end; returns False if another has to be opened."""
        try:
            stub = frontend_pb2_grpc.FrontendServiceStub(await self._frontend.channel())  # type: ignore[no-untyped-call]
        except NotReadyError:
            return True
        call = stub.StreamRecords(frontend_pb2.StreamRecordsRequest())
        try:
            async for answer in call:
                self._receive(answer)
        except grpc.aio.AioRpcError as error:
            _log.debug("record stream ended", why=error.details())
        finally:
            # Leaving the loop alone would not end the stream.
            call.cancel()
        return False

    def _receive(self, answer: frontend_pb2.StreamRecordsResponse) -> None:
        if answer.dropped_records:
            self._on_dropped(answer.dropped_records)
        if answer.HasField("record"):
            self._on_record(answer.record)
