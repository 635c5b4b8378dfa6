"""What a model's chat template takes, and conversations put into that form.

Templates differ in the roles they take and where. What one refuses is found once, when the model
is loaded (`probe.py`), and never again: a rule that changed between requests would move tokens
that are already computed. Every rewriting here looks only at a message and those before it.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.content import join

_TOOL_ID_CHARACTERS: Final = 9


@dataclass(frozen=True)
class Dialect:
    """Each field says that the template takes a thing; without it, the thing is rewritten."""

    # A system message at the start; else a user turn.
    leading_system: bool = True
    # A second one behind it; else one message with both texts.
    second_system: bool = True
    # System messages between turns; else a reminder in the turn before, or in a user turn.
    late_system: bool = True
    # Turns of one role in a row; else one turn with both texts.
    repeated_roles: bool = True
    # A user turn behind a tool's result; else its text joins the result.
    user_after_result: bool = True
    # Results whose call is not in the conversation; else user turns.
    orphan_results: bool = True
    # Several calls in one turn; else each call and its result make turns of their own.
    parallel_calls: bool = True
    # Arguments as an object; else as JSON text.
    object_arguments: bool = True
    # Ids such as `toolu_01A...`; else nine letters and digits made from them.
    any_tool_id: bool = True
    # Text and thinking beside a call; else the text counts as thinking.
    thinking_and_text_with_call: bool = True

    def shape(self, conversation: Conversation) -> list[TemplateMessage]:
        """The conversation's messages in a form that the template takes."""
        messages = self.leading(conversation.leading)
        for message in conversation.messages:
            self.add(messages, message)
        return messages if self.parallel_calls else list(_one_call_each(messages))

    def leading(self, texts: tuple[str, ...]) -> list[TemplateMessage]:
        """The system texts ahead of the first turn."""
        role = "system" if self.leading_system else "user"
        if not (self.leading_system and self.second_system):
            texts = (join(texts),)
        return [{"role": role, "content": text} for text in texts if text]

    def _spelled(self, message: TemplateMessage) -> TemplateMessage:
        """The message with its ids, arguments and thinking written as the template takes them."""
        result = dict(message)
        if not self.any_tool_id and "tool_call_id" in result:
            result["tool_call_id"] = _short_id(result["tool_call_id"])
        if "tool_calls" not in result:
            return result
        result["tool_calls"] = [self._call(call) for call in result["tool_calls"]]
        if not self.thinking_and_text_with_call and "reasoning_content" in result:
            thoughts = [result["reasoning_content"], result["content"]]
            result |= {"reasoning_content": join(thoughts), "content": ""}
        return result

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        call_id, function = call["id"], call["function"]
        if not self.any_tool_id:
            call_id = _short_id(call_id)
        if not self.object_arguments:
            text = json.dumps(function["arguments"], ensure_ascii=False)
            function = {**function, "arguments": text}
        return {**call, "id": call_id, "function": function}

    def add(self, messages: list[TemplateMessage], message: TemplateMessage) -> None:
        """Puts a message behind those before it, or joins it with the last of them."""
        message = self._spelled(message)
        before = messages[-1]["role"] if messages else ""
        reminds = message["role"] == "system" and not self.late_system
        if reminds:
            reminder = f"<system-reminder>\n{message['content']}\n</system-reminder>"
            message = {"role": "user", "content": reminder}
        if message["role"] == "tool" and not ("name" in message or self.orphan_results):
            message = {"role": "user", "content": message["content"]}
        # Behind a result a reminder is no new question: some templates drop thinking at those.
        on_result = before == "tool" and (reminds or not self.user_after_result)
        repeated = before == message["role"] and not self.repeated_roles
        if (on_result and message["role"] == "user") or (repeated and before != "tool"):
            messages[-1] = _merged(messages[-1], message)
        else:
            messages.append(message)


def _merged(first: TemplateMessage, second: TemplateMessage) -> TemplateMessage:
    merged = {**first, "content": join([first["content"], second["content"]])}
    if thoughts := join(message.get("reasoning_content", "") for message in (first, second)):
        merged["reasoning_content"] = thoughts
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        merged["tool_calls"] = calls
    return merged


def _one_call_each(messages: Iterable[TemplateMessage]) -> Iterator[TemplateMessage]:
    """Put each call's result behind it, in turns of their own."""
    queue = deque(messages)
    while queue:
        message = queue.popleft()
        calls = message.get("tool_calls", [])
        if len(calls) < 2:
            yield message
            continue
        results = []
        while queue and queue[0]["role"] == "tool":
            results.append(queue.popleft())
        for turn in ({**message, "tool_calls": calls[:1]}, *map(_bare_call, calls[1:])):
            call_id = turn["tool_calls"][0]["id"]
            yield turn
            yield from (result for result in results if result["tool_call_id"] == call_id)
        known = {call["id"] for call in calls}
        yield from (result for result in results if result["tool_call_id"] not in known)


def _bare_call(call: dict[str, Any]) -> TemplateMessage:
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _short_id(call_id: str) -> str:
    digest = hashlib.sha256(call_id.encode()).hexdigest()
    return digest[:_TOOL_ID_CHARACTERS]
