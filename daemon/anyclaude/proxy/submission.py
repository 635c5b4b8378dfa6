"""A request at a worker, submitted again to the next worker if this one dies.

The daemon starts a dead worker again within seconds. Until then a client that streams gets pings,
and a client that waits for a whole answer waits on; neither notices more than a delay. The next
worker continues the answer behind what was received of it (`answer_so_far`). An answer of a relay
cannot be continued, so it begins anew if the client has none of it, and fails otherwise.

A request may be what killed the worker, for example by its need of memory. So requests that are
submitted again run one at a time until they are clearly further than before: the one that runs when
the worker dies again is not tried a third time, and its client is told so. The same body is refused
for a while. A request that did get further was hardly the cause, but it is not tried for ever.

A worker that stops as planned, for a change of settings, gives its requests up in the same way. No
request is to blame for that, so nothing is counted and they all go on at once.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NoReturn

import structlog

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.answer_so_far import AnswerSoFar
from anyclaude.proxy.failures import WorkerGoneError, WorkerStopsError, restarting
from anyclaude.proxy.generation import Generation
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.workers import Workers
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.submission")

# After so many deaths in a row without progress a request is refused.
_MAX_DEATHS_WITHOUT_PROGRESS: Final = 2
# So many deaths refuse it in any case. The daemon gives a worker up after more than these.
_MAX_DEATHS: Final = 4
# How long a body that ended the worker twice is refused, and how many such bodies are remembered.
_REFUSED_SECONDS: Final = 600.0
_MAX_REFUSED: Final = 64


class Submission:
    """One request at the worker of its mode, through deaths of that worker."""

    def __init__(
        self,
        owner: "Submissions",
        stack: AsyncExitStack,
        call: worker.GenerateRequest,
        *,
        may_wait: bool,
    ) -> None:
        self.answer = AnswerSoFar(owner.max_answer_tokens)
        # How often the answer began anew because nothing of it could be continued.
        self.beginnings = 1
        self.deaths = 0
        self._deaths_without_progress = 0
        self._owner = owner
        self._stack = stack
        self._call = call
        self._may_wait = may_wait
        self._route = frontend.Route()
        self._generation: Generation | None = None
        self._again: asyncio.Task[None] | None = None
        self._is_committed = False

    def commit(self) -> None:
        """Part of the answer is sent: from now on it can be continued, but not begin anew."""
        self._is_committed = True

    async def next(self, timeout: float | None) -> list[worker.GenerateResponse]:
        """Events that are new to the client; none when `timeout` seconds pass first.

        Raises:
            ApiError: as `Generation.next`; no other worker can answer the request.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            received = self.answer.receive(await self._receive(left))
            if self.answer.has_progressed:
                self._owner.release(self)
            if received or (deadline is not None and loop.time() >= deadline):
                return received

    async def _receive(self, timeout: float | None) -> list[worker.GenerateResponse]:
        if self._again is None:
            assert self._generation is not None
            try:
                return await self._generation.next(timeout)
            except WorkerGoneError as error:
                if not isinstance(error, WorkerStopsError):
                    self._note_death()
                self._check_wait(error)
                self._prepare_next(error)
                self._again = asyncio.ensure_future(self._submit_again(error))
        await asyncio.wait({self._again}, timeout=timeout)
        if self._again.done():
            again, self._again = self._again, None
            again.result()
        return []

    def _note_death(self) -> None:
        """Raises ApiError if the request has ended its workers."""
        self.deaths += 1
        if self.answer.has_progressed:
            self._deaths_without_progress = 0
        self._deaths_without_progress += 1
        if (
            self._deaths_without_progress >= _MAX_DEATHS_WITHOUT_PROGRESS
            or self.deaths >= _MAX_DEATHS
        ):
            self._owner.refuse(self._call)

    def _prepare_next(self, error: WorkerGoneError) -> None:
        """Gives the request what the next worker needs, or raises the error if none can go on."""
        if self.answer.can_continue:
            self.answer.continue_at_next_worker()
        elif self._is_committed:
            raise error
        else:
            self.answer = AnswerSoFar(self._owner.max_answer_tokens)
            self.beginnings += 1
        self._call.generated_token_ids[:] = self.answer.tokens

    def _check_wait(self, error: WorkerGoneError) -> None:
        """Raises the error if the request does not wait for the next worker."""
        if not (self._may_wait or self._is_committed) or not self._owner.wait_seconds:
            raise error

    async def start(self, route: frontend.Route) -> None:
        """Submits the request for the first time.

        Raises:
            ApiError: as `Generations.generate`.
        """
        try:
            await self._submit(route)
        except WorkerGoneError as error:
            self._check_wait(error)
            self._again = asyncio.ensure_future(self._submit_again(error))

    async def _submit(self, route: frontend.Route) -> None:
        self._route = route
        generation = self._owner.workers.generate(route, self._call)
        self._generation = await self._stack.enter_async_context(generation)

    async def _submit_again(self, error: WorkerGoneError) -> None:
        log.warning(
            "request waits for the next worker",
            request_id=self._call.request_id,
            generated_tokens=self.answer.replayed_tokens,
        )
        if self.deaths:
            await self._owner.acquire(self)
        deadline = asyncio.get_running_loop().time() + self._owner.wait_seconds
        while True:
            route = await self._next_route(error, deadline)
            try:
                return await self._submit(route)
            except WorkerGoneError:
                # It died before it took the request: the next one may take it.
                continue

    async def _next_route(self, error: WorkerGoneError, deadline: float) -> frontend.Route:
        try:
            return await self._owner.next_route(self._route, deadline)
        except ApiError:
            if isinstance(error, WorkerStopsError):
                # The mode was changed, for example. The client tries again, and gets the new one.
                raise error from None
            raise

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
        max_answer_tokens: int,
    ) -> None:
        """
        Args:
            stopping: set when running calls must end now.
            wait_seconds: how long a request waits for the next worker; 0: not at all.
            max_answer_tokens: a longer answer is not continued by the next worker.
        """
        self.workers = workers
        self.wait_seconds = wait_seconds
        self.max_answer_tokens = max_answer_tokens
        self._routes = routes
        self._stopping = stopping
        # Held by the one request that was submitted again and has not progressed yet.
        self._turn = asyncio.Lock()
        self._turn_of: Submission | None = None
        # Digests of the bodies that ended workers, and until when they are refused.
        self._refused: dict[bytes, float] = {}

    @asynccontextmanager
    async def submit(
        self, route: frontend.Route, call: worker.GenerateRequest, *, may_wait: bool
    ) -> AsyncIterator[Submission]:
        """Submits a request, and cancels it at the end if it still runs.

        Args:
            may_wait: whether it waits for the next worker if this one dies before any of the answer
                is sent.

        Raises:
            ApiError: the worker is gone, the request is larger than a message may be, or it ended
                its workers.
        """
        self._check(call)
        async with AsyncExitStack() as stack:
            submission = Submission(self, stack, call, may_wait=may_wait)
            try:
                await submission.start(route)
                yield submission
            finally:
                await submission.close()

    def refuse(self, call: worker.GenerateRequest) -> NoReturn:
        """Refuses a request that ended its workers, and remembers its body.

        Raises:
            ApiError: always.
        """
        while len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        now = asyncio.get_running_loop().time()
        self._refused[_digest(call)] = now + _REFUSED_SECONDS
        log.error("request ended its workers", request_id=call.request_id)
        raise _ended_workers()

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
        """Waits until every other request that was submitted again has progressed."""
        if self._turn_of is not submission:
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
                raise _ended_workers()
            del self._refused[_digest(call)]


def _digest(call: worker.GenerateRequest) -> bytes:
    return hashlib.sha256(call.body_json).digest()


def _ended_workers() -> ApiError:
    return ApiError(
        500,
        "The model worker died more than once while it worked on this request, which is not tried "
        f"again for {_REFUSED_SECONDS / 60:.0f} minutes. `anyclaudectl worker list` shows why it "
        "died. If memory is short, use a smaller model or compact the conversation.",
        should_retry=False,
    )
