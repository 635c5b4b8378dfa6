"""A Messages request in the order that other servers accept: system texts, then turns.

The rule is that of the local worker: a system message directly after the first user turn moves
before it. Later ones stay in place, since moving one would change the start of the prompt, and the
server could not reuse its cache of what follows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.requests import CountTokensRequest, Message

# This block differs between conversations and means nothing to a model.
_ATTRIBUTION: Final = "x-anthropic-billing-header:"


@dataclass(frozen=True)
class Conversation:
    system: tuple[str, ...]
    # The place in the request, for error messages, and the message.
    turns: tuple[tuple[str, Message], ...]


def arrange(request: CountTokensRequest) -> Conversation:
    leading, turns = _split(request.messages)
    system = [*texts_of(request.system), *(text for turn in leading for text in turn_texts(turn))]
    return Conversation(tuple(text for text in system if text), tuple(turns))


def texts_of(system: str | list[dict[str, Any]]) -> list[str]:
    """The texts of a system prompt, without Claude Code's attribution."""
    if isinstance(system, str):
        return [system if not _is_attribution(system) else system.partition("\n")[2].lstrip("\n")]
    return [text for text in _block_texts(system) if not _is_attribution(text)]


def turn_texts(turn: Message) -> list[str]:
    """The texts of a system message."""
    return _block_texts(turn.blocks())


def reminder(text: str) -> str:
    """A system text as a user message, in the form that Claude Code uses for reminders."""
    return f"<system-reminder>\n{text}\n</system-reminder>"


def _split(
    messages: Sequence[Message],
) -> tuple[list[Message], list[tuple[str, Message]]]:
    placed = [(f"messages.{index}", turn) for index, turn in enumerate(messages)]
    first = next((i for i, turn in enumerate(messages) if turn.role != "system"), len(messages))
    leading, turns = placed[:first], placed[first:]
    if [turn.role for _, turn in turns[:2]] == ["user", "system"]:
        leading.append(turns.pop(1))
    return [turn for _, turn in leading], turns


def _block_texts(blocks: Iterable[dict[str, Any]]) -> list[str]:
    texts = (block.get("text") for block in blocks if block.get("type") == "text")
    return [text for text in texts if isinstance(text, str)]


def _is_attribution(text: str) -> bool:
    return text.startswith(_ATTRIBUTION)
