"""Content blocks for chat completions: one string, or a list of parts if there are images.

Nothing is dropped silently: a block is text, an image, known to hold no text, or refused.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.messages.requests import inner_blocks

Content = str | list[dict[str, Any]]

_BOUNDARY: Final = "\n\n"
# Blocks without text for the model: settings of another server, and calls whose results follow.
_WITHOUT_TEXT: Final = frozenset(
    {
        "fallback",
        "mcp_tool_use",
        "redacted_thinking",
        "server_tool_use",
        "thinking",
        "tool_addition",
        "tool_removal",
    }
)


def join(texts: Iterable[str]) -> str:
    """Joins texts and leaves out empty ones."""
    return _BOUNDARY.join(text for text in texts if text)


def content_of(blocks: Sequence[Mapping[str, Any]], where: str) -> Content:
    """The content of a message; a string if there are no images.

    Raises:
        ApiError: 400 naming the kind of block that cannot be sent, and its message.
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
    match block.get("type"):
        case "text":
            return [_text(_string(block, "text", where))]
        case "compaction":
            return [_text(_string(block, "content", where))]
        case "tool_reference":
            return [_text(_string(block, "tool_name", where))]
        case "image":
            return [_image(block, where)]
        case "document":
            return [_text(_document(block, where))]
        case "search_result":
            return [_text(_search_result(block, where))]
        case "web_search_tool_result":
            return [_text(_pages(block.get("content")))]
        case kind if kind in _WITHOUT_TEXT:
            return []
        case kind:
            raise _refused(str(kind), where)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _string(block: Mapping[str, Any], key: str, where: str) -> str:
    value = block.get(key) or ""
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{key}: Input should be a valid string")
    return value


def _source(block: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    source = block.get("source")
    if not isinstance(source, dict):
        raise invalid_request(f"{where}.source: Input should be an object")
    return source


def _image(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    source = _source(block, where)
    match source.get("type"):
        case "base64":
            kind, data = source.get("media_type", "image/png"), source.get("data", "")
            url = f"data:{kind};base64,{data}"
        case "url":
            url = _string(source, "url", f"{where}.source")
        case kind:
            raise _refused(f"image of source {kind}", where)
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Mapping[str, Any], where: str) -> str:
    source = _source(block, where)
    title = _string(block, "title", where)
    match source.get("type"), source.get("media_type"):
        case "text", _:
            return join((title, _string(source, "data", f"{where}.source")))
        case "base64", "text/plain":
            return join((title, _decoded(_string(source, "data", f"{where}.source"), where)))
        case "content", _:
            blocks = inner_blocks(source.get("content"), f"{where}.source.content")
            return join((title, split_images(content_of(blocks, f"{where}.source.content"))[0]))
        case _, kind:
            raise _refused(f"{kind or 'this kind of'} document", where)


def _decoded(data: str, where: str) -> str:
    try:
        return base64.b64decode(data).decode(errors="replace")
    except ValueError:
        raise invalid_request(f"{where}.source.data: Input should be base64") from None


def _search_result(block: Mapping[str, Any], where: str) -> str:
    head = "\n".join(text for key in ("title", "source") if (text := _string(block, key, where)))
    words, _ = split_images(content_of(result_blocks(block, where), f"{where}.content"))
    return join((head, words))


def _pages(results: object) -> str:
    """Titles and addresses; the pages themselves are encrypted for another server."""
    pages = (
        [page for page in results if isinstance(page, dict)] if isinstance(results, list) else []
    )
    return "\n".join(f"{page.get('title', '')} {page.get('url', '')}".strip() for page in pages)


def _refused(what: str, where: str) -> ApiError:
    return invalid_request(
        f"{where}: {what} blocks cannot be sent to a server of the OpenAI dialect. Remove the "
        "block, or use a mode whose server speaks the Messages API."
    )
