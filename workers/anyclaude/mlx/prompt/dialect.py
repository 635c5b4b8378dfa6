"""What a model's chat template accepts, and how conversations are adapted to it.

Templates differ in the roles they accept, and in where they accept them. What a template refuses is
found out once, when the model is loaded (`probe.py`): a rule that changed between requests would
move tokens that are already computed. For the same reason a message is adapted by what it is and
by the messages before it, and never by those after it; calls are the one exception, where a
template accepts only one call in a turn.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from anyclaude.messages.readable import join, reminder
from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.render_cache import Entry, RenderCache, exact_bytes

_TOOL_ID_CHARACTERS: Final = 9
# How reminders begin that Claude Code adds to a user's turn.
REMINDER: Final = "<system-reminder>\n"


@dataclass(frozen=True, eq=False)
class AdaptedMessages:
    """A conversation's messages as the template accepts them, and each of them as exact bytes."""

    messages: list[TemplateMessage]
    exact: list[bytes]

    @classmethod
    def of(cls, messages: list[TemplateMessage]) -> Self:
        return cls(messages, [exact_bytes(message) for message in messages])


@dataclass(frozen=True)
class Dialect:
    """What a template accepts. Where a field is false, messages are rewritten as it says."""

    # A system message at the start. Otherwise it becomes a user turn.
    leading_system: bool = True
    # A second system message after it. Otherwise both become one message.
    second_system: bool = True
    # System messages between turns. Otherwise they become reminders in a user turn or result.
    late_system: bool = True
    # Several turns of one role in a row. Otherwise they become one turn.
    repeated_roles: bool = True
    # A user turn after a tool's result. Otherwise its text is added to the result.
    user_after_result: bool = True
    # A reminder as a user turn after a tool's result. Otherwise it is added to the result, since
    # the template takes it for a new question and drops the thinking before it.
    reminder_after_result: bool = True
    # Results of tools. Otherwise they become user turns.
    results: bool = True
    # Results whose call is not in the conversation. Otherwise they become user turns.
    orphan_results: bool = True
    # Several calls in one turn. Otherwise each call and its result become turns of their own.
    parallel_calls: bool = True
    # Arguments as an object. Otherwise they are written as JSON text.
    object_arguments: bool = True
    # Ids such as `toolu_01A...`. Otherwise nine letters and digits are derived from them.
    any_tool_id: bool = True
    # Both text and thinking beside a call. Otherwise the text is added to the thinking.
    thinking_and_text_with_call: bool = True
    # Text beside a call, printed before it. Otherwise the text becomes a turn before the call.
    text_with_call: bool = True

    def adapt(self, conversation: Conversation) -> list[TemplateMessage]:
        """The conversation's messages in a form that the template accepts."""
        messages = self.leading(conversation.leading)
        for message in conversation.messages:
            self.add(messages, message)
        return messages if self.parallel_calls else list(_one_call_each(messages))

    def leading(self, texts: tuple[str, ...]) -> list[TemplateMessage]:
        """The system texts before the first turn, as messages."""
        role = "system" if self.leading_system else "user"
        if not (self.leading_system and self.second_system):
            texts = (join(texts),)
        return [{"role": role, "content": text} for text in texts if text]

    def add(self, messages: list[TemplateMessage], message: TemplateMessage) -> None:
        """Appends a message to those before it, or merges it into the last of them."""
        message = self._rewritten(message)
        if not self.text_with_call and message.get("tool_calls") and message["content"]:
            # Many templates print thinking only beside a call.
            self.add(messages, {"role": "assistant", "content": message["content"]})
            message = {**message, "content": ""}
        before = messages[-1]["role"] if messages else ""
        reminds = message["role"] == "system" and not self.late_system
        if reminds:
            message = {"role": "user", "content": reminder(message["content"])}
        is_printed = self.results and ("name" in message or self.orphan_results)
        if message["role"] == "tool" and not is_printed:
            message = {"role": "user", "content": message["content"]}
        reminds = reminds or (
            not self.reminder_after_result and message["content"].startswith(REMINDER)
        )
        on_result = before == "tool" and (reminds or not self.user_after_result)
        repeated = before == message["role"] and not self.repeated_roles
        if (on_result and message["role"] == "user") or (repeated and before != "tool"):
            messages[-1] = _merged(messages[-1], message)
        else:
            messages.append(message)

    def _rewritten(self, message: TemplateMessage) -> TemplateMessage:
        """The message with its ids, arguments and thinking as the template accepts them."""
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


@dataclass(frozen=True, eq=False)
class _Adaptation:
    """One conversation, and what became of its messages."""

    given: Sequence[TemplateMessage]
    # How many adapted messages there were before each given one, and after the last.
    ends: list[int]
    adapted: AdaptedMessages

    def is_final(self, count: int) -> bool:
        """Whether no later message was merged into what the first `count` became."""
        return count == len(self.given) or self.ends[count + 1] > self.ends[count]


class ConversationAdapter:
    """Adapts conversations to one dialect, and only what is new in them.

    Messages that a client sends again are the same objects (`canonical.TurnCache`), so the
    adaptation of a conversation that has grown is continued.
    """

    def __init__(self, dialect: Dialect, limit_bytes: int) -> None:
        """The bytes limit the adaptations that are kept."""
        self._dialect = dialect
        self._cache: RenderCache[_Adaptation] = RenderCache(limit_bytes)

    def adapted(self, conversation: Conversation) -> AdaptedMessages:
        if not self._dialect.parallel_calls:
            # The place of a call then depends on the results after it.
            return AdaptedMessages.of(self._dialect.adapt(conversation))
        # Ids of objects are unique here, since an entry keeps its messages alive.
        items = [id(message) for message in conversation.messages]
        known, entry = self._cache.find(conversation.leading, items)
        messages, exact, ends = self._begun(conversation, entry.value if entry else None, known)
        unchanged = len(messages)
        for message in conversation.messages[len(ends) :]:
            ends.append(len(messages))
            self._dialect.add(messages, message)
            # The message may have been merged into the last one.
            unchanged = min(unchanged, ends[-1] - (len(messages) == ends[-1]))
        ends.append(len(messages))
        del exact[unchanged:]
        exact += [exact_bytes(message) for message in messages[unchanged:]]
        adapted = AdaptedMessages(messages, exact)
        adaptation = _Adaptation(conversation.messages, ends, adapted)
        nbytes = 2 * sum(map(len, exact))
        self._cache.add(Entry(conversation.leading, items, adaptation, nbytes))
        return adapted

    def _begun(
        self, conversation: Conversation, before: _Adaptation | None, known: int
    ) -> tuple[list[TemplateMessage], list[bytes], list[int]]:
        """The adaptation of the first `known` messages, or of fewer if the last are not final."""
        while before is not None and known:
            if before.is_final(known):
                end, adapted = before.ends[known], before.adapted
                return adapted.messages[:end], adapted.exact[:end], before.ends[:known]
            known -= 1
        messages = self._dialect.leading(conversation.leading)
        return messages, [exact_bytes(message) for message in messages], []


def _merged(first: TemplateMessage, second: TemplateMessage) -> TemplateMessage:
    merged = {**first, "content": join([first["content"], second["content"]])}
    if thoughts := join(message.get("reasoning_content", "") for message in (first, second)):
        merged["reasoning_content"] = thoughts
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        merged["tool_calls"] = calls
    return merged


def _one_call_each(messages: Iterable[TemplateMessage]) -> Iterator[TemplateMessage]:
    """Gives each call a turn of its own, followed by its result."""
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
