"""What a model that reads text only is shown of a content block.

No block refuses a request, whatever it is: it stays in the history, so every later turn would be
refused too. A block is text, or its words are rendered as text, or a sentence stands in its place.
The same block always gives the same text, so the prompts of a conversation extend one another.

Only a block that the API itself defines by a string or a list is checked, and named if it is
malformed: no client that works with the API sends such a block.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from anyclaude.messages.documents import document_text
from anyclaude.messages.errors import invalid_request
from anyclaude.messages.requests import Message, inner_blocks
from anyclaude.messages.schemas import as_object

_BOUNDARY: Final = "\n\n"
_ATTRIBUTION: Final = "x-anthropic-billing-header:"
# Settings of other servers, calls of server tools, whose results are blocks of their own, and what
# is no text for the model. `tool_addition` and `tool_removal` change what is offered.
_WITHOUT_TEXT: Final = frozenset(
    {
        "fallback",
        "mcp_tool_listing",
        "mcp_tool_use",
        "redacted_thinking",
        "server_tool_use",
        "thinking",
        "tool_addition",
        "tool_removal",
    }
)
_RESULT: Final = "_tool_result"
_ENCRYPTED: Final = "[Its output is encrypted for the server that ran it.]"
# Where a block of an unknown type may hold words.
_WORDS: Final = ("title", "text", "content")

# The place of a message's content in the request, for errors, and the message.
Placed = tuple[str, Message]


def split_leading(messages: Sequence[Message]) -> tuple[list[Placed], list[Placed]]:
    """The messages that belong to the system prompt, and the turns after it.

    The position rule: a system message directly after the first user message is put before it.
    Later ones stay in place, since moving one would change the start of the prompt.
    """
    placed = [(f"messages.{index}.content", turn) for index, turn in enumerate(messages)]
    first = next((i for i, turn in enumerate(messages) if turn.role != "system"), len(messages))
    leading, turns = placed[:first], placed[first:]
    if [turn.role for _, turn in turns[:2]] == ["user", "system"]:
        leading.append(turns.pop(1))
    return leading, turns


def without_attribution(system: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks of a system prompt; Claude Code's attribution becomes an empty text.

    It differs between conversations and means nothing to a model.
    """
    if isinstance(system, str):
        is_attributed = system.startswith(_ATTRIBUTION)
        text = system.partition("\n")[2].lstrip("\n") if is_attributed else system
        return [{"type": "text", "text": text}]
    empty = {"type": "text", "text": ""}
    return [empty if str(block.get("text")).startswith(_ATTRIBUTION) else block for block in system]


def reminder(text: str) -> str:
    """A system text as a user message, in the form that Claude Code uses for reminders."""
    return f"<system-reminder>\n{text}\n</system-reminder>"


def join(texts: Iterable[str]) -> str:
    """One text from several, with a blank line between them; empty ones are left out."""
    return _BOUNDARY.join(text for text in texts if text)


def blocks_text(content: Any, where: str) -> str:
    """The text of a content: a string or a list of blocks; `where` is its place in the request.

    Raises:
        ApiError: 400 that names a malformed block and its place.
    """
    if isinstance(content, str):
        return content
    blocks = inner_blocks(content, where)
    return join(block_text(block, f"{where}.{index}") for index, block in enumerate(blocks))


def block_text(block: Mapping[str, Any], where: str) -> str:
    """The text of one block; errors as for `blocks_text`."""
    kind = block.get("type")
    match kind:
        case "text":
            return _string(block, "text", where)
        case "compaction":
            return _string(block, "content", where)
        case "tool_reference":
            return _string(block, "tool_name", where)
        case "search_result":
            head = [_string(block, key, where) for key in ("title", "source")]
            content = blocks_text(block.get("content", []), f"{where}.content")
            return join(["\n".join(part for part in head if part), content])
        case "image":
            return _image(block)
        case "document":
            return document_text(block, _any_text)
        case "container_upload":
            return f"[The uploaded file {block.get('file_id')}, in a container of another server.]"
        case str() if kind in _WITHOUT_TEXT:
            return ""
        case str() if kind.endswith(_RESULT):
            return _server_result(block, kind.removesuffix(_RESULT))
        case _:
            return _any_text(block) or f"[A block of type {kind}, which has no text.]"


def _string(block: Mapping[str, Any], key: str, where: str) -> str:
    value = block.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{key}: Input should be a valid string")
    return value


