"""Probes a server before it is used: whether it responds, its dialect and its model.

No probe generates anything. To find the dialect, an empty request is sent: a server that has the
endpoint refuses the request as invalid, another responds that the endpoint does not exist. If the
server fails at it, the dialect stays unknown; then a request to count tokens decides, which only
the Messages API has.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final

from anyclaude.messages.schemas import as_object
from anyclaude.relay.client import Client, Headers
from anyclaude.relay.failures import UpstreamFault
from anyclaude.runtime.upstreams import UpstreamKind

# A server that does not respond to a probe within this time counts as down.
PROBE_SECONDS: Final = 5.0
# Statuses that mean the endpoint does not exist.
_UNKNOWN_ENDPOINT: Final = frozenset({404, 405, 501})
_WINDOW_FIELDS: Final = (
    "loaded_context_length",
    "max_model_len",
    "context_length",
    "max_context_length",
    "context_window",
)
_LOADED, _LOADING, _NOT_LOADED = "loaded", "loading", "not loaded"
# In the order in which an entry of a list is preferred.
_LOAD_STATES: Final = (_LOADED, _LOADING, "", _NOT_LOADED)
_STATE_WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("loaded", "running", "ready", "active", "sleeping"), _LOADED),
    **dict.fromkeys(("loading", "starting"), _LOADING),
    **dict.fromkeys(("unloaded", "not-loaded", "stopped", "failed", "inactive"), _NOT_LOADED),
}


class Evidence(Enum):
    """Whether a server has an endpoint, by its response to an empty request."""

    PRESENT = auto()
    ABSENT = auto()
    UNCLEAR = auto()


@dataclass(frozen=True)
class Served:
    """What a server reports about its model."""

    # The model's name on the server; empty if unknown.
    model: str = ""
    # 0 if unknown.
    context_window_tokens: int = 0
    # None if unknown.
    has_tools: bool | None = None
    takes_images: bool | None = None
    # The server lists models that it has not loaded, so another one may be loaded at any time.
    is_one_of_many: bool = False


class Prober:
    """Sends probes to one server."""

    def __init__(self, client: Client, kind: UpstreamKind) -> None:
        self._client = client
        self._kind = kind

    async def evidence(self, path: str, headers: Headers) -> Evidence:
        """Whether the server has an endpoint for generations at `path`.

        Raises:
            UpstreamFault: it did not respond.
        """
        status, document = await self._request("POST", path, headers, b"{}")
        # LM Studio responds with 200 to every path.
        if status in _UNKNOWN_ENDPOINT or 200 <= status < 400:
            return Evidence.ABSENT
        return Evidence.UNCLEAR if status >= 500 or document is None else Evidence.PRESENT

    async def counts(self, path: str, headers: Headers, model: str) -> bool:
        """Whether the server counts the tokens of a one-word prompt at `path`."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        try:
            status, document = await self._request("POST", path, headers, json.dumps(body).encode())
        except UpstreamFault:
            # The next request will report it.
            return False
        return status == 200 and isinstance(document, dict) and "input_tokens" in document

    async def served(self, headers: Headers, model: str) -> Served:
        """What the server has loaded, or what it reports about `model` if that is given.

        Raises:
            UpstreamFault: it did not respond.
        """
        loaded = await self._loaded(headers, model)
        if loaded.model:
            return loaded
        listed = _first_served(await self._list("/v1/models", headers), model)
        match self._kind:
            case UpstreamKind.LLAMA_CPP:
                return await self._llama_cpp(listed, headers)
            case UpstreamKind.MLX_LM:
                # It lists the models that it could load.
                return Served(model or "default_model")
            case UpstreamKind.CLAUDE | UpstreamKind.OPENROUTER if not model:
                # These servers serve any model that a request names.
                return Served()
        return listed

    async def _loaded(self, headers: Headers, model: str) -> Served:
        """The loaded model, for servers that distinguish it from the others in their lists."""
        match self._kind:
            case UpstreamKind.LMSTUDIO:
                native = await self._list("/api/v0/models", headers)
                return _first_served([e for e in native if e.get("state") == "loaded"], model)
            case UpstreamKind.OLLAMA:
                loaded = _first_served(await self._list("/api/ps", headers), model)
                return await self._ollama(loaded, headers) if loaded.model else loaded
        return Served()

    async def _ollama(self, loaded: Served, headers: Headers) -> Served:
        """Adds what the list of loaded models leaves out."""
        body = json.dumps({"model": loaded.model}).encode()
        _, shown = await self._request("POST", "/api/show", headers, body)
        able = _words(shown, "capabilities")
        return replace(loaded, has_tools=_among("tools", able), takes_images=_among("vision", able))

    async def _llama_cpp(self, listed: Served, headers: Headers) -> Served:
        """Adds the context window in use, which may be smaller than the model's."""
        _, props = await self._request("GET", "/props", headers)
        window = as_object(as_object(props).get("default_generation_settings")).get("n_ctx")
        template = as_object(as_object(props).get("chat_template_caps"))
        vision = as_object(as_object(props).get("modalities")).get("vision")
        if listed.is_one_of_many:
            # The router reports nothing about the models behind it.
            return listed
        return Served(
            listed.model,
            window if isinstance(window, int) else 0,
            # If the template has no tools, llama.cpp has a generic format for them.
            has_tools=True if template.get("supports_tools") is True else None,
            takes_images=vision if isinstance(vision, bool) else None,
        )

    async def _list(self, path: str, headers: Headers) -> list[Mapping[str, Any]]:
        return list(_entries((await self._request("GET", path, headers))[1]))

    async def _request(
        self, method: str, path: str, headers: Headers, body: bytes | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of a response; None if it is not JSON."""
        sent = [*headers, (b"content-type", b"application/json")] if body else headers
        async with self._client.send(
            method, path, sent, body, patience_seconds=PROBE_SECONDS
        ) as response:
            content = await response.read()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, None


def _entries(document: Any) -> Iterator[Mapping[str, Any]]:
    """The models of a list in OpenAI's, LM Studio's, Ollama's or Together's shape."""
    fields = as_object(document)
    models = fields.get("data") or fields.get("models") or document
    for entry in models if isinstance(models, list) else []:
        if isinstance(entry, Mapping) and entry.get("type") not in ("embeddings", "embedding"):
            yield entry


def _first_served(entries: list[Mapping[str, Any]], model: str) -> Served:
    named = [(_name(entry), entry) for entry in entries]
    wanted = [(name, entry) for name, entry in named if name and model in ("", name)]
    if not wanted:
        return Served()
    name, entry = min(wanted, key=lambda each: _LOAD_STATES.index(_load_state(each[1])))
    is_one_of_many = any(_load_state(each) != "" for _, each in named)
    # The first key is OpenRouter's, the second LM Studio's.
    lists = (_words(entry, key) for key in ("supported_parameters", "capabilities"))
    able = next((words for words in lists if words is not None), None)
    inputs = _words(as_object(as_object(entry).get("architecture")), "input_modalities")
    images = True if entry.get("type") == "vlm" else _among("image", inputs)
    tools = None if able is None else "tools" in able or "tool_use" in able
    return Served(name, _window(entry), tools, images, is_one_of_many)


def _load_state(entry: Mapping[str, Any]) -> str:
    """Whether the model is loaded, as llama.cpp's router, llama-swap and others report it."""
    status = entry.get("status", entry.get("state", entry.get("loaded")))
    word = status.get("value") if isinstance(status, Mapping) else status
    if isinstance(word, bool):
        return _LOADED if word else _NOT_LOADED
    return _STATE_WORDS.get(str(word).lower().replace("_", "-"), "")


def _words(holder: Any, key: str) -> list[Any] | None:
    """A list of strings; None if there is none."""
    value = as_object(holder).get(key)
    return value if isinstance(value, list) else None


def _among(word: str, words: list[Any] | None) -> bool | None:
    return None if words is None else word in words


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("id") or entry.get("model") or entry.get("name") or "")


def _window(entry: Mapping[str, Any]) -> int:
    meta = entry.get("meta")
    used = [meta.get(key) for key in ("n_ctx", "n_ctx_train")] if isinstance(meta, Mapping) else []
    values = [*(entry.get(field) for field in _WINDOW_FIELDS), *used]
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
