"""A Messages request in the order that other servers accept: system texts, then turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyclaude.messages.readable import Placed, split_leading, without_attribution
from anyclaude.messages.requests import CountTokensRequest, Message


@dataclass(frozen=True)
class Conversation:
    # Text blocks, with their `cache_control`.
    system: tuple[dict[str, Any], ...]
    turns: tuple[Placed, ...]


def arrange(request: CountTokensRequest) -> Conversation:
    leading, turns = split_leading(request.messages)
    blocks = [*without_attribution(request.system)]
    blocks += [block for _, turn in leading for block in turn.blocks()]
    system = map(_text_block, blocks)
    return Conversation(tuple(block for block in system if block["text"]), tuple(turns))


def _text_block(block: Mapping[str, Any]) -> dict[str, Any]:
    text = block.get("text")
    is_text = block.get("type") == "text" and isinstance(text, str)
    marks = {key: block[key] for key in ("cache_control",) if block.get(key)}
    return {"type": "text", "text": text if is_text else "", **marks}


def turn_texts(turn: Message) -> list[str]:
    """The texts of a system message."""
    texts = (block.get("text") for block in turn.blocks() if block.get("type") == "text")
    return [text for text in texts if isinstance(text, str)]
