"""A Messages request for a server of its own dialect.

The request is sent as it came, except for the model, fields that only the real API knows, ids and
names that the server knows in another form, and system messages inside the conversation, which
local servers refuse or move to the front.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from anyclaude.messages.readable import join, reminder
from anyclaude.messages.requests import CountTokensRequest, Message, MessagesRequest
from anyclaude.relay.anthropic.answer import MAX_NAME_CHARACTERS, MessageReader
from anyclaude.relay.dialect import Dialect, Target
from anyclaude.relay.names import server_id, short_name
from anyclaude.relay.quirks import Quirk
from anyclaude.relay.state import read_state
from anyclaude.relay.turns import arrange, turn_texts
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

VERSION: Final = b"2023-06-01"
COUNT_PATH: Final = "/v1/messages/count_tokens"
# Fields for Anthropic's own service.
_API_ONLY: Final = frozenset(
    {
        "container",
        "context_management",
        "diagnostics",
        "inference_geo",
        "mcp_servers",
        "service_tier",
        "speed",
    }
)
# These refuse a request with a block of any other type than the ones below.
_KNOW_FEW_BLOCKS: Final = frozenset(
    {UpstreamKind.LMSTUDIO, UpstreamKind.LLAMA_CPP, UpstreamKind.VLLM, UpstreamKind.OLLAMA}
)


class AnthropicDialect(Dialect):
    name = pb.DIALECT_ANTHROPIC
    path = "/v1/messages"
    knows_server_tools = True
    reader = MessageReader

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        headers = [(b"anthropic-version", VERSION)]
        if key:
            headers.append((b"x-api-key", key.encode()))
        if key and not is_api:
            # Some local servers read the key only from here.
            headers.append((b"authorization", f"Bearer {key}".encode()))
        return headers

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        body = {**document, "model": target.model, "stream": target.settings.stream}
        body["max_tokens"] = target.answer_tokens(request.max_tokens)
        if target.settings.kind is UpstreamKind.CLAUDE:
            return body
        # 0 means to fill the cache only; local servers need at least one token for that.
        body["max_tokens"] = max(1, body["max_tokens"])
        body = _adapted(request, body, target)
        if (limit := target.quirks.max_stop_sequences) and body.get("stop_sequences"):
            body["stop_sequences"] = body["stop_sequences"][:limit]
        return body | target.settings.extra_body

    def count_request(
        self, request: CountTokensRequest, document: Mapping[str, Any], target: Target
    ) -> tuple[str, dict[str, Any]]:
        body = {**document, "model": target.model}
        if target.settings.kind is not UpstreamKind.CLAUDE:
            body = _adapted(request, body, target)
            body = {name: body[name] for name in body if name not in ("max_tokens", "stream")}
        return COUNT_PATH, body


def _adapted(request: CountTokensRequest, body: dict[str, Any], target: Target) -> dict[str, Any]:
    """The body in the form that this server takes."""
    quirks = target.quirks
    body = _with_plain_tools(body | _conversation(request, target), quirks.left_out)
    off = (body.get("thinking") or {}).get("type") == "disabled"
    left_out = _API_ONLY | quirks.left_out
    if off and Quirk.REASONING_ALWAYS in quirks.known:
        left_out |= {"thinking"}
    body = {key: value for key, value in body.items() if key not in left_out}
    return _without(body, "cache_control") if "cache_control" in quirks.left_out else body


def _conversation(request: CountTokensRequest, target: Target) -> dict[str, Any]:
    """System texts and turns for local servers: turns are of the user and the assistant only."""
    few = target.settings.kind in _KNOW_FEW_BLOCKS
    conversation = arrange(request, target, knows_few=few)
    turns: list[dict[str, Any]] = []
    for _, turn in conversation.turns:
        if turn.role != "system":
            # Servers refuse empty content, and with it every later turn.
            turns += [sent for sent in (_turn(turn, target),) if sent["content"]]
        elif text := join(turn_texts(turn)):
            turns.append({"role": "user", "content": reminder(text)})
    if Quirk.ALTERNATE in target.quirks.known:
        turns = list(_alternating(turns))
    return {"messages": turns, "system": list(conversation.system)}


def _turn(turn: Message, target: Target) -> dict[str, Any]:
    document = {**(turn.model_extra or {}), "role": turn.role}
    content = turn.content
    if isinstance(content, str):
        return {**document, "content": content}
    blocks = [sent for block in content if (sent := _block(block, target)) is not None]
    return {**document, "content": blocks}


def _block(block: Any, target: Target) -> Any:
    """A block as the server takes it; None if it takes none."""
    match block.get("type") if isinstance(block, dict) else None:
        case "text" if not str(block.get("text") or "").strip():
            return None
        case "tool_use" if isinstance(block.get("id"), str):
            sent = {**block, "id": server_id(block["id"])}
            return {**sent, "name": _short(sent.get("name"))}
        case "tool_result" if isinstance(block.get("tool_use_id"), str):
            return {**block, "tool_use_id": server_id(block["tool_use_id"])}
        case "thinking":
            state = read_state(block)
            if state and state.redacted and state.model == target.model:
                return {"type": "redacted_thinking", "data": state.redacted}
            is_refused = Quirk.OWN_THOUGHTS_ONLY in target.quirks.known
            return None if is_refused or (state and not block.get("thinking")) else block
    return block


def _with_plain_tools(body: dict[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """The body with tools as the server takes them: short names, no field that it refuses."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if isinstance(tools, list):
        kept = (_without_fields(tool, left_out) for tool in tools)
        body = {**body, "tools": [_with_short_name(tool) for tool in kept]}
    if isinstance(choice, dict) and "name" in choice:
        body = {**body, "tool_choice": _with_short_name(choice)}
    return body


def _without_fields(tool: Any, left_out: frozenset[str]) -> Any:
    if not isinstance(tool, dict):
        return tool
    return {key: value for key, value in tool.items() if key not in left_out}


def _with_short_name(holder: Any) -> Any:
    if not isinstance(holder, dict) or "name" not in holder:
        return holder
    return {**holder, "name": _short(holder["name"])}


def _short(name: Any) -> Any:
    return short_name(name, MAX_NAME_CHARACTERS) if isinstance(name, str) else name


def _alternating(turns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Merges adjacent turns of one role."""
    last: dict[str, Any] | None = None
    for turn in turns:
        if last and last["role"] == turn["role"]:
            last = {**last, "content": [*_blocks(last), *_blocks(turn)]}
            continue
        if last:
            yield last
        last = turn
    if last:
        yield last


def _blocks(turn: Mapping[str, Any]) -> list[Any]:
    content = turn["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _without(value: Any, name: str) -> Any:
    """A JSON value without a field, at any depth."""
    if isinstance(value, dict):
        return {key: _without(inner, name) for key, inner in value.items() if key != name}
    return [_without(inner, name) for inner in value] if isinstance(value, list) else value
