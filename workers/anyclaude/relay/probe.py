"""Questions to a server before it is relied on: is it there, which dialect, which model.

None of them generates anything. The dialect is found by an empty request, which a server that knows
the endpoint refuses as unfit, and any other does not know. What fails at it says neither; then a
count of tokens, which is asked for in one dialect alone, tells.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final

from anyclaude.relay.failures import UpstreamFault
from anyclaude.relay.wire import Headers, Wire
from anyclaude.runtime.upstreams import UpstreamKind

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


class Evidence(Enum):
    """Whether a server knows an endpoint, by its answer to an empty request."""

    PRESENT = auto()
    ABSENT = auto()
    UNCLEAR = auto()


@dataclass(frozen=True)
class Served:
    """What a server serves."""

    # As the server calls it; empty when it does not say.
    model: str = ""
    # 0 when it does not say.
    context_window_tokens: int = 0
    # None when it does not say.
    has_tools: bool | None = None
    takes_images: bool | None = None


class Prober:
    """Asks one server."""

    def __init__(self, wire: Wire, kind: UpstreamKind) -> None:
        self._wire = wire
        self._kind = kind

    async def evidence(self, path: str, headers: Headers) -> Evidence:
        """Whether generations are posted to `path` there.

        Raises:
            UpstreamFault: no answer.
        """
        status, document = await self._ask("POST", path, headers, b"{}")
        # LM Studio answers 200 to every path.
        if status in _UNKNOWN_ENDPOINT or 200 <= status < 400:
            return Evidence.ABSENT
        return Evidence.UNCLEAR if status >= 500 or document is None else Evidence.PRESENT

    async def counts(self, path: str, headers: Headers, model: str) -> bool:
        """Whether a prompt of one word can be counted at `path`."""
        asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        try:
            status, document = await self._ask("POST", path, headers, json.dumps(asked).encode())
        except UpstreamFault:
            # No answer is no evidence, and whoever asks next hears of it.
            return False
        return status == 200 and isinstance(document, dict) and "input_tokens" in document

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
                return await self._llama_cpp(listed.model, headers)
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
                loaded = _first_served(await self._list("/api/ps", headers), model)
                return await self._ollama(loaded, headers) if loaded.model else loaded
        return Served()

    async def _ollama(self, loaded: Served, headers: Headers) -> Served:
        """With what its list leaves out."""
        asked = json.dumps({"model": loaded.model}).encode()
        _, shown = await self._ask("POST", "/api/show", headers, asked)
        able = _words(shown, "capabilities")
        return replace(loaded, has_tools=_among("tools", able), takes_images=_among("vision", able))

    async def _llama_cpp(self, model: str, headers: Headers) -> Served:
        """With the window it runs with, which is not the one its model was trained for."""
        _, props = await self._ask("GET", "/props", headers)
        window = _object(props, "default_generation_settings").get("n_ctx")
        template = _object(props, "chat_template_caps")
        vision = _object(props, "modalities").get("vision")
        return Served(
            model,
            window if isinstance(window, int) else 0,
            # Where the template knows no tools it has a way of its own.
            has_tools=True if template.get("supports_tools") is True else None,
            takes_images=vision if isinstance(vision, bool) else None,
        )

    async def _list(self, path: str, headers: Headers) -> list[Mapping[str, Any]]:
        return list(_entries((await self._ask("GET", path, headers))[1]))

    async def _ask(
        self, method: str, path: str, headers: Headers, body: bytes | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer; None where it is none."""
        sent = [*headers, (b"content-type", b"application/json")] if body else headers
        async with self._wire.ask(
            method, path, sent, body, patience_seconds=PROBE_SECONDS
        ) as asked:
            answer = await asked.answer()
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
    # OpenRouter's words, and LM Studio's.
    lists = (_words(entry, key) for key in ("supported_parameters", "capabilities"))
    able = next((words for words in lists if words is not None), None)
    inputs = _words(_object(entry, "architecture"), "input_modalities")
    images = True if entry.get("type") == "vlm" else _among("image", inputs)
    tools = None if able is None else "tools" in able or "tool_use" in able
    return Served(name, _window(entry), has_tools=tools, takes_images=images)


def _object(holder: Any, key: str) -> dict[str, Any]:
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def _words(holder: Any, key: str) -> list[Any] | None:
    """None where there is no such list."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else None


def _among(word: str, words: list[Any] | None) -> bool | None:
    return None if words is None else word in words


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("id") or entry.get("model") or entry.get("name") or "")


def _window(entry: Mapping[str, Any]) -> int:
    meta = entry.get("meta")
    trained = meta.get("n_ctx_train") if isinstance(meta, Mapping) else None
    values = [*(entry.get(field) for field in _WINDOW_FIELDS), trained]
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
