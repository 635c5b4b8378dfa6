"""A server's refusal, understood from the messages of many servers.

A prompt that is too long becomes one of the API's own two sentences, on which Claude Code acts: it
compacts the conversation on "prompt is too long: N tokens > M maximum", and requests a shorter
answer on "input length and `max_tokens` exceed ...".

Servers differ, also by version, in what they support beyond the core of their dialect. Nothing is
left out in advance: after the first refusal that names a field, the request is sent again without
it, and later requests leave it out.
"""

import json
import math
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from anyclaude.messages.errors import (
    ApiError,
    invalid_request,
    max_tokens_too_large,
    prompt_too_long,
)

_MAX_MESSAGE_CHARACTERS: Final = 1000
_PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # vLLM until 0.10, OpenRouter ("about", "of text input, K of tool input").
        r"maximum context length is (?P<window>\d+) tokens?\b.*?requested (?:about )?\d+ tokens "
        r"\((?P<prompt>\d+) [^,)]*(?:, (?P<tools>\d+) of tool[^,)]*)?, (?P<answer>\d+) in the",
        # vLLM since 0.10.
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
# Messages without numbers.
_WORDS: Final = re.compile(
    r"exceeds? the available context size|context size has been exceeded|"
    r"initial prompt is greater than the context length|reached context length|"
    r"context_length_exceeded|exceed_context_size|maximum context length|"
    r"(prompt|input) (is )?too long|(context|prompt).{0,40}(length|window|size).{0,20}exceed|"
    r"exceeds?.{0,30}(context|prompt).{0,20}(length|window|size)",
    re.IGNORECASE,
)


@dataclass(eq=False)
class Refusal(Exception):
    """The server refused the request before it sent content."""

    status: int
    # The server's error message, cut to a readable length, without the key.
    message: str
    # The server's error object.
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_seconds: int | None = None

    @classmethod
    def of(cls, status: int, body: bytes, headers: Mapping[str, str], key: str) -> "Refusal":
        details = error_details(body)
        message = details.get("message")
        text = message if isinstance(message, str) else _plain(body, headers)
        return cls(status, shown(text, key), details, retry_after(headers.get("retry-after")))


def shown(text: str, key: str) -> str:
    """`text` as it may be shown: without the key, and not too long."""
    safe = text.replace(key, "[key]") if key else text
    return safe if len(safe) <= _MAX_MESSAGE_CHARACTERS else safe[:_MAX_MESSAGE_CHARACTERS] + "..."


def error_details(body: bytes | str) -> dict[str, Any]:
    """The error object of a refusal, from any of the usual places."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return details_of(document)


def details_of(document: Any) -> dict[str, Any]:
    """The same for parsed JSON; empty if it holds no error."""
    if not isinstance(document, dict):
        return {}
    error = document.get("error")
    if isinstance(error, dict):
        return {**error, "message": str(error.get("message") or json.dumps(error))}
    if isinstance(error, str) and error:
        return {"message": error}
    if document.get("object") == "error" or ("message" in document and "choices" not in document):
        return {**document, "message": str(document.get("message"))}
    detail = document.get("detail")
    return {"message": detail if isinstance(detail, str) else json.dumps(detail)} if detail else {}


def _plain(body: bytes, headers: Mapping[str, str]) -> str:
    if "html" in headers.get("content-type", ""):
        return "an HTML page instead of an answer"
    return body.decode(errors="replace").strip() or "no reason given"


def retry_after(value: str | None) -> int | None:
    """The whole seconds that a retry-after header names, as seconds or as a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(1, math.ceil(seconds)) if math.isfinite(seconds) else None


@dataclass(frozen=True)
class Overflow:
    """A prompt that is too long; counts that the server did not send are None."""

    prompt_tokens: int | None = None
    window_tokens: int | None = None

    @property
    def answer_tokens(self) -> int:
        """What the context window leaves for the answer; 0 if unknown."""
        if self.prompt_tokens is None or self.window_tokens is None:
            return 0
        return max(0, self.window_tokens - self.prompt_tokens)

    def error(self, name: str, max_tokens: int) -> ApiError:
        if self.prompt_tokens is None or self.window_tokens is None:
            return invalid_request(f"prompt is too long: it exceeds the context window of {name}.")
        if self.answer_tokens:
            return max_tokens_too_large(self.prompt_tokens, max_tokens, self.window_tokens)
        return prompt_too_long(self.prompt_tokens, self.window_tokens)


def find_overflow(message: str, details: Mapping[str, Any]) -> Overflow | None:
    """Whether a refusal is about the prompt's length; None if it is about something else.

    Args:
        message: the server's error message.
        details: the server's error object, in which llama.cpp sends the counts.
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


class Quirk(Enum):
    # System messages inside the conversation become user turns; adjacent user turns are merged.
    SYSTEM_AS_USER = re.compile(
        r"system (message|role|prompt)|role.{0,20}system|roles? must alternate|jinja|"
        r"raise_exception|unexpected role|no user query|chat.?template",
        re.IGNORECASE,
    )
    # tool_choice must be a string; one tool is forced by offering no other.
    TOOL_CHOICE_WORD = re.compile(r"tool_choice")
    # Mistral's chat templates accept tool call ids of nine characters only.
    SHORT_TOOL_IDS = re.compile(r"tool.?call.?id.*(length|9)", re.IGNORECASE | re.DOTALL)
    # OpenAI's newer name of max_tokens.
    MAX_COMPLETION_TOKENS = re.compile(r"use '?max_completion_tokens", re.IGNORECASE)


# Fields that are left out if a refusal names them: a worse answer is better than none.
OPTIONAL_FIELDS: Final = (
    "chat_template_kwargs",
    "context_management",
    "metadata",
    "output_config",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_content",
    "response_format",
    "stream_options",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
)
# The limit of max_tokens, in the words of vllm-mlx, OpenAI and the real API.
_LONGEST_ANSWER: Final = re.compile(
    r"max_tokens exceeds server limit \((\d+)\)|supports at most (\d+) completion tokens|"
    r"max_tokens: \d+ > (\d+), which is the maximum",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quirks:
    """What was learned about one server so far."""

    known: frozenset[Quirk] = frozenset()
    dropped: frozenset[str] = frozenset()
    # The limit of max_tokens; 0 means unknown.
    max_output_tokens: int = 0

    def learn(self, refusal: str, sent: Collection[str]) -> "Quirks | None":
        """The quirks including what a refusal shows; None if it shows nothing new.

        Args:
            refusal: the server's error message.
            sent: the names of the fields in the refused request.
        """
        for quirk in Quirk:
            if quirk not in self.known and quirk.value.search(refusal):
                return replace(self, known=self.known | {quirk})
        if (longest := _longest_answer(refusal)) and longest != self.max_output_tokens:
            return replace(self, max_output_tokens=longest)
        for name in OPTIONAL_FIELDS:
            if name in sent and re.search(rf"\b{name}\b", refusal):
                return replace(self, dropped=self.dropped | {name})
        return None


def _longest_answer(refusal: str) -> int:
    found = _LONGEST_ANSWER.search(refusal)
    return next(int(tokens) for tokens in found.groups() if tokens) if found else 0
