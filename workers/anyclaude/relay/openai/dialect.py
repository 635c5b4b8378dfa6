"""Chat completions (`POST /v1/chat/completions`): a Messages request as the body of one."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.errors import invalid_request
from anyclaude.messages.requests import CountTokensRequest, Message, MessagesRequest, Tool
from anyclaude.relay.dialect import Reader, Target
from anyclaude.relay.openai.answer import ChatReader
from anyclaude.relay.openai.content import (
    Content,
    content_of,
    join,
    merged,
    result_blocks,
    split_images,
)
from anyclaude.relay.refusals import Quirk, Quirks
from anyclaude.relay.turns import arrange, reminder, turn_texts
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

ChatMessage = dict[str, Any]

_SHORT_ID_CHARACTERS: Final = 9
# Their chat templates have a setting that turns thinking off.
_TEMPLATE_KINDS: Final = frozenset({UpstreamKind.VLLM, UpstreamKind.LLAMA_CPP, UpstreamKind.MLX_LM})


class OpenAiDialect:
    name: Final = pb.DIALECT_OPENAI
    path: Final = "/v1/chat/completions"
    knows_server_tools: Final = False

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", f"Bearer {key}".encode())] if key else []

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        return build(request, target)

    def reader(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None],
    ) -> Reader:
        return ChatReader(
            request,
            estimated_tokens=estimated_tokens,
            window_limited=target.max_tokens is not None,
            on_usage=on_usage,
        )


def build(request: MessagesRequest, target: Target) -> dict[str, Any]:
    """The body to send.

    Raises:
        ApiError: 400 for content that the dialect cannot express.
    """
    body: dict[str, Any] = {
        "model": target.model,
        "messages": chat_messages(request, target.quirks),
        _limit_name(target): _max_tokens(request, target),
        "stream": target.settings.stream,
    }
    if target.settings.stream:
        body["stream_options"] = {"include_usage": True}
    body |= _tools(request, target.quirks)
    body |= _sampling(request)
    body |= _thinking(request, target.settings.kind)
    body |= _format(request)
    body |= target.settings.extra_body
    return {key: value for key, value in body.items() if key not in target.quirks.dropped}


def count_messages(request: CountTokensRequest, target: Target) -> dict[str, Any]:
    """The body of vLLM's `POST /tokenize`."""
    return {
        "model": target.model,
        "messages": chat_messages(request, target.quirks),
        "add_generation_prompt": True,
        **{key: value for key, value in _tools(request, target.quirks).items() if key == "tools"},
    }


def _limit_name(target: Target) -> str:
    renamed = Quirk.MAX_COMPLETION_TOKENS in target.quirks.known
    return "max_completion_tokens" if renamed else "max_tokens"


def _max_tokens(request: MessagesRequest, target: Target) -> int:
    # 0 means to fill the cache only; servers of this dialect need at least one token for that.
    return max(1, target.answer_tokens(request.max_tokens))


def _sampling(request: MessagesRequest) -> dict[str, Any]:
    fields = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": request.stop_sequences or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _thinking(request: MessagesRequest, kind: UpstreamKind) -> dict[str, Any]:
    wanted = (request.thinking or {}).get("type") in ("adaptive", "enabled")
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
    tools = [tool for tool in request.tools if tool.is_client_tool]
    by_word = Quirk.TOOL_CHOICE_WORD in quirks.known
    if by_word and choice.type == "tool":
        tools = [tool for tool in tools if tool.name == choice.name]
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [_function(tool) for tool in tools]}
    match choice.type:
        case "tool" if not by_word:
            fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case "any" | "tool":
            fields["tool_choice"] = "required"
        case kind:
            fields["tool_choice"] = kind
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields


