"""`GET /v1/models`: the models behind the routes, in the shape of the Models API."""

from typing import Any

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.routes import RouteTable

# The API's way of saying that the release date is not known.
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"


def list_models(routes: RouteTable) -> dict[str, Any]:
    """The list, the default mode's model first."""
    models = list(_models(routes).values())
    return {
        "data": models,
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


def get_model(routes: RouteTable, model_id: str) -> dict[str, Any]:
    """One model.

    Raises:
        ApiError: 404, no route serves it.
    """
    models = _models(routes)
    if model_id not in models:
        known = ", ".join(models) or "none yet"
        raise ApiError(404, f"There is no model {model_id!r}. Known models: {known}.")
    return models[model_id]


def _models(routes: RouteTable) -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for route in routes.routes:
        if route.model.id:
            models.setdefault(route.model.id, _model(route))
    return models


def _model(route: frontend.Route) -> dict[str, Any]:
    model = route.model
    # A window of 0 is one nobody knows; clients read null as that.
    window = model.context_window_tokens or None
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name or model.id,
        "description": f"Answered by anyclaude in mode {route.mode}.",
        "created_at": _UNKNOWN_DATE,
        "max_input_tokens": window,
        "max_tokens": window,
    }
