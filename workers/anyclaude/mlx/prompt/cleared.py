"""How much earlier thinking a request keeps: the context edit `clear_thinking_20251015`.

Without the edit, the chat template decides. Claude Code asks to keep all of it.
Source: "Context editing" in Anthropic's documentation, "Thinking block clearing".
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.mlx.prompt.canonical import TemplateMessage

ALL_TURNS: Final = sys.maxsize
_EDIT: Final = "clear_thinking_20251015"
# What the edit keeps if it does not say.
_DEFAULT_TURNS: Final = 1


def kept_thinking_turns(request: CountTokensRequest) -> int | None:
    """How many turns, counted from the end, keep their thinking; None if the client does not say.

    An edit in any other than the documented form is ignored.
    """
    edits = _mapping((request.model_extra or {}).get("context_management")).get("edits")
    if not isinstance(edits, list):
        return None
    edit = next((edit for edit in edits if _mapping(edit).get("type") == _EDIT), None)
    return None if edit is None else _turns(edit.get("keep"))


def _turns(keep: Any) -> int | None:
    if keep is None:
        return _DEFAULT_TURNS
    if keep == "all" or _mapping(keep).get("type") == "all":
        return ALL_TURNS
    value = _mapping(keep).get("value")
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_count else None


def without_thinking(
    messages: Sequence[TemplateMessage], turns: int
) -> tuple[TemplateMessage, ...]:
    """The messages without the thinking before the last `turns` turns that have some.

    A turn is everything from one question to the next, so a tool loop keeps its thinking whole. A
    text that follows a tool's result, such as a reminder, is no question.
    """
    begins = 0
    left = turns
    thinks = False
    for place in range(len(messages) - 1, -1, -1):
        thinks = thinks or "reasoning_content" in messages[place]
        if thinks and _is_question(messages, place):
            left, thinks = left - 1, False
            if not left:
                begins = place
                break
    return (*map(_without, messages[:begins]), *messages[begins:])


def _is_question(messages: Sequence[TemplateMessage], place: int) -> bool:
    after_result = place > 0 and messages[place - 1]["role"] == "tool"
    return messages[place]["role"] == "user" and not after_result


def _without(message: TemplateMessage) -> TemplateMessage:
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
