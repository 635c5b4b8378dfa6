"""A request at workers that die: real connections, and routes as the daemon pushes them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.failures import WorkerGoneError
from anyclaude.proxy.routes import RouteTable
from anyclaude.proxy.submission import Submission, Submissions
from anyclaude.proxy.workers import Workers
from anyclaude.runtime.streams import Emit, StreamServer, stream_socket
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.anyio

MODE = "mlx-lm"
# Whether the worker of that generation answers the request; otherwise it dies with it.
Answers = Callable[[int, worker.GenerateRequest], bool]


class Stage:
    """Workers that die with a request, each replaced by the next generation."""

    def __init__(self, folder: Path, answers: Answers, *, is_replaced: bool = True) -> None:
        self.folder = folder
        self.routes = RouteTable()
        self.stopping = asyncio.Event()
        self.workers = Workers(self.stopping)
        self.submissions = Submissions(self.workers, self.routes, self.stopping, PATIENCE_SECONDS)
        self.generation = 0
        # The requests of each generation, in order.
        self.seen: list[tuple[int, bytes]] = []
        self._answers = answers
        self._is_replaced = is_replaced
        self._server: StreamServer | None = None

    @property
    def route(self) -> frontend.Route:
        return self.routes.routes[0]

    async def begin(self) -> None:
        """Starts the next worker and pushes its route."""
        self.generation += 1
        socket = self.folder / f"{self.generation}.sock"
        self._server = StreamServer(stream_socket(socket), self._handle)
        await self._server.start()
        self._push(frontend.ROUTE_STATE_READY, str(socket))

    async def _handle(self, request: worker.GenerateRequest, emit: Emit) -> None:
        generation = self.generation
        self.seen.append((generation, request.body_json))
        await emit([say.started()])
        if self._answers(generation, request):
            await emit([say.text_start(0), say.delta(0, text="all of it"), say.finished()])
        else:
            asyncio.get_running_loop().create_task(self._die())
            await asyncio.Event().wait()

    async def _die(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._push(frontend.ROUTE_STATE_STARTING, "")
        await server.stop(0)
        if self._is_replaced:
            await self.begin()

    def _push(self, state: frontend.RouteState, socket: str) -> None:
        route = frontend.Route(
            mode=MODE, worker_socket=socket, generation=self.generation, state=state
        )
        version = 2 * self.generation + (state == frontend.ROUTE_STATE_STARTING)
        pushed = frontend.SetRoutesRequest(version=version, default_mode=MODE, routes=[route])
        self.routes.push(pushed)

    async def close(self) -> None:
        await self.workers.close()
        if self._server is not None:
            await self._server.stop(0)

    async def answer(self, body: bytes) -> list[str]:
        """The kinds of the events of one request, to its end."""
        call = worker.GenerateRequest(request_id="req_1", body_json=body)
        async with self.submissions.submit(self.route, call, may_wait=True) as submission:
            return await read(submission)


async def read(submission: Submission) -> list[str]:
    """The kinds of the last attempt's events, to the end of the answer."""
    kinds: list[str] = []
    attempt = 0
    while "finished" not in kinds:
        events = await submission.next(None)
        if submission.attempt != attempt:
            attempt, kinds = submission.attempt, []
        kinds += [str(event.WhichOneof("event")) for event in events]
        if "block_start" in kinds:
            submission.begin_answer()
    return kinds


@asynccontextmanager
async def staged(answers: Answers, *, is_replaced: bool = True) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        stage = Stage(Path(folder), answers, is_replaced=is_replaced)
        await stage.begin()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield stage
        finally:
            await stage.close()


async def test_the_next_worker_answers() -> None:
    """A request whose worker dies before its answer gets the whole answer of the next one."""
    async with staged(lambda generation, _: generation > 1) as stage:
        kinds = await stage.answer(b"it")

    assert kinds == ["started", "block_start", "block_delta", "finished"]
    assert stage.seen == [(1, b"it"), (2, b"it")]


async def test_a_worker_that_is_gone_already_is_waited_for() -> None:
    """A request that finds no worker behind its route waits for the next one."""
    async with staged(lambda *_: True) as stage:
        old = stage.route
        await stage._die()
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(old, call, may_wait=True) as submission:
            assert (await read(submission))[-1] == "finished"
        assert submission.attempt == 1


async def test_a_committed_answer_is_not_begun_again() -> None:
    """Once part of the answer was sent, the death of the worker ends the request."""
    async with staged(lambda *_: False) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(stage.route, call, may_wait=True) as submission:
            submission.commit()
            with pytest.raises(WorkerGoneError):
                await read(submission)
        assert len(stage.seen) == 1


async def test_mode_auto_does_not_wait() -> None:
    """A request that may use another mode gets the failure at once."""
    async with staged(lambda *_: False) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        with pytest.raises(WorkerGoneError):
            async with stage.submissions.submit(stage.route, call, may_wait=False) as submission:
                await read(submission)


async def test_a_request_that_ends_its_worker_is_refused_and_others_live() -> None:
    """The killer is submitted twice and then refused, also when sent again; the others are answered
    although their worker died with it, and each at most once more."""
    async with staged(lambda _, request: request.body_json != b"killer") as stage:
        bodies = [b"killer", b"a", b"b", b"killer 2"]
        waiting = [asyncio.ensure_future(stage.answer(body)) for body in bodies]
        killed = await asyncio.gather(*waiting, return_exceptions=True)

        assert isinstance(killed[0], ApiError)
        assert (killed[0].status, killed[0].should_retry) == (500, False)
        assert [kinds[-1] for kinds in killed[1:] if isinstance(kinds, list)] == ["finished"] * 3
        assert [body for _, body in stage.seen].count(b"killer") == 2
        with pytest.raises(ApiError, match="died twice"):
            await stage.answer(b"killer")
        assert (await stage.answer(b"c"))[-1] == "finished"


async def test_no_worker_comes_back() -> None:
    """When no worker is ready in time, the client gets 529 and tries again itself."""
    async with staged(lambda *_: False, is_replaced=False) as stage:
        stage.submissions.wait_seconds = 0.05
        with pytest.raises(ApiError) as caught:
            await stage.answer(b"it")

    assert caught.value.status == 529


async def test_stopping_ends_the_wait() -> None:
    """A request that waits for the next worker ends when this process stops."""
    async with staged(lambda *_: False, is_replaced=False) as stage:
        answer = asyncio.ensure_future(stage.answer(b"it"))
        await until(lambda: stage.routes.first_ready([MODE]) is None)
        stage.stopping.set()
        with pytest.raises(ApiError, match="restarting"):
            await answer
