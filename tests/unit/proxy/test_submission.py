"""A request at workers that die: real connections, and routes as the daemon pushes them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, overloaded
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
# The longest answer that is continued.
MAX_TOKENS = 100
# Whether the worker of that generation answers the request; otherwise it dies with it.
Answers = Callable[[int, worker.GenerateRequest], bool]
# What a worker of that generation sends before it dies.
Begins = Callable[[int], list[worker.GenerateResponse]]


class Stage:
    """Workers that die with a request, each replaced by the next generation."""

    def __init__(
        self, folder: Path, answers: Answers, begins: Begins, *, is_replaced: bool = True
    ) -> None:
        self.folder = folder
        self.routes = RouteTable()
        self.stopping = asyncio.Event()
        self.workers = Workers(self.stopping)
        self.submissions = Submissions(
            self.workers, self.routes, self.stopping, PATIENCE_SECONDS, MAX_TOKENS
        )
        self.generation = 0
        # The requests of each generation, in order, and the tokens that each was given.
        self.seen: list[tuple[int, bytes]] = []
        self.given: list[list[int]] = []
        self._answers = answers
        self._begins = begins
        self._is_replaced = is_replaced
        self._server: StreamServer | None = None

    @property
    def route(self) -> frontend.Route:
        return self.routes.find()

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
        self.given.append(list(request.generated_token_ids))
        await emit([say.started()])
        if self._answers(generation, request):
            await emit([say.text_start(0), say.delta(0, text="all of it"), say.finished()])
        else:
            await emit(self._begins(generation))
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
    """The kinds of the events that a client gets, to the end of the answer."""
    kinds: list[str] = []
    while "finished" not in kinds:
        kinds += [str(event.WhichOneof("event")) for event in await submission.next(None)]
    return kinds


@asynccontextmanager
async def staged(
    answers: Answers, begins: Begins = lambda _: [], *, is_replaced: bool = True
) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        stage = Stage(Path(folder), answers, begins, is_replaced=is_replaced)
        await stage.begin()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield stage
        finally:
            await stage.close()


def begun(token_ids: Sequence[int]) -> list[worker.GenerateResponse]:
    """The beginning of the answer of `Stage`, with its tokens."""
    start, piece = say.text_start(0), say.delta(0, text="all")
    start.token_ids.extend(token_ids)
    return [start, piece]


def stops(_: int) -> list[worker.GenerateResponse]:
    """The beginning of an answer, and its end at a worker that stops as planned."""
    failed = overloaded("The worker is stopping.", 5).to_failed()
    failed.worker_stops = True
    return [*begun([7]), worker.GenerateResponse(failed=failed)]


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
        assert submission.deaths == 0


async def test_the_next_worker_may_die_after_one_that_was_gone() -> None:
    """A request that waited for its first worker, which dies with it, is submitted once more."""
    async with staged(lambda generation, _: generation > 2) as stage:
        old = stage.route
        await stage._die()
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(old, call, may_wait=True) as submission:
            assert (await read(submission))[-1] == "finished"
        assert submission.deaths == 1


async def test_the_next_worker_continues_the_answer() -> None:
    """The next worker is given the tokens; what it repeats does not reach the client again."""
    async with staged(lambda generation, _: generation > 1, lambda _: begun([7, 8])) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(stage.route, call, may_wait=True) as submission:
            text = ""
            while not text.endswith("it"):
                for event in await submission.next(None):
                    text += event.block_delta.text
                    submission.commit()

    assert text == "all of it"
    assert stage.given == [[], [7, 8]]


@pytest.mark.parametrize("is_sent", [True, False])
async def test_an_answer_without_tokens_begins_anew_if_it_was_not_sent(is_sent: bool) -> None:
    """A relay's answer cannot be continued: it fails once the client has a part of it."""
    async with staged(lambda generation, _: generation > 1, lambda _: begun([])) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(stage.route, call, may_wait=True) as submission:
            while not await submission.next(None) or not submission.answer.has_progressed:
                pass
            if is_sent:
                submission.commit()
                with pytest.raises(WorkerGoneError):
                    await read(submission)
            else:
                assert (await read(submission))[-3:] == ["block_start", "block_delta", "finished"]
                assert submission.beginnings == 2
        assert stage.given == [[]] * (1 if is_sent else 2)


async def test_an_answer_that_is_too_long_to_keep_is_not_continued() -> None:
    """Over the limit its tokens are not kept, so the death of its worker ends the stream."""
    long = lambda _: begun(range(MAX_TOKENS + 1))  # noqa: E731
    async with staged(lambda *_: False, long) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(stage.route, call, may_wait=True) as submission:
            submission.commit()
            with pytest.raises(WorkerGoneError):
                await read(submission)


async def test_a_planned_stop_is_no_fault_of_the_request() -> None:
    """However often workers stop as planned, the request goes on at the next one."""
    async with staged(lambda generation, _: generation > 6, stops) as stage:
        call = worker.GenerateRequest(body_json=b"it")
        async with stage.submissions.submit(stage.route, call, may_wait=True) as submission:
            assert (await read(submission))[-1] == "finished"
        assert submission.deaths == 0


async def test_a_request_of_a_worker_that_is_not_started_again_can_be_sent_again() -> None:
    """The client gets the 529 of the worker that stopped."""
    async with staged(lambda *_: False, stops, is_replaced=False) as stage:
        stage.submissions.wait_seconds = 0.05
        with pytest.raises(ApiError, match="is stopping") as caught:
            await stage.answer(b"it")

    assert caught.value.status == 529


async def test_a_request_that_gets_further_is_tried_more_often() -> None:
    """Deaths after clear progress do not count as the request's fault, up to a limit."""

    def further(generation: int) -> list[worker.GenerateResponse]:
        start, piece = begun(range(33))
        return [start, piece] if generation == 1 else [start]

    async with staged(lambda *_: False, further) as stage:
        with pytest.raises(ApiError, match="more than once"):
            await stage.answer(b"it")

    assert [len(tokens) for tokens in stage.given] == [0, 33, 66, 99]


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
        with pytest.raises(ApiError, match="more than once"):
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
