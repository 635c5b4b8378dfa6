"""Translates content blocks of the Messages API to plain text.

Several texts are joined by one blank line, and a string counts as one text. So a string, a list of
one block, and the same list with other `cache_control` markers give the same text. No block is
dropped silently: it has a text, or is known to say nothing to the model, or is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.messages.requests import inner_blocks

_BOUNDARY: Final = "\n\n"
_ATTRIBUTION: Final = "x-anthropic-billing-header:"

# Blocks that say nothing to the model: settings of other servers, and calls of server tools, whose
# results are blocks of their own.
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
_UNREADABLE: Final = frozenset({"container_upload", "document", "image"})


def join(texts: Iterable[str]) -> str:
    """One text from several; empty ones are left out."""
    return _BOUNDARY.join(text for text in texts if text)


def system_text(system: str | list[dict[str, Any]]) -> str:
    """The system prompt without the attribution block, which differs between conversations."""
    if isinstance(system, str):
        return _without_attribution_line(system)
    return join(
        text
        for index, block in enumerate(system)
        if not (text := block_text(block, f"system.{index}")).startswith(_ATTRIBUTION)
    )


def _without_attribution_line(text: str) -> str:
    if not text.startswith(_ATTRIBUTION):
        return text
    return text.partition("\n")[2].lstrip("\n")


def content_text(content: str | list[dict[str, Any]], where: str) -> str:
    """The text of a message's content.

    Args:
        where: the place of the content in the request, for errors.

    Raises:
        ApiError: 400 that names a block which a text model cannot read, and its place.
    """
    if isinstance(content, str):
        return content
    return join(block_text(block, f"{where}.{index}") for index, block in enumerate(content))


def block_text(block: Mapping[str, Any], where: str) -> str:
    """The text of one block; errors as for `content_text`."""
    match block.get("type"):
        case "text" | "compaction" as kind:
            return _string(block, "text" if kind == "text" else "content", where)
        case "tool_reference":
            return _string(block, "tool_name", where)
        case "search_result":
            return _search_result(block, where)
        case "web_search_tool_result":
            return _web_results(block.get("content"))
        case kind if kind in _WITHOUT_TEXT:
            return ""
        case kind:
            raise _refused(kind, where)


def _string(block: Mapping[str, Any], key: str, where: str) -> str:
    value = block.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{key}: Input should be a valid string")
    return value


def _search_result(block: Mapping[str, Any], where: str) -> str:
    head = [_string(block, "title", where), _string(block, "source", where)]
    content = inner_blocks(block.get("content", []), f"{where}.content")
    words = content_text(content, f"{where}.content")
    return join(["\n".join(part for part in head if part), words])


def _web_results(results: object) -> str:
    """The titles and addresses of the pages. Their contents are encrypted for another server."""
    if not isinstance(results, list):
        return ""
    pages = [page for page in results if isinstance(page, dict)]
    return "\n".join(f"{page.get('title', '')} {page.get('url', '')}".strip() for page in pages)


def _refused(kind: object, where: str) -> ApiError:
    if kind in _UNREADABLE:
        what, why = str(kind).replace("_", " "), "this model reads text only"
        advice = f"use a mode whose backend takes {what}s"
    else:
        what, why = f"`{kind}`", "the local worker does not know them"
        advice = "remove the block, or use a mode whose backend takes it"
    return invalid_request(f"{where}: {what} blocks are not supported, since {why}; {advice}.")
