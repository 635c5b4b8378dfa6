"""Content blocks for chat completions: one string, or a list of parts if there are images.

A block is an image, or the text that `anyclaude.messages.readable` gives it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from anyclaude.messages.chat_images import image_part
from anyclaude.messages.readable import block_text, join
from anyclaude.messages.requests import inner_blocks

Content = str | list[dict[str, Any]]


def content_of(blocks: Sequence[Mapping[str, Any]], where: str) -> Content:
    """The content of a message; a string if there are no images.

    Raises:
        ApiError: 400 naming a malformed block and its message.
    """
    parts = [part for block in blocks for part in _parts(block, where)]
    if all(part["type"] == "text" for part in parts):
        return join(part["text"] for part in parts)
    return parts


def split_images(content: Content) -> tuple[str, list[dict[str, Any]]]:
    """The text and the images of a content, for places where only text is allowed."""
    if isinstance(content, str):
        return content, []
    texts = [part["text"] for part in content if part["type"] == "text"]
    return join(texts), [part for part in content if part["type"] != "text"]


def merged(first: Content, second: Content) -> Content:
    """Joins two contents."""
    if isinstance(first, str) and isinstance(second, str):
        return join((first, second))
    return [*as_parts(first), *as_parts(second)]


def result_blocks(block: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The content of a tool result, as blocks."""
    return inner_blocks(block.get("content") or [], f"{where}.content")


def as_parts(content: Content) -> list[dict[str, Any]]:
    """A content as a list of parts."""
    if isinstance(content, str):
        return [_text(content)] if content else []
    return content


def _parts(block: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    if block.get("type") == "image" and (part := image_part(block)) is not None:
        return [part]
    text = block_text(block, where)
    return [_text(text)] if text else []


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
