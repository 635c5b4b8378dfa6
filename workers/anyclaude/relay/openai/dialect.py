"""Chat completions (`POST /v1/chat/completions`): a Messages request as the body of one."""

from collections.abc import Mapping
from typing import Any, Final

from anyclaude.messages.offered import offered_tools
from anyclaude.messages.requests import CountTokensRequest, MessagesRequest, Tool
from anyclaude.relay.dialect import Dialect, Target
from anyclaude.relay.names import short_name
from anyclaude.relay.openai.answer import ChatReader
from anyclaude.relay.openai.messages import chat_messages
from anyclaude.relay.quirks import Quirk, Quirks
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

# Their chat templates have a setting that turns thinking off.
_TEMPLATE_KINDS: Final = frozenset({UpstreamKind.VLLM, UpstreamKind.LLAMA_CPP, UpstreamKind.MLX_LM})
# vLLM's own endpoint, which applies the chat template.
_VLLM_COUNT_PATH: Final = "/tokenize"


class OpenAiDialect(Dialect):
    name = pb.DIALECT_OPENAI
    path = "/v1/chat/completions"
    knows_server_tools = False
    reader = ChatReader

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", f"Bearer {key}".encode())] if key else []

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        quirks, settings = target.quirks, target.settings
        renamed = Quirk.MAX_COMPLETION_TOKENS in quirks.known
        # 0 means to fill the cache only; servers of this dialect need at least one token for that.
        limit = max(1, target.answer_tokens(request.max_tokens))
        body: dict[str, Any] = {
            "model": target.model,
            "messages": chat_messages(request, target),
            "max_completion_tokens" if renamed else "max_tokens": limit,
            "stream": settings.stream,
        }
        if settings.stream:
            body["stream_options"] = {"include_usage": True}
        body |= _tools(request, quirks)
        body |= _sampling(request, quirks.max_stop_sequences)
        body |= _thinking(request, settings.kind, quirks)
        body |= _format(request)
        body |= settings.extra_body
        return {key: value for key, value in body.items() if key not in quirks.left_out}

    def count_request(
        self, request: CountTokensRequest, document: Mapping[str, Any], target: Target
    ) -> tuple[str, dict[str, Any]] | None:
        if target.settings.kind is not UpstreamKind.VLLM:
            return None
        tools = _tools(request, target.quirks).get("tools")
        return _VLLM_COUNT_PATH, {
            "model": target.model,
            "messages": chat_messages(request, target),
            "add_generation_prompt": True,
            **({"tools": tools} if tools else {}),
        }


def _sampling(request: MessagesRequest, max_stops: int) -> dict[str, Any]:
    stops = request.stop_sequences
    fields = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": (stops[:max_stops] if max_stops else stops) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _thinking(request: MessagesRequest, kind: UpstreamKind, quirks: Quirks) -> dict[str, Any]:
    wanted = (request.thinking or {}).get("type") in ("adaptive", "enabled")
    if not wanted and Quirk.REASONING_ALWAYS in quirks.known:
        return {}
    if kind is UpstreamKind.OPENROUTER:
        effort = (request.output_config or {}).get("effort")
        level = {"effort": effort} if effort in ("low", "medium", "high") else {"enabled": True}
        return {"reasoning": level if wanted else {"enabled": False}}
    if kind in _TEMPLATE_KINDS and not wanted:
        return {"chat_template_kwargs": {"enable_thinking": False}}
    return {}


def _format(request: MessagesRequest) -> dict[str, Any]:
    wanted = (request.output_config or {}).get("format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return {}
    schema = {"name": "answer", "schema": wanted.get("schema") or {}, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _tools(request: CountTokensRequest, quirks: Quirks) -> dict[str, Any]:
    choice = request.tool_choice
    tools = offered_tools(request)
    by_word = Quirk.TOOL_CHOICE_WORD in quirks.known
    if by_word and choice.type == "tool":
        tools = [tool for tool in tools if tool.name == choice.name]
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [_function(tool) for tool in tools]}
    match choice.type:
        case "tool" if not by_word:
            name = short_name(choice.name or "")
            fields["tool_choice"] = {"type": "function", "function": {"name": name}}
        case "any" | "tool":
            fields["tool_choice"] = "required"
        case kind:
            fields["tool_choice"] = kind
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields


def _function(tool: Tool) -> dict[str, Any]:
    schema = tool.input_schema or {"type": "object", "properties": {}}
    name = short_name(tool.name)
    function = {"name": name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}