def _image(block: Mapping[str, Any]) -> str:
    source = as_object(block.get("source"))
    match source.get("type"), source.get("media_type"), source.get("url"):
        case "url", _, str(address):
            what = f"An image at {address}"
        case _, str(media_type), _:
            what = f"An image ({media_type})"
        case _:
            what = "An image"
    return f"[{what}. The model that answers reads text only and does not see it.]"


def _server_result(block: Mapping[str, Any], tool: str) -> str:
    """What a tool said that another server ran, such as a search or a program."""
    content = block.get("content")
    parts = content if isinstance(content, list) else [content]
    text = join(_rendered(part, tool) for part in parts)
    if block.get("is_error"):
        text = f"Error: {text}"
    return text or f"[The tool {tool} returned nothing.]"


def _rendered(part: Any, tool: str) -> str:
    if not isinstance(part, Mapping):
        return _any_text(part)
    kind = part.get("type")
    if isinstance(part.get("error_code"), str):
        details = [part["error_code"], part.get("error_message")]
        named = ": ".join(text for text in details if isinstance(text, str) and text)
        return f"[The tool {tool} failed: {named}]"
    render = _PARTS.get(kind) if isinstance(kind, str) else None
    return render(part) if render else _any_text(part)


def _page(part: Mapping[str, Any]) -> str:
    """A page that a search found. Its content is encrypted for another server."""
    words = (part.get("title"), part.get("url"))
    return " ".join(word for word in words if isinstance(word, str) and word)


def _fetched(part: Mapping[str, Any]) -> str:
    address = part.get("url")
    return join([address if isinstance(address, str) else "", _any_text(part.get("content"))])


def _output(part: Mapping[str, Any]) -> str:
    """What a program wrote, its exit status if it failed, and the files that it made."""
    lines = [_any_text(part.get("stdout")).rstrip("\n")]
    if "encrypted_stdout" in part:
        lines.append(_ENCRYPTED)
    if errors := _any_text(part.get("stderr")).rstrip("\n"):
        lines.append(f"stderr:\n{errors}")
    if part.get("return_code"):
        lines.append(f"return code: {part['return_code']}")
    files = part.get("content")
    for file in files if isinstance(files, list) else ():
        if isinstance(file, Mapping) and isinstance(file.get("file_id"), str):
            lines.append(f"file: {file['file_id']}")
    return "\n".join(line for line in lines if line) or "[It wrote nothing.]"


def _created(part: Mapping[str, Any]) -> str:
    return "[The file was changed.]" if part.get("is_file_update") else "[The file was created.]"


def _replaced(part: Mapping[str, Any]) -> str:
    lines = part.get("lines")
    if not isinstance(lines, list):
        return "[The text was replaced.]"
    return "\n".join(line for line in lines if isinstance(line, str))


def _found_tools(part: Mapping[str, Any]) -> str:
    found = part.get("tool_references")
    found = found if isinstance(found, list) else []
    names = [one.get("tool_name") for one in found if isinstance(one, Mapping)]
    return "\n".join(name for name in names if isinstance(name, str)) or "[No tool was found.]"


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "web_search_result": _page,
    "web_fetch_result": _fetched,
    "code_execution_result": _output,
    "bash_code_execution_result": _output,
    "encrypted_code_execution_result": _output,
    "text_editor_code_execution_create_result": _created,
    "text_editor_code_execution_str_replace_result": _replaced,
    "tool_search_tool_search_result": _found_tools,
    "advisor_redacted_result": lambda _: _ENCRYPTED,
}


def _any_text(value: Any) -> str:
    """The words in a value of any shape."""
    return join(_words(value))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _words(part)
    elif isinstance(value, Mapping):
        if value.get("type") in ("image", "document"):
            yield block_text(value, "")
            return
        for key in _WORDS:
            yield from _words(value.get(key))


def plain_blocks(
    blocks: Iterable[dict[str, Any]], known: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """The blocks for a server that knows few types: all others become text, in tool results too.

    Raises:
        ApiError: 400 that names a malformed block.
    """
    for block in blocks:
        kind, inner = block.get("type"), block.get("content")
        if kind not in known:
            if text := block_text(block, "content"):
                yield {"type": "text", "text": text}
        elif kind == "tool_result" and isinstance(inner, list):
            yield {**block, "content": list(plain_blocks(inner_blocks(inner, "content"), known))}
        else:
            yield block
