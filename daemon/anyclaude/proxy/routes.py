"""The routing table that the daemon pushes: from modes to workers.

A request uses the route that was pushed last before the request is sent on, and keeps it to its
end. When no route can serve it yet, the request waits a moment for the next push.
"""

import asyncio
import math
from collections.abc import Iterable
from typing import Final

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError, invalid_request, overloaded
from anyclaude.messages.turnover import MAX_RETRY_AFTER_SECONDS

_RETRY_AFTER_SECONDS: Final = 2


def lacks_tools(route: frontend.Route) -> bool:
    """Whether the model is known to make no tool calls."""
    return route.model.HasField("has_tools") and not route.model.has_tools


class RouteTable:
    def __init__(self) -> None:
        self._pushed: frontend.SetRoutesRequest | None = None
        self._routes: dict[str, frontend.Route] = {}
        self._changed = asyncio.Event()

    def push(self, pushed: frontend.SetRoutesRequest) -> bool:
        """Replaces the table, unless the push is older; returns whether it did."""
        if self._pushed is not None and pushed.version < self._pushed.version:
            return False
        self._pushed = pushed
        self._routes = {route.mode: route for route in pushed.routes}
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    @property
    def default_mode(self) -> str:
        """Empty before the first push."""
        return self._pushed.default_mode if self._pushed else ""

    def find_ready(self, mode: str = "") -> frontend.Route:
        """The route of `mode`, or of the default mode, if it can serve now.

        Raises:
            ApiError: 529 before the first push or while its worker starts, 400 for a mode that does
                not exist or whose worker will not start by itself.
        """
        route = self.find(mode)
        if route.state == frontend.ROUTE_STATE_READY:
            return route
        raise _not_ready(route)

    def find(self, mode: str = "") -> frontend.Route:
        """The route of `mode`, or of the default mode, ready or not.

        Raises:
            ApiError: 529 before the first push, 400 for a mode that does not exist.
        """
        if self._pushed is None:
            raise _starting()
        name = mode or self._pushed.default_mode
        if name not in self._routes:
            known = ", ".join(sorted(self._routes)) or "none"
            raise invalid_request(f"There is no mode {name!r}. Known modes: {known}.")
        return self._routes[name]

    def passes_through(self, mode: str = "") -> bool:
        """Whether requests of `mode` are forwarded unread; False for a mode that does not exist."""
        if self._pushed is None:
            return False
        route = self._routes.get(mode or self._pushed.default_mode)
        return route is not None and route.passthrough

    def first_ready(self, modes: Iterable[str]) -> frontend.Route | None:
        """The route of the first of `modes` that can serve now."""
        known = (self._routes[mode] for mode in modes if mode in self._routes)
        return next((r for r in known if r.state == frontend.ROUTE_STATE_READY), None)

    def windows(self) -> dict[str, int]:
        """The context window of each mode in tokens; 0 where unknown."""
        return {mode: route.model.context_window_tokens for mode, route in self._routes.items()}

    async def wait_pushed(self, deadline: float) -> None:
        """Waits for the first push, at most until `deadline` (the loop's clock).

        Raises:
            ApiError: 529, none came.
        """
        if self._pushed is None and not await self._change_before(deadline):
            raise _starting()

    async def wait_ready(self, mode: str, deadline: float) -> frontend.Route:
        """As `find_ready`, but waits until `deadline` for a push that makes the route ready."""
        while True:
            try:
                return self.find_ready(mode)
            except ApiError as error:
                if error.status != 529 or not await self._change_before(deadline):
                    raise

    async def wait_next(self, dead: frontend.Route, deadline: float) -> frontend.Route:
        """As `wait_ready` for the mode of `dead`, but waits for a later worker than that one."""
        while True:
            route = await self.wait_ready(dead.mode, deadline)
            if route.generation != dead.generation:
                return route
            if not await self._change_before(deadline):
                raise _not_ready(route)

    async def _change_before(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._changed.wait()
        except TimeoutError:
            return False


def retry_after_seconds(route: frontend.Route) -> int:
    """When a client should try again, in whole seconds."""
    hint = route.retry_after.ToNanoseconds() / 1e9
    return min(max(math.ceil(hint), 1), MAX_RETRY_AFTER_SECONDS) if hint else _RETRY_AFTER_SECONDS


def _starting() -> ApiError:
    return overloaded("anyclaude is starting.", _RETRY_AFTER_SECONDS)


def _not_ready(route: frontend.Route) -> ApiError:
    reason = route.reason or f"Mode {route.mode} is not ready."
    if route.state == frontend.ROUTE_STATE_STARTING or route.HasField("retry_after"):
        return overloaded(reason, retry_after_seconds(route))
    # Trying again does not help: the user has to act, so the client shows the reason.
    return ApiError(400, reason, should_retry=False)
