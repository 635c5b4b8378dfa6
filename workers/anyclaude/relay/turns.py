"""A Messages request in the order that other servers accept: system texts, then turns.

Blocks of types that a server does not take become text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.readable import Placed, plain_blocks, split_leading, without_attribution
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.relay.dialect import Target
from anyclaude.relay.quirks import IMAGES, Quirk

_KNOWN_BLOCKS: Final = frozenset(
    {"text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"}
)


@dataclass(frozen=True)
class Conversation:
    # Text blocks, with their `cache_control`.
    system: tuple[dict[str, Any], ...]
    turns: tuple[Placed, ...]


def arrange(
    request: CountTokensRequest, target: Target, *, knows_few: bool = False
) -> Conversation:
    """The conversation as the server takes it; `knows_few` if it refuses unusual blocks."""
    leading, turns = split_leading(request.messages)
    blocks = [*without_attribution(request.system)]
    blocks += [block for _, turn in leading for block in turn.blocks()]
    system = map(_text_block, blocks)
    if (known := _known_blocks(target, knows_few=knows_few)) is not None:
        turns = [(place, _plain(turn, known)) for place, turn in turns]
    return Conversation(tuple(block for block in system if block["text"]), tuple(turns))


def _known_blocks(target: Target, *, knows_few: bool) -> frozenset[str] | None:
    """The types of blocks that the server takes; None if it takes every one."""
    if not target.takes_images or IMAGES in target.quirks.left_out:
        return _KNOWN_BLOCKS - {"image"}
    return _KNOWN_BLOCKS if knows_few or Quirk.FEW_BLOCKS in target.quirks.known else None


def _plain(turn: Message, known: frozenset[str]) -> Message:
    if isinstance(turn.content, str):
        return turn
    return turn.model_copy(update={"content": list(plain_blocks(turn.content, known))})


def _text_block(block: Mapping[str, Any]) -> dict[str, Any]:
    text = block.get("text")
    is_text = block.get("type") == "text" and isinstance(text, str)
    marks = {key: block[key] for key in ("cache_control",) if block.get(key)}
    return {"type": "text", "text": text if is_text else "", **marks}


def turn_texts(turn: Message) -> list[str]:
    """The texts of a system message."""
    texts = (block.get("text") for block in turn.blocks() if block.get("type") == "text")
    return [text for text in texts if isinstance(text, str)]