def _function(tool: Tool) -> dict[str, Any]:
    schema = tool.input_schema or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def chat_messages(request: CountTokensRequest, quirks: Quirks) -> list[ChatMessage]:
    """The messages of the conversation, in order."""
    conversation = arrange(request)
    head = [{"role": "system", "content": join(conversation.system)}]
    walk = _Walk(quirks)
    messages = [
        message
        for place, turn in conversation.turns
        for message in walk.translate(turn, f"{place}.content")
    ]
    if Quirk.SYSTEM_AS_USER in quirks.known:
        messages = list(_alternating(messages))
    return [*(head if conversation.system else []), *messages]


@dataclass(frozen=True)
class _Walk:
    quirks: Quirks

    def translate(self, turn: Message, where: str) -> Iterator[ChatMessage]:
        match turn.role:
            case "system":
                yield from self._system(turn)
            case "assistant":
                yield from self._assistant(turn, where)
            case "user":
                yield from self._user(turn, where)

    def _system(self, turn: Message) -> Iterator[ChatMessage]:
        text = join(turn_texts(turn))
        if Quirk.SYSTEM_AS_USER in self.quirks.known:
            yield from _message("user", reminder(text) if text else "")
        else:
            yield from _message("system", text)

    def _assistant(self, turn: Message, where: str) -> Iterator[ChatMessage]:
        blocks = turn.blocks()
        words = [block for block in blocks if block["type"] != "tool_use"]
        calls = [
            self._call(block, f"{where}.{index}")
            for index, block in enumerate(blocks)
            if block["type"] == "tool_use"
        ]
        message: ChatMessage = {"role": "assistant", "content": content_of(words, where)}
        thoughts = join(_thought(block) for block in blocks)
        if thoughts and "reasoning_content" not in self.quirks.dropped:
            message["reasoning_content"] = thoughts
        if calls:
            message["tool_calls"] = calls
        if any(message.get(key) for key in ("content", "reasoning_content", "tool_calls")):
            yield message

    def _call(self, block: dict[str, Any], where: str) -> dict[str, Any]:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str):
            raise invalid_request(f"{where}: a tool_use block needs a string `id` and `name`")
        arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
        function = {"name": name, "arguments": arguments}
        return {"id": self._id(call_id), "type": "function", "function": function}

    def _user(self, turn: Message, where: str) -> Iterator[ChatMessage]:
        """Tool results become messages of their own, between the texts around them.

        Images follow after the last result in a row: a tool message may hold text only.
        """
        others: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        for index, block in enumerate(turn.blocks()):
            if block["type"] != "tool_result":
                others.append(block)
                continue
            yield from _message("user", content_of(others, where))
            message, shown = self._result(block, f"{where}.{index}")
            yield message
            images += shown
            others = []
        rest = content_of(others, where)
        yield from _message("user", merged(images, rest) if images else rest)

    def _result(
        self, block: dict[str, Any], where: str
    ) -> tuple[ChatMessage, list[dict[str, Any]]]:
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str):
            raise invalid_request(f"{where}.tool_use_id: Input should be a valid string")
        text, images = split_images(content_of(result_blocks(block, where), f"{where}.content"))
        if block.get("is_error"):
            text = f"Error: {text}"
        if images and not text:
            text = "(image below)"
        return {"role": "tool", "tool_call_id": self._id(call_id), "content": text}, images

    def _id(self, call_id: str) -> str:
        if Quirk.SHORT_TOOL_IDS not in self.quirks.known:
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID_CHARACTERS]


def _message(role: str, content: Content) -> Iterator[ChatMessage]:
    if content:
        yield {"role": role, "content": content}


def _thought(block: dict[str, Any]) -> str:
    thought = block.get("thinking") if block["type"] == "thinking" else ""
    return thought if isinstance(thought, str) else ""


def _alternating(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Merges adjacent user messages."""
    last: ChatMessage | None = None
    for message in messages:
        if last and last["role"] == message["role"] == "user":
            last = {"role": "user", "content": merged(last["content"], message["content"])}
            continue
        if last:
            yield last
        last = message
    if last:
        yield last
