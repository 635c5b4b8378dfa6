"""Questions to a server before it is relied on: is it there, which dialect, which model.

None of them generates anything. The dialect is found by an empty request, which a server that knows
the endpoint refuses as unfit, and any other does not know.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.workers.relay.wire import Headers, Wire

# A server that does not tell about itself within this does not serve.
PROBE_SECONDS: Final = 5.0
# What no server means by "I know this endpoint, but not this request".
_UNKNOWN_ENDPOINT: Final = frozenset({404, 405, 501})
_WINDOW_FIELDS: Final = (
    "loaded_context_length",
    "max_model_len",
    "context_length",
    "max_context_length",
    "context_window",
)


@dataclass(frozen=True)
class Served:
    """What a server serves."""

    # As the server calls it; empty when it does not say.
    model: str = ""
    # 0 when it does not say.
    context_window_tokens: int = 0


class Prober:
    """Asks one server."""

    def __init__(self, wire: Wire, kind: UpstreamKind) -> None:
        self._wire = wire
        self._kind = kind

    async def knows(self, path: str, headers: Headers) -> bool:
        """Whether generations are posted to `path` there.

        Raises:
            UpstreamFault: no answer.
        """
        status, document = await self._ask("POST", path, headers, b"{}")
        # LM Studio answers 200 to every path.
        return status not in _UNKNOWN_ENDPOINT and not 200 <= status < 400 and document is not None

    async def served(self, headers: Headers, model: str) -> Served:
        """What the server has loaded, or what it says of `model` when that is given.

        Raises:
            UpstreamFault: no answer.
        """
        loaded = await self._loaded(headers, model)
        if loaded.model:
            return loaded
        listed = _first_served(await self._list("/v1/models", headers), model)
        match self._kind:
            case UpstreamKind.LLAMA_CPP:
                return Served(listed.model, await self._llama_cpp_window(headers))
            case UpstreamKind.MLX_LM:
                # It lists what it could load.
                return Served(model or "default_model")
            case UpstreamKind.CLAUDE | UpstreamKind.OPENROUTER if not model:
                # They serve whatever is asked for.
                return Served()
        return listed

    async def _loaded(self, headers: Headers, model: str) -> Served:
        """What those say that tell the loaded model from the others."""
        match self._kind:
            case UpstreamKind.LMSTUDIO:
                native = await self._list("/api/v0/models", headers)
                return _first_served([e for e in native if e.get("state") == "loaded"], model)
            case UpstreamKind.OLLAMA:
                return _first_served(await self._list("/api/ps", headers), model)
        return Served()

    async def _llama_cpp_window(self, headers: Headers) -> int:
        """The window it runs with, which is not the one its model was trained for."""
        _, props = await self._ask("GET", "/props", headers)
        defaults = props.get("default_generation_settings") if isinstance(props, Mapping) else None
        window = defaults.get("n_ctx") if isinstance(defaults, Mapping) else None
        return window if isinstance(window, int) else 0

    async def _list(self, path: str, headers: Headers) -> list[Mapping[str, Any]]:
        return list(_entries((await self._ask("GET", path, headers))[1]))

    async def _ask(
        self, method: str, path: str, headers: Headers, body: bytes | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer; None where it is none."""
        sent = [*headers, (b"content-type", b"application/json")] if body else headers
        async with self._wire.send(
            method, path, sent, body, patience_seconds=PROBE_SECONDS
        ) as answer:
            content = await answer.read()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, None


def _entries(document: Any) -> Iterator[Mapping[str, Any]]:
    """The models of a list in OpenAI's, LM Studio's or Ollama's shape."""
    models = document.get("data") or document.get("models") if isinstance(document, dict) else None
    for entry in models if isinstance(models, list) else []:
        if isinstance(entry, Mapping) and entry.get("type") not in ("embeddings", "embedding"):
            yield entry


def _first_served(entries: list[Mapping[str, Any]], model: str) -> Served:
    named = [(_name(entry), entry) for entry in entries]
    wanted = [(name, entry) for name, entry in named if name and model in ("", name)]
    if not wanted:
        return Served()
    name, entry = wanted[0]
    return Served(name, _window(entry))


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("id") or entry.get("model") or entry.get("name") or "")


def _window(entry: Mapping[str, Any]) -> int:
    meta = entry.get("meta")
    trained = meta.get("n_ctx_train") if isinstance(meta, Mapping) else None
    values = [*(entry.get(field) for field in _WINDOW_FIELDS), trained]
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
