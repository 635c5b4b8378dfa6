"""The routing table: which route a request gets, and how long it waits for one."""

import asyncio

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.routes import RouteTable
from anyclaude.worker.v1 import worker_pb2 as worker

READY = frontend.ROUTE_STATE_READY
STARTING = frontend.ROUTE_STATE_STARTING
UNAVAILABLE = frontend.ROUTE_STATE_UNAVAILABLE

pytestmark = pytest.mark.anyio


def route(
    mode: str = "mlx-lm",
    state: frontend.RouteState = READY,
    *,
    socket: str = "/s",
    model: str = "",
    retry_after_seconds: float = 0,
) -> frontend.Route:
    made = frontend.Route(mode=mode, state=state, worker_socket=socket, reason=f"why {mode}")
    made.model.CopyFrom(worker.ModelInfo(id=model))
    if retry_after_seconds:
        made.retry_after.FromNanoseconds(int(retry_after_seconds * 1e9))
    return made


def push(
    version: int, *routes: frontend.Route, default: str = "mlx-lm"
) -> frontend.SetRoutesRequest:
    return frontend.SetRoutesRequest(version=version, default_mode=default, routes=routes)


def table(*routes: frontend.Route) -> RouteTable:
    made = RouteTable()
    made.push(push(1, *routes))
    return made


def after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def refusal(made: RouteTable, mode: str = "") -> ApiError:
    with pytest.raises(ApiError) as caught:
        made.find_ready(mode)
    return caught.value


def test_default_and_named_mode() -> None:
    """A request that names no mode gets the route of the default mode."""
    made = table(route("mlx-lm", socket="/a"), route("lmstudio", socket="/b"))
    assert made.find_ready().worker_socket == "/a"
    assert made.find_ready("lmstudio").worker_socket == "/b"


def test_unknown_mode_names_the_known() -> None:
    """An unknown mode is refused with the names of the known ones."""
    error = refusal(table(route("mlx-lm"), route("lmstudio")), "nope")
    assert error.status == 400
    assert "lmstudio, mlx-lm" in error.message


def test_older_push_is_ignored() -> None:
    """Pushes can cross; only a newer one replaces the table."""
    made = RouteTable()
    assert made.push(push(2, route(socket="/new")))
    assert not made.push(push(1, route(socket="/old")))
    assert made.find_ready().worker_socket == "/new"


def test_a_starting_route_asks_to_retry() -> None:
    """A starting worker gives 529 with the route's reason and a retry-after in whole seconds."""
    error = refusal(table(route(state=STARTING, retry_after_seconds=2.2)))
    assert (error.status, error.retry_after_seconds, error.message) == (529, 3, "why mlx-lm")


def test_retry_after_stays_where_clients_still_retry() -> None:
    """retry-after never exceeds a minute, after which Claude Code gives up."""
    error = refusal(table(route(state=STARTING, retry_after_seconds=900)))
    assert error.retry_after_seconds == 60


def test_unavailable_is_final() -> None:
    """A route that needs the user is a 400 with the reason, which SDKs do not retry."""
    error = refusal(table(route(state=UNAVAILABLE)))
    assert (error.status, error.should_retry, error.message) == (400, False, "why mlx-lm")


def test_unavailable_for_a_while_is_not_final() -> None:
    """An unavailable route with a retry delay gives an error to retry."""
    assert refusal(table(route(state=UNAVAILABLE, retry_after_seconds=5))).status == 529


async def test_waits_for_the_push_that_makes_it_ready() -> None:
    """A request that waits for its worker continues as soon as the route is ready."""
    made = table(route(state=STARTING))
    waiting = asyncio.ensure_future(made.wait_ready("", after(60)))
    await asyncio.sleep(0)
    made.push(push(2, route(state=STARTING)))
    await asyncio.sleep(0)
    assert not waiting.done()
    made.push(push(3, route(socket="/ready")))
    assert (await waiting).worker_socket == "/ready"


async def test_waiting_has_an_end() -> None:
    """After the deadline the request is refused with the route's reason."""
    made = RouteTable()
    with pytest.raises(ApiError, match="529"):
        await made.wait_ready("", after(0))
    with pytest.raises(ApiError, match="529"):
        await made.wait_pushed(after(0))


async def test_final_refusals_do_not_wait() -> None:
    """An unknown mode is refused at once, whatever the deadline is."""
    with pytest.raises(ApiError, match="400"):
        await table(route()).wait_ready("nope", after(3600))
