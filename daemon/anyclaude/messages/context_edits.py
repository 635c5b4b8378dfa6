"""The context edits that a request asks for: what they clear before the model reads the prompt.

`clear_tool_uses_20250919` replaces old results of tools by a short text once the prompt is longer
than its trigger. `clear_thinking_20251015` removes the thinking of earlier turns. An edit of
another type, or one that is not in the documented form, is not applied; the response names the
edits that were. Source: "Context editing" in Anthropic's documentation.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.messages.schemas import as_object
from anyclaude.worker.v1.worker_pb2 import AppliedEdit

ALL_TURNS: Final = sys.maxsize
CLEARED: Final = "[The result of this tool call was cleared, to make room in the context.]"

_CLEAR_THINKING: Final = "clear_thinking_20251015"
_CLEAR_TOOL_USES: Final = "clear_tool_uses_20250919"
# What the edits do if they do not say.
_DEFAULT_THINKING_TURNS: Final = 1
_DEFAULT_TOOL_USES: Final = 3
_DEFAULT_TRIGGER: Final = {"type": "input_tokens", "value": 100_000}

Request = TypeVar("Request", bound=CountTokensRequest)
Count = Callable[[Request], int]


@dataclass(frozen=True)
class Edited(Generic[Request]):
    request: Request
    applied: tuple[AppliedEdit, ...] = ()

    @property
    def cleared_tokens(self) -> int:
        return sum(edit.cleared_input_tokens for edit in self.applied)


def asks_for_edits(request: CountTokensRequest) -> bool:
    return isinstance(_management(request).get("edits"), list)


def apply_edits(request: Request, count: Count[Request]) -> Edited[Request]:
    """The request after its edits, in their order.

    Args:
        count: the prompt tokens of a request; called only if an edit may clear something.
    """
    applied: list[AppliedEdit] = []
    for edit in _edits(request):
        before = request
        match edit.get("type"):
            case kind if kind == _CLEAR_THINKING:
                request, made = _clear_thinking(before, edit)
            case kind if kind == _CLEAR_TOOL_USES and _is_triggered(before, edit, count):
                request, made = _clear_tool_uses(before, edit)
            case _:
                continue
        if request is before:
            continue
        made.cleared_input_tokens = max(0, count(before) - count(request))
        if made.cleared_input_tokens < _limit(edit.get("clear_at_least"), "input_tokens", 0):
            request = before
            continue
        applied.append(made)
    return Edited(request, tuple(applied))


def edits_json(applied: Sequence[AppliedEdit]) -> list[dict[str, Any]]:
    """The edits as a response names them."""
    return [_edit_json(edit) for edit in applied]


def _edit_json(edit: AppliedEdit) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": edit.type,
        "cleared_input_tokens": edit.cleared_input_tokens,
    }
    if edit.cleared_tool_uses:
        told["cleared_tool_uses"] = edit.cleared_tool_uses
    if edit.cleared_thinking_turns:
        told["cleared_thinking_turns"] = edit.cleared_thinking_turns
    return told


def edits_in(holder: Mapping[str, Any]) -> Iterator[AppliedEdit]:
    """The edits that a message or an event of the API names."""
    applied = as_object(holder.get("context_management")).get("applied_edits")
    for edit in map(as_object, applied if isinstance(applied, list) else ()):
        yield AppliedEdit(
            type=str(edit.get("type") or ""),
            cleared_input_tokens=_number(edit.get("cleared_input_tokens")),
            cleared_tool_uses=_number(edit.get("cleared_tool_uses")),
            cleared_thinking_turns=_number(edit.get("cleared_thinking_turns")),
        )


def kept_thinking_turns(request: CountTokensRequest) -> int | None:
    """How many turns, counted from the end, keep their thinking; None if the client does not say.

    Without the edit, the chat template decides. Claude Code asks to keep all of it.
    """
    edit = next((edit for edit in _edits(request) if edit.get("type") == _CLEAR_THINKING), None)
    return None if edit is None else _turns(edit.get("keep"))


def _management(request: CountTokensRequest) -> Mapping[str, Any]:
    return as_object((request.model_extra or {}).get("context_management"))


def _edits(request: CountTokensRequest) -> list[Mapping[str, Any]]:
    edits = _management(request).get("edits")
    return [as_object(edit) for edit in edits] if isinstance(edits, list) else []


def _with(request: Request, messages: Sequence[Message]) -> Request:
    return request.model_copy(update={"messages": list(messages)})


def _clear_thinking(request: Request, edit: Mapping[str, Any]) -> tuple[Request, AppliedEdit]:
    """Without the thinking before the last turns that have some.

    A turn is everything from one question to the next, so a tool loop keeps its thinking whole. A
    text that follows a tool's result, such as a reminder, is no question.
    """
    made = AppliedEdit(type=_CLEAR_THINKING)
    keep = _turns(edit.get("keep"))
    if keep is None or keep == ALL_TURNS:
        return request, made
    messages = request.messages
    begins = [i for i in range(len(messages)) if _is_question(messages, i)]
    turns = [range(a, b) for a, b in zip([0, *begins], [*begins, len(messages)], strict=True)]
    thinking = [turn for turn in turns if any(_thinks(messages[place]) for place in turn)]
    cleared = thinking[: max(0, len(thinking) - keep)]
    if not cleared:
        return request, made
    made.cleared_thinking_turns = len(cleared)
    end = cleared[-1].stop
    edited = (_without_thinking(message) for message in messages[:end])
    # A message that only thought would be empty, which some servers refuse.
    left = [message for message in edited if message is not None]
    return _with(request, [*left, *messages[end:]]), made


def _is_question(messages: Sequence[Message], place: int) -> bool:
    after_result = place > 0 and any(_results(messages[place - 1]))
    return messages[place].role == "user" and not (after_result or any(_results(messages[place])))


def _results(message: Message) -> Iterator[dict[str, Any]]:
    return (block for block in message.blocks() if block["type"] == "tool_result")


def _thinks(message: Message) -> bool:
    return any(block["type"] in ("thinking", "redacted_thinking") for block in message.blocks())


def _without_thinking(message: Message) -> Message | None:
    """The message without its thinking; None if there is nothing else in it."""
    if not _thinks(message):
        return message
    kinds = ("thinking", "redacted_thinking")
    blocks = [block for block in message.blocks() if block["type"] not in kinds]
    return message.model_copy(update={"content": blocks}) if blocks else None


def _turns(keep: Any) -> int | None:
    if keep is None:
        return _DEFAULT_THINKING_TURNS
    if keep == "all" or as_object(keep).get("type") == "all":
        return ALL_TURNS
    return _limit(keep, "thinking_turns", 0) or None


def _is_triggered(request: Request, edit: Mapping[str, Any], count: Count[Request]) -> bool:
    trigger = as_object(edit.get("trigger") or _DEFAULT_TRIGGER)
    if trigger.get("type") == "tool_uses":
        return len(_uses(request)) > _limit(trigger, "tool_uses", sys.maxsize)
    return count(request) > _limit(trigger, "input_tokens", sys.maxsize)


def _uses(request: CountTokensRequest) -> list[dict[str, Any]]:
    blocks = (block for message in request.messages for block in message.blocks())
    return [block for block in blocks if block["type"] == "tool_use"]


def _clear_tool_uses(request: Request, edit: Mapping[str, Any]) -> tuple[Request, AppliedEdit]:
    """Without the results of all but the last calls, and their inputs if the edit asks for it."""
    made = AppliedEdit(type=_CLEAR_TOOL_USES)
    excluded = edit.get("exclude_tools")
    excluded = excluded if isinstance(excluded, list) else []
    uses = [use for use in _uses(request) if use.get("name") not in excluded]
    keep = _limit(edit.get("keep"), "tool_uses", _DEFAULT_TOOL_USES)
    cleared = {str(use.get("id")): str(use.get("name")) for use in uses[: max(0, len(uses) - keep)]}
    made.cleared_tool_uses = len(cleared)
    inputs = edit.get("clear_tool_inputs")

    def without(block: dict[str, Any]) -> dict[str, Any]:
        if block["type"] == "tool_result" and block.get("tool_use_id") in cleared:
            return {**block, "content": CLEARED}
        if block["type"] == "tool_use" and block.get("id") in cleared:
            is_named = isinstance(inputs, list) and block.get("name") in inputs
            return {**block, "input": {}} if inputs is True or is_named else block
        return block

    if not cleared:
        return request, made
    messages = [
        message
        if isinstance(message.content, str)
        else message.model_copy(update={"content": [without(block) for block in message.content]})
        for message in request.messages
    ]
    return _with(request, messages), made


def _limit(value: Any, kind: str, default: int) -> int:
    """The number in `{"type": kind, "value": number}`."""
    if as_object(value).get("type") != kind:
        return default
    return _number(as_object(value).get("value"), default)


def _number(value: Any, default: int = 0) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else default
