"""How long a prompt is at least, without rendering it.

Only texts are counted that every chat template writes whole. Templates leave out earlier thinking,
and context edits clear tool results.
"""

from collections.abc import Iterator
from typing import Any, Final

from anyclaude.messages.context_edits import asks_for_edits
from anyclaude.messages.errors import prompt_too_long
from anyclaude.messages.requests import CountTokensRequest

# Of ordinary text; used for the number in an error, never to decide.
_TYPICAL_CHARACTERS_PER_TOKEN: Final = 4


def certain_texts(request: CountTokensRequest) -> Iterator[str]:
    """The texts that are part of the prompt whatever the template."""
    with_results = not asks_for_edits(request)
    for content in (
        request.system,
        *(m.content for m in request.messages if m.role != "assistant"),
    ):
        yield from _texts(content, with_results)


def _texts(content: Any, with_results: bool) -> Iterator[str]:
    if isinstance(content, str):
        yield content.strip()
        return
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        if block.get("type") == "text" and isinstance(block.get("text"), str):
            yield block["text"].strip()
        elif block.get("type") == "tool_result" and with_results:
            yield from _texts(block.get("content"), with_results)


def check_characters(
    request: CountTokensRequest, longest_token_characters: int, window_tokens: int
) -> None:
    """Refuses a prompt that cannot fit, whatever its tokens are.

    Args:
        request: the request.
        longest_token_characters: of the model; 0 if unknown.
        window_tokens: of the model; 0 if unknown.

    Raises:
        ApiError: 400, it is longer than the window even if each token were the longest.
    """
    characters = sum(map(len, certain_texts(request)))
    if characters > longest_token_characters * window_tokens > 0:
        estimate = max(characters // _TYPICAL_CHARACTERS_PER_TOKEN, window_tokens + 1)
        raise prompt_too_long(estimate, window_tokens)
