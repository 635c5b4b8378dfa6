"""Translates a Messages request to template messages and tools.

Requests that mean the same give the same result, however they are written. What does not reach the
model (the attribution block, `cache_control`, server tools, flags of tools) is left out, so that it
can change between requests without changing a token.

A system message directly after the first user message is put before it (`split_leading`). Only its
position decides, so the message never moves again, and all new conversations share it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from anyclaude.messages.errors import invalid_request
from anyclaude.messages.offered import (
    declared_tools,
    defers_tools,
    defined_tools,
    definition_in,
    name_in,
)
from anyclaude.messages.readable import (
    Placed,
    block_text,
    blocks_text,
    join,
    split_leading,
    without_attribution,
)
from anyclaude.messages.requests import CountTokensRequest, Message, Tool, inner_blocks
from anyclaude.mlx.prompt.render_cache import Entry, RenderCache, exact_bytes

_TURN_BYTES: Final = 1024
_ADDED: Final = "This tool is available from now on, and is called like the others:"

# A message as chat templates read it, in OpenAI's form. Keys without a value are absent.
TemplateMessage = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    # System texts before the first turn: the system prompt, then what the position rule moved.
    leading: tuple[str, ...]
    messages: tuple[TemplateMessage, ...]
    tools: tuple[dict[str, Any], ...]


# For each turn of a request, the messages that it became.
TurnCache = RenderCache[list[tuple[TemplateMessage, ...]]]


def wants_thinking(request: CountTokensRequest) -> bool:
    return (request.thinking or {}).get("type") in ("adaptive", "enabled")


def canonicalise(request: CountTokensRequest, cache: TurnCache | None = None) -> Conversation:
    """Translates a request; turns that it repeats are taken from `cache`, as the same objects.

    Raises:
        ApiError: 400 for content that a text model cannot read.
    """
    leading, turns = split_leading(request.messages)
    texts = [blocks_text(without_attribution(request.system), "system")]
    declared, defined = declared_tools(request), defined_tools(request)
    deferring = defers_tools(request)
    listed = [tool for tool in declared if not (deferring and _is_deferred(tool))]
    names = {tool.name for tool in listed}
    # The list comes first: a description that is rendered already never changes.
    unlisted = [tool for tool in (*declared, *defined.values()) if tool.name not in names]
    later = {tool.name: _function(tool) for tool in reversed(unlisted)}
    texts += [_Walk(later).system_text(turn, where) for where, turn in leading]
    messages = tuple(chain.from_iterable(_translated(turns, later, cache)))
    if not messages:
        raise invalid_request("messages: at least one message needs content")
    tools = tuple(map(_function, listed))
    return Conversation(tuple(text for text in texts if text), messages, tools)


def translated(answer: Message) -> tuple[TemplateMessage, ...]:
    """The translation of an assistant message alone."""
    return _Walk({}).messages(answer, "answer")


def _translated(
    turns: Sequence[Placed],
    deferred: Mapping[str, dict[str, Any]],
    cache: TurnCache | None,
) -> list[tuple[TemplateMessage, ...]]:
    walk = _Walk(deferred)
    if cache is None:
        return [walk.messages(turn, where) for where, turn in turns]
    group = exact_bytes(deferred)
    exact = [exact_bytes((turn.role, turn.content)) for _, turn in turns]
    common, before = cache.find(group, exact)
    result = before.value[:common] if before else []
    for message in chain.from_iterable(result):
        walk.learn_names(message)
    result += [walk.messages(turn, where) for where, turn in turns[common:]]
    # An estimate: the text of the messages once more, and their objects.
    nbytes = 2 * sum(map(len, exact)) + _TURN_BYTES * len(exact)
    cache.add(Entry(group, exact, result, nbytes))
    return result


def _is_deferred(tool: Tool) -> bool:
    """Whether the tool is described only where a search result refers to it.

    Claude Code adds such tools to the middle of the list during a conversation. If they were
    rendered with the others, everything after each of them would be computed again.
    """
    return bool((tool.model_extra or {}).get("defer_loading"))


def _function(tool: Tool) -> dict[str, Any]:
    schema = tool.input_schema or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


@dataclass
class _Walk:
    """Translates turns in order, and remembers calls so that results can name their tool."""

    # Tools that are described where a result or a system message refers to them, by name.
    deferred: Mapping[str, dict[str, Any]]
    names: dict[str, str] = field(default_factory=dict)

    def messages(self, turn: Message, where: str) -> tuple[TemplateMessage, ...]:
        match turn.role:
            case "system":
                return tuple(_message("system", self.system_text(turn, where)))
            case "assistant":
                return tuple(self._assistant(turn, where))
            case "user":
                return tuple(self._user(turn, where))

    def system_text(self, turn: Message, where: str) -> str:
        """The text of a system message, with what it says about tools."""
        places = enumerate(turn.blocks())
        return join(self._system_block(block, f"{where}.{index}") for index, block in places)

    def _system_block(self, block: dict[str, Any], where: str) -> str:
        match block["type"]:
            case "tool_addition":
                tool = definition_in(block, where)
                name = tool.name if tool is not None else name_in(block)
                described = self.deferred.get(name) if tool is None else _function(tool)
                if described is not None:
                    return f"{_ADDED}\n{json.dumps(described, ensure_ascii=False)}"
                return f"The tool {name} is available from now on." if name else ""
            case "tool_removal":
                name = name_in(block)
                return f"The tool {name} is not available any more." if name else ""
            case _:
                return block_text(block, where)

    def learn_names(self, message: TemplateMessage) -> None:
        for call in message.get("tool_calls", ()):
            self.names[call["id"]] = call["function"]["name"]

    def _assistant(self, turn: Message, where: str) -> Iterator[TemplateMessage]:
        blocks = list(enumerate(turn.blocks()))
        uses = [(f"{where}.{i}", block) for i, block in blocks if block["type"] == "tool_use"]
        calls = [self._call(block, place) for place, block in uses]
        words = [(f"{where}.{i}", block) for i, block in blocks if block["type"] != "tool_use"]
        message: TemplateMessage = {
            "role": "assistant",
            "content": join(block_text(block, place) for place, block in words),
        }
        if reasoning := join(_thinking(block) for _, block in words):
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
        if any(message.get(key) for key in ("content", "reasoning_content", "tool_calls")):
            yield message

    def _call(self, block: dict[str, Any], where: str) -> dict[str, Any]:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str):
            raise invalid_request(f"{where}: a tool_use block needs a string `id` and `name`")
        arguments = block.get("input") or {}
        if not isinstance(arguments, dict):
            raise invalid_request(f"{where}.input: Input should be a valid dictionary")
        self.names[call_id] = name
        function = {"name": name, "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    def _user(self, turn: Message, where: str) -> Iterator[TemplateMessage]:
        """Results become messages of their own, between the texts before and after them."""
        words: list[str] = []
        empty = True
        for index, block in enumerate(turn.blocks()):
            place = f"{where}.{index}"
            if block["type"] != "tool_result":
                words.append(block_text(block, place))
                continue
            yield from _message("user", join(words))
            yield self._result(block, place)
            words, empty = [], False
        # An empty turn is still a turn: without it, the previous answer would be continued.
        text = join(words)
        if text or empty:
            yield {"role": "user", "content": text}

    def _result(self, block: dict[str, Any], where: str) -> TemplateMessage:
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str):
            raise invalid_request(f"{where}.tool_use_id: Input should be a valid string")
        content = self._resolved(_result_content(block, where))
        text = blocks_text(content, f"{where}.content")
        if block.get("is_error"):
            text = f"Error: {text}"
        message = {"role": "tool", "tool_call_id": call_id, "content": text}
        if call_id in self.names:
            message["name"] = self.names[call_id]
        return message

    def _resolved(self, content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
        """The content with references to deferred tools replaced by their descriptions."""
        if isinstance(content, str):
            return content
        return [self._tool_text(part) or part for part in content]

    def _tool_text(self, part: dict[str, Any]) -> dict[str, Any] | None:
        name = part.get("tool_name") if part["type"] == "tool_reference" else None
        if not isinstance(name, str) or name not in self.deferred:
            return None
        return {"type": "text", "text": json.dumps(self.deferred[name], ensure_ascii=False)}


def _result_content(block: dict[str, Any], where: str) -> str | list[dict[str, Any]]:
    content = block.get("content") or ""
    return content if isinstance(content, str) else inner_blocks(content, f"{where}.content")


def _message(role: str, text: str) -> Iterator[TemplateMessage]:
    if text:
        yield {"role": role, "content": text}


def _thinking(block: dict[str, Any]) -> str:
    thought = block.get("thinking") if block["type"] == "thinking" else ""
    return thought if isinstance(thought, str) else ""
