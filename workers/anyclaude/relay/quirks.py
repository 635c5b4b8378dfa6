"""What a server turned out not to take, learned from its own refusals.

Servers differ in what they accept beside the core of their dialect, and by version. Nothing is
left out beforehand: the first refusal that names a thing teaches it, the request goes out again
without it, and later ones never carry it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class Quirk(Enum):
    # System texts inside the conversation go as user turns, neighbours of one role as one turn.
    SYSTEM_AS_USER = re.compile(
        r"system (message|role|prompt)|role.{0,20}system|roles? must alternate|jinja|"
        r"raise_exception|unexpected role|no user query|chat.?template",
        re.IGNORECASE,
    )
    # tool_choice is a word; one tool is forced by offering it alone.
    TOOL_CHOICE_WORD = re.compile(r"tool_choice")
    # Mistral's templates.
    SHORT_TOOL_IDS = re.compile(r"tool.?call.?id.*(length|9)", re.IGNORECASE | re.DOTALL)
    # OpenAI's newer name.
    MAX_COMPLETION_TOKENS = re.compile(r"use '?max_completion_tokens", re.IGNORECASE)


# Left out when refused by name: without them the answer may be worse, but there is one.
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


# The longest answer that may be asked for, in the words of vllm-mlx, OpenAI and the real API.
_LONGEST_ANSWER: Final = re.compile(
    r"max_tokens exceeds server limit \((\d+)\)|supports at most (\d+) completion tokens|"
    r"max_tokens: \d+ > (\d+), which is the maximum",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quirks:
    """Everything learned of one server so far."""

    known: frozenset[Quirk] = frozenset()
    dropped: frozenset[str] = frozenset()
    # The most that may be asked for; 0 is not known.
    max_output_tokens: int = 0

    def learn(self, refusal: str, sent: Collection[str]) -> "Quirks | None":
        """With what `refusal` teaches; None when that is nothing new.

        Args:
            refusal: the server's words.
            sent: names of the fields that the refused request had.
        """
        for quirk in Quirk:
            if quirk not in self.known and quirk.value.search(refusal):
                return replace(self, known=self.known | {quirk})
        if (longest := _longest_answer(refusal)) and longest != self.max_output_tokens:
            return replace(self, max_output_tokens=longest)
        for field in OPTIONAL_FIELDS:
            if field in sent and re.search(rf"\b{field}\b", refusal):
                return replace(self, dropped=self.dropped | {field})
        return None


def _longest_answer(refusal: str) -> int:
    found = _LONGEST_ANSWER.search(refusal)
    return next(int(tokens) for tokens in found.groups() if tokens) if found else 0
