"""The messages of a conversation as chat completions have them.

Servers insist on an order that the Messages API does not know: the results of an assistant's calls
come directly after it, in messages of their own, before any words of the same or of a later turn.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from anyclaude.messages.errors import invalid_request
from anyclaude.messages.readable import join, reminder
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.relay.dialect import Target
from anyclaude.relay.names import server_id, short_name
from anyclaude.relay.openai.content import (
    Content,
    as_parts,
    content_of,
    merged,
    result_blocks,
    split_images,
)
from anyclaude.relay.quirks import Quirk, Quirks
from anyclaude.relay.state import ReasoningState, state_of
from anyclaude.relay.turns import arrange, turn_texts
from anyclaude.runtime.upstreams import UpstreamKind

ChatMessage = dict[str, Any]

_SHORT_ID_CHARACTERS: Final = 9
# Stands for thoughts of another model, which a server expects and nobody has.
_NO_THOUGHTS: Final = " "
# Stand for what is missing where a result has no call, or a call no result.
_ORPHAN: Final = "Result of an earlier tool call:"
_NO_RESULT: Final = "(no result)"
_SYSTEM_QUIRKS: Final = (Quirk.SYSTEM_AS_USER, Quirk.SYSTEM_IN_FIRST_TURN)
_OPENROUTER_HOST: Final = "openrouter.ai"


def chat_messages(request: CountTokensRequest, target: Target) -> list[ChatMessage]:
    """The messages of the conversation, in order."""
    conversation = arrange(request, target)
    quirks = target.quirks
    walk = _Walk(quirks, target.model, has_marks=_has_marks(target))
    head: list[ChatMessage] = []
    if conversation.system:
        marked = walk.has_marks and any("cache_control" in block for block in conversation.system)
        texts: Content = (
            list(conversation.system)
            if marked
            else join(block["text"] for block in conversation.system)
        )
        role = "user" if Quirk.SYSTEM_IN_FIRST_TURN in quirks.known else "system"
        head = [{"role": role, "content": texts}]
    messages = list(_results_first(walk.translate(conversation.turns)))
    if Quirk.ALTERNATE in quirks.known:
        messages = list(_without_words_after_results(messages))
    if {Quirk.ALTERNATE, *_SYSTEM_QUIRKS} & quirks.known:
        return list(_merged_turns([*head, *messages]))
    return [*head, *messages]


def _has_marks(target: Target) -> bool:
    """Whether the server caches a prompt only where `cache_control` marks it: Claude, relayed."""
    settings = target.settings
    host = urlsplit(settings.base_url).hostname or ""
    is_openrouter = settings.kind is UpstreamKind.OPENROUTER or host.endswith(_OPENROUTER_HOST)
    is_claude = "claude" in target.model.lower()
    return is_openrouter and is_claude and "cache_control" not in target.quirks.left_out


@dataclass(frozen=True)
class _Walk:
    quirks: Quirks
    model: str
    has_marks: bool

    def translate(self, turns: Iterable[tuple[str, Message]]) -> Iterator[ChatMessage]:
        for place, turn in turns:
            match turn.role:
                case "system":
                    yield from self._system(turn)
                case "assistant":
                    yield from self._assistant(turn, place)
                case "user":
                    yield from self._user(turn, place)

    def _system(self, turn: Message) -> Iterator[ChatMessage]:
        text = join(turn_texts(turn))
        if {Quirk.ALTERNATE, *_SYSTEM_QUIRKS} & self.quirks.known:
            yield from _message("user", reminder(text) if text else "")
        else:
            yield from _message("system", text)

    def _assistant(self, turn: Message, where: str) -> Iterator[ChatMessage]:
        blocks = turn.blocks()
        words = [block for block in blocks if block["type"] != "tool_use"]
        state = state_of(blocks, self.model) or ReasoningState(self.model)
        calls = [
            self._call(block, f"{where}.{index}", state)
            for index, block in enumerate(blocks)
            if block["type"] == "tool_use"
        ]
        message: ChatMessage = {"role": "assistant", "content": self._content(words, where)}
        fields = {
            "reasoning_content": join(_thought(block) for block in blocks),
            "reasoning_details": state.details,
            "extra_content": state.extra,
            "tool_calls": calls,
        }
        left_out = self.quirks.left_out
        message |= {key: value for key, value in fields.items() if value and key not in left_out}
        if len(message) == 2 and not message["content"]:
            return
        if Quirk.REASONING_EXPECTED in self.quirks.known:
            message.setdefault("reasoning_content", _NO_THOUGHTS)
        yield message

    def _call(self, block: dict[str, Any], where: str, state: ReasoningState) -> dict[str, Any]:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str):
            raise invalid_request(f"{where}: a tool_use block needs a string `id` and `name`")
        arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
        kept = dict(state.calls.get(call_id, {}))
        inner = kept.pop("function", {})
        if "extra_content" in self.quirks.left_out:
            kept, inner = {}, {}
        function = {"name": short_name(name), "arguments": arguments, **inner}
        return {"id": self._id(call_id), "type": "function", "function": function, **kept}

    def _user(self, turn: Message, where: str) -> Iterator[ChatMessage]:
        """Tool results become messages of their own, before the words and images of the turn.

        Images of results are the first of these: a tool message may hold text only.
        """
        words: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        for index, block in enumerate(turn.blocks()):
            if block["type"] != "tool_result":
                words.append(block)
                continue
            message, shown = self._result(block, f"{where}.{index}")
            yield message
            images += shown
        rest = self._content(words, where)
        yield from _message("user", merged(images, rest) if images else rest)

    def _content(self, blocks: list[dict[str, Any]], where: str) -> Content:
        """The content of a message; with marks, each text is a part of its own."""
        if not self.has_marks or not any(block.get("cache_control") for block in blocks):
            return content_of(blocks, where)
        parts: list[dict[str, Any]] = []
        for block in blocks:
            added = as_parts(content_of([block], where))
            if added and block.get("cache_control"):
                added[-1] = {**added[-1], "cache_control": block["cache_control"]}
            parts += added
        return parts

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
        content: Content = text
        if self.has_marks and block.get("cache_control") and text:
            part = {"type": "text", "text": text, "cache_control": block["cache_control"]}
            content = [part]
        return {"role": "tool", "tool_call_id": self._id(call_id), "content": content}, images

    def _id(self, call_id: str) -> str:
        if Quirk.SHORT_TOOL_IDS not in self.quirks.known:
            return server_id(call_id)
        return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID_CHARACTERS]


def _message(role: str, content: Content) -> Iterator[ChatMessage]:
    if content:
        yield {"role": role, "content": content}


def _thought(block: Mapping[str, Any]) -> str:
    thought = block.get("thinking") if block["type"] == "thinking" else ""
    return thought if isinstance(thought, str) else ""


def _results_first(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Moves the result of each call directly behind the assistant's message.

    Servers refuse a call without a result, and the reverse, and with it every later turn.
    """
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        if message["role"] == "tool":
            yield {"role": "user", "content": merged(_ORPHAN, message["content"])}
            continue
        yield message
        for call in message.get("tool_calls") or ():
            result = next(_results_of(call["id"], rest), None)
            if result is not None:
                rest.remove(result)
                yield result
            elif rest:
                yield {"role": "tool", "tool_call_id": call["id"], "content": _NO_RESULT}


def _results_of(call_id: str, messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """The results of a call, up to the next call with its id."""
    for message in messages:
        if any(call["id"] == call_id for call in message.get("tool_calls") or ()):
            return
        if message.get("tool_call_id") == call_id:
            yield message


def _without_words_after_results(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Appends the words of a user's turn after a result to that result; images stay a turn."""
    last: ChatMessage | None = None
    for message in messages:
        if last and last["role"] == "tool" and message["role"] == "user":
            text, images = split_images(message["content"])
            last = {**last, "content": merged(last["content"], text)}
            if not images:
                continue
            message = {"role": "user", "content": images}
        if last:
            yield last
        last = message
    if last:
        yield last


def _merged_turns(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    """Merges adjacent messages of the user, and adjacent ones of the assistant."""
    last: ChatMessage | None = None
    for message in messages:
        is_same = last is not None and last["role"] == message["role"] != "tool"
        if last is not None and is_same and not last.get("tool_calls"):
            last = {**last, **message, "content": merged(last["content"], message["content"])}
            continue
        if last:
            yield last
        last = message
    if last:
        yield last
