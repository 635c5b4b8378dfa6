"""A request at a worker, submitted again if the worker dies before any of the answer was sent.

The daemon starts a dead worker again within seconds. Until then a client that streams gets pings,
and a client that waits for a whole answer waits on; neither notices more than a delay.

A request may be what killed the worker, for example by its need of memory. So requests that are
submitted again run one at a time until their answers begin: the one that runs when the worker dies
again is not tried a third time, and its client is told so. The same body is refused for a while.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.failures import WorkerGoneError, restarting
from anyclaude.proxy.generation import Generation
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.workers import Workers
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.submission")

_MAX_ATTEMPTS: Final = 2
# How long a body that ended the worker twice is refused, and how many such bodies are remembered.
_REFUSED_SECONDS: Final = 600.0
_MAX_REFUSED: Final = 64


class Submission:
    """One request at the worker of its mode, through a death of that worker."""

    def __init__(
        self,
        owner: "Submissions",
        stack: AsyncExitStack,
        call: worker.GenerateRequest,
        *,
        may_wait: bool,
    ) -> None:
        # How often a worker got the request; its events begin anew with each attempt.
        self.attempt = 0
        self._owner = owner
        self._stack = stack
        self._call = call
        self._may_wait = may_wait
        self._route = frontend.Route()
        self._generation: Generation | None = None
        self._again: asyncio.Task[None] | None = None
        self._is_committed = False

    def commit(self) -> None:
        """Part of the answer is sent: from now on a death of the worker ends the request."""
        self._is_committed = True

    def begin_answer(self) -> None:
        """The answer began, so the next request that is submitted again has its turn."""
        self._owner.release(self)

    async def next(self, timeout: float | None) -> list[worker.GenerateResponse]:
        """As `Generation.next`; returns nothing also when the request was submitted again."""
        if self._again is None:
            assert self._generation is not None
            try:
                return await self._generation.next(timeout)
            except WorkerGoneError:
                if self._is_committed or not self._may_wait:
                    raise
                self._owner.check_attempts(self._call, self.attempt)
                self._again = asyncio.ensure_future(self._submit_again())
        await asyncio.wait({self._again}, timeout=timeout)
        if self._again.done():
            again, self._again = self._again, None
            again.result()
        return []

    async def start(self, route: frontend.Route) -> None:
        """Submits the request for the first time.

        Raises:
            ApiError: as `Generations.generate`.
        """
        try:
            await self._submit(route)
        except WorkerGoneError:
            if not self._may_wait:
                raise
            self._again = asyncio.ensure_future(self._submit_again())

    async def _submit(self, route: frontend.Route) -> None:
        self._route = route
        generation = self._owner.workers.generate(route, self._call)
        self._generation = await self._stack.enter_async_context(generation)
        self.attempt += 1

    async def _submit_again(self) -> None:
        log.warning("request waits for the next worker", request_id=self._call.request_id)
        await self._owner.acquire(self)
        deadline = asyncio.get_running_loop().time() + self._owner.wait_seconds
        while True:
            route = await self._owner.next_route(self._route, deadline)
            try:
                return await self._submit(route)
            except WorkerGoneError:
                # It died before it took the request: the next one may take it.
                continue

    async def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
        self._owner.release(self)


class Submissions:
    """Submits the requests of this process."""

    def __init__(
        self,
        workers: Workers,
        routes: RouteTable,
        stopping: asyncio.Event,
        wait_seconds: float,
    ) -> None:
        """
        Args:
            stopping: set when running calls must end now.
            wait_seconds: how long a request waits for the next worker; 0: not at all.
        """
        self.workers = workers
        self.wait_seconds = wait_seconds
        self._routes = routes
        self._stopping = stopping
        # Held by the one request that was submitted again and whose answer has not begun.
        self._turn = asyncio.Lock()
        self._turn_of: Submission | None = None
        # Digests of the bodies that ended a worker twice, and until when they are refused.
        self._refused: dict[bytes, float] = {}

    @asynccontextmanager
    async def submit(
        self, route: frontend.Route, call: worker.GenerateRequest, *, may_wait: bool
    ) -> AsyncIterator[Submission]:
        """Submits a request, and cancels it at the end if it still runs.

        Args:
            may_wait: whether it waits for the next worker if this one dies.

        Raises:
            ApiError: the worker is gone, the request is larger than a message may be, or it ended
                a worker twice.
        """
        self._check(call)
        async with AsyncExitStack() as stack:
            may_wait = may_wait and self.wait_seconds > 0
            submission = Submission(self, stack, call, may_wait=may_wait)
            try:
                await submission.start(route)
                yield submission
            finally:
                await submission.close()

    def check_attempts(self, call: worker.GenerateRequest, attempts: int) -> None:
        """Called when a request's worker died.

        Raises:
            ApiError: it was submitted too often.
        """
        if attempts < _MAX_ATTEMPTS:
            return
        while len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        now = asyncio.get_running_loop().time()
        self._refused[_digest(call)] = now + _REFUSED_SECONDS
        log.error("request ended the worker twice", request_id=call.request_id)
        raise _ended_worker_twice()

    async def next_route(self, dead: frontend.Route, deadline: float) -> frontend.Route:
        """The route to the next worker of the same mode.

        Raises:
            ApiError: none is ready before the deadline, or this process is stopping.
        """
        ready = asyncio.ensure_future(self._routes.wait_next(dead, deadline))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise restarting()
            return ready.result()
        finally:
            ready.cancel()
            stopping.cancel()
            await asyncio.gather(ready, stopping, return_exceptions=True)

    async def acquire(self, submission: Submission) -> None:
        """Waits until no other request that was submitted again is without an answer."""
        await self._turn.acquire()
        self._turn_of = submission

    def release(self, submission: Submission) -> None:
        """Ends the turn of `submission`, if it has it."""
        if self._turn_of is submission:
            self._turn_of = None
            self._turn.release()

    def _check(self, call: worker.GenerateRequest) -> None:
        if self._refused and (until := self._refused.get(_digest(call))) is not None:
            if asyncio.get_running_loop().time() < until:
                raise _ended_worker_twice()
            del self._refused[_digest(call)]


def _digest(call: worker.GenerateRequest) -> bytes:
    return hashlib.sha256(call.body_json).digest()


def _ended_worker_twice() -> ApiError:
    return ApiError(
        500,
        "The model worker died twice while it worked on this request, which is therefore not tried "
        f"again for {_REFUSED_SECONDS / 60:.0f} minutes. `anyclaudectl worker list` shows why it "
        "died. If memory is short, use a smaller model or compact the conversation.",
        should_retry=False,
    )
