"""A prompt too long, in the words of many servers, as the two sentences that clients act on.

Both are the API's own: Claude Code compacts the conversation on "prompt is too long: N tokens > M
maximum" and asks again for a shorter answer on "input length and `max_tokens` exceed ...".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.errors import (
    ApiError,
    invalid_request,
    max_tokens_too_large,
    prompt_too_long,
)

_PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # vLLM until 0.10, OpenRouter ("about", "of text input, K of tool input").
        r"maximum context length is (?P<window>\d+) tokens?\b.*?requested (?:about )?\d+ tokens "
        r"\((?P<prompt>\d+) [^,)]*(?:, (?P<tools>\d+) of tool[^,)]*)?, (?P<answer>\d+) in the",
        # vLLM since.
        r"maximum context length is (?P<window>\d+) tokens\b.*?your request has (?:at least )?"
        r"(?P<prompt>\d+) input tokens",
        r"passed (?:at least )?(?P<prompt>\d+) input tokens.*?requested (?P<answer>\d+) output "
        r"tokens.*?context length is only (?P<window>\d+)",
        r"prompt \((?:total )?length (?P<prompt>\d+)\) is (?:longer|too long).*?(?:maximum model "
        r"length of|context length) (?P<window>\d+)",
        # OpenAI.
        r"maximum context length is (?P<window>\d+) tokens.*?resulted in (?P<prompt>\d+) tokens",
        # llama.cpp.
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size "
        r"\((?P<window>\d+) tokens\)",
        # LM Studio.
        r"keep the first (?P<prompt>\d+) tokens when context the ?overflows.*?context length of "
        r"(?:only )?(?P<window>\d+) tokens",
    )
)
# The same without usable numbers.
_WORDS: Final = re.compile(
    r"exceeds? the available context size|context size has been exceeded|"
    r"initial prompt is greater than the context length|reached context length|"
    r"context_length_exceeded|exceed_context_size|maximum context length|"
    r"(prompt|input) (is )?too long|(context|prompt).{0,40}(length|window|size).{0,20}exceed|"
    r"exceeds?.{0,30}(context|prompt).{0,20}(length|window|size)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Overflow:
    """A refusal for length; counts are None where the server gave none."""

    prompt_tokens: int | None = None
    window_tokens: int | None = None

    @property
    def room_tokens(self) -> int:
        """What the window leaves for an answer; 0 when unknown."""
        if self.prompt_tokens is None or self.window_tokens is None:
            return 0
        return max(0, self.window_tokens - self.prompt_tokens)

    def error(self, name: str, max_tokens: int) -> ApiError:
        if self.prompt_tokens is None or self.window_tokens is None:
            return invalid_request(f"prompt is too long: it exceeds the context window of {name}.")
        if self.room_tokens:
            return max_tokens_too_large(self.prompt_tokens, max_tokens, self.window_tokens)
        return prompt_too_long(self.prompt_tokens, self.window_tokens)


def find_overflow(message: str, details: Mapping[str, Any]) -> Overflow | None:
    """What `message` says about length; None when it is about something else.

    Args:
        message: the server's words.
        details: the server's error object, where llama.cpp puts the counts.
    """
    for pattern in _PATTERNS:
        if found := pattern.search(message):
            counts = {key: int(value) for key, value in found.groupdict().items() if value}
            prompt = counts["prompt"] + counts.get("tools", 0)
            return Overflow(prompt, counts["window"])
    prompt_tokens, window = details.get("n_prompt_tokens"), details.get("n_ctx")
    if isinstance(prompt_tokens, int) and isinstance(window, int):
        return Overflow(prompt_tokens, window)
    codes = f"{message} {details.get('type', '')} {details.get('code', '')}"
    return Overflow() if _WORDS.search(codes) else None
