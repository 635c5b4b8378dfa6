"""A Messages request in the order that other servers accept: system texts, then turns.

The rule is that of the local worker: a system message directly after the first user turn moves
before it. Later ones stay in place, since moving one would change the start of the prompt, and the
server could not reuse its cache of what follows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.requests import CountTokensRequest, Message

# This block differs between conversations and means nothing to a model.
_ATTRIBUTION: Final = "x-anthropic-billing-header:"


@dataclass(frozen=True)
class Conversation:
    # Text blocks, with their `cache_control`.
    system: tuple[dict[str, Any], ...]
    # The place in the request, for error messages, and the message.
    turns: tuple[tuple[str, Message], ...]

    @property
    def system_texts(self) -> list[str]:
        return [block["text"] for block in self.system]


def arrange(request: CountTokensRequest) -> Conversation:
    leading, turns = _split(request.messages)
    system = [
        *system_blocks(request.system),
        *(_text_block(block) for turn in leading for block in turn.blocks()),
    ]
    return Conversation(tuple(block for block in system if block["text"]), tuple(turns))


def system_blocks(system: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The texts of a system prompt, without Claude Code's attribution."""
    if isinstance(system, str):
        text = system.partition("\n")[2].lstrip("\n") if _is_attribution(system) else system
        return [{"type": "text", "text": text}]
    blocks = [_text_block(block) for block in system]
    return [block for block in blocks if not _is_attribution(block["text"])]


def _text_block(block: Mapping[str, Any]) -> dict[str, Any]:
    text = block.get("text")
    is_text = block.get("type") == "text" and isinstance(text, str)
    marks = {key: block[key] for key in ("cache_control",) if block.get(key)}
    return {"type": "text", "text": text if is_text else "", **marks}


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
