"""Endpoints beside messages: models, health, metrics, and what Claude Code probes."""

from typing import Any, Final

from anyclaude.control.v1 import control_pb2 as control
from anyclaude.control.v1.control_pb2_grpc import MetricsServiceStub
from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.context import RequestContext
from anyclaude.proxy.daemon import ask_daemon, stub
from anyclaude.proxy.routes import RouteTable, lacks_tools
from anyclaude.runtime.paths import Paths

_METRICS_TIMEOUT_SECONDS: Final = 5.0
# The Models API's way to say that a release date is unknown.
_UNKNOWN_DATE: Final = "1970-01-01T00:00:00Z"


class Endpoints:
    def __init__(self, paths: Paths, routes: RouteTable) -> None:
        self._paths = paths
        self._routes = routes

    async def list_models(self, context: RequestContext) -> None:
        await self._routes.wait_pushed(context.accept_deadline())
        models = list(self._models(context).values())
        document = {
            # OpenAI's name for a list; the other fields are those of the Messages API.
            "object": "list",
            "data": models,
            "has_more": False,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
        await context.response.send_json(200, document)

    async def get_model(self, context: RequestContext) -> None:
        await self._routes.wait_pushed(context.accept_deadline())
        models = self._models(context)
        model_id = context.path_params["model_id"]
        if model_id not in models:
            known = ", ".join(models) or "none yet"
            raise ApiError(404, f"There is no model {model_id!r}. Known models: {known}.")
        await context.response.send_json(200, models[model_id])

    def _models(self, context: RequestContext) -> dict[str, dict[str, Any]]:
        """The model of this client's mode by its id; none while its id is unknown.

        Clients offer the list to their users. The mode decides which model answers, also in mode
        auto, so any other model would be a choice without effect.
        """
        route = self._routes.find(context.mode)
        return {route.model.id: _model(route)} if route.model.id else {}

    async def ready(self, context: RequestContext) -> None:
        try:
            route = self._routes.find_ready()
        except ApiError as error:
            raise ApiError(
                503,
                error.message,
                retry_after_seconds=error.retry_after_seconds,
                error_type="overloaded_error",
            ) from None
        await context.response.send_json(200, {"status": "ready", "mode": route.mode})

    async def metrics(self, context: RequestContext) -> None:
        """The metrics, which the daemon collects."""
        async with ask_daemon(self._paths) as channel:
            metrics = await stub(MetricsServiceStub, channel).GetMetrics(
                control.GetMetricsRequest(), timeout=_METRICS_TIMEOUT_SECONDS
            )
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        await context.response.send_body(200, metrics.text, content_type)


async def empty(context: RequestContext) -> None:
    await context.response.send_body(200, b"", "text/plain; charset=utf-8")


async def live(context: RequestContext) -> None:
    await context.response.send_json(200, {"status": "live"})


async def accept_telemetry(context: RequestContext) -> None:
    """Reads the client's telemetry and drops it, so that it does not leave this machine."""
    await context.body.drain()
    await context.response.send_json(200, {})


def _model(route: frontend.Route) -> dict[str, Any]:
    model = route.model
    no_calls = " It makes no tool calls." if lacks_tools(route) else ""
    # 0 is an unknown window; clients read null as that.
    window = model.context_window_tokens or None
    return {
        "type": "model",
        # For clients of OpenAI's API, which reads these fields instead.
        "object": "model",
        "created": 0,
        "owned_by": "anyclaude",
        "id": model.id,
        "display_name": model.display_name or model.id,
        "description": f"Answered by anyclaude in mode {route.mode}.{no_calls}",
        "created_at": _UNKNOWN_DATE,
        "lifecycle": "active",
        "max_input_tokens": window,
        "max_tokens": window,
    }
