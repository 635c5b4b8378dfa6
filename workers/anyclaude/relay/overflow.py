"""A prompt or an answer that is too long, recognised in the words of many servers.

A prompt that is too long becomes one of the API's own two sentences, on which Claude Code acts: it
compacts the conversation on "prompt is too long: N tokens > M maximum", and requests a shorter
answer on "input length and `max_tokens` exceed ...".

`WORDINGS` is the table of what servers say. `upstreams.NAME.overflow_patterns` adds to it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.messages.errors import (
    ApiError,
    invalid_request,
    max_tokens_too_large,
    prompt_too_long,
)

# Groups of the patterns, all optional: `prompt` and `tools` are tokens of the prompt, `total`
# includes the requested answer, `excess` is what the prompt has too many, `window` is the limit.
WORDINGS: Final[tuple[tuple[str, str], ...]] = (
    (
        "vLLM until 0.10, DeepSeek, OpenRouter",
        r"maximum context length is (?P<window>\d+) tokens?\b.*?requested (?:about )?\d+ tokens "
        r"\((?P<prompt>\d+) [^,);]*(?:, (?P<tools>\d+) of tool[^,)]*)?[,;] (?P<answer>\d+) +"
        r"(?:in|for) the",
    ),
    (
        "vLLM since 0.10",
        r"maximum context length is (?P<window>\d+) tokens\b.*?your request has (?:at least )?"
        r"(?P<prompt>\d+) input tokens",
    ),
    (
        "vLLM",
        r"passed (?:at least )?(?P<prompt>\d+) input tokens.*?requested (?P<answer>\d+) output "
        r"tokens.*?context length is only (?P<window>\d+)",
    ),
    (
        "vLLM",
        r"prompt \((?:total )?length (?P<prompt>\d+)\) is (?:longer|too long).*?(?:maximum model "
        r"length of|context length) (?P<window>\d+)",
    ),
    ("vLLM", r"max_(?:completion_)?tokens must be at least 1, got -"),
    ("vLLM", r"input length \((?P<prompt>\d+)\) exceeds.{0,40}length \((?P<window>\d+)\)"),
    (
        "SGLang",
        r"input \((?P<prompt>\d+) tokens\) is longer than the model's context length "
        r"\((?P<window>\d+) tokens\)",
    ),
    (
        "SGLang",
        r"maximum context length of (?P<window>\d+) tokens\b.*?(?P<prompt>\d+) tokens from the "
        r"input messages and (?P<answer>\d+) tokens for the completion",
    ),
    (
        "OpenAI, Azure",
        r"(?:context length is|limit of) (?P<window>\d+) tokens.*?resulted in (?P<prompt>\d+) tok",
    ),
    (
        "TGI, Together",
        r"`inputs` tokens \+ `max_new_tokens` must be <= (?P<window>\d+)\. Given: (?P<prompt>\d+) "
        r"`inputs` tokens and (?P<answer>\d+)",
    ),
    ("TGI", r"`inputs` must have less than (?P<window>\d+) tokens\. Given: (?P<prompt>\d+)"),
    (
        "llama.cpp",
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size "
        r"\((?P<window>\d+) tokens\)",
    ),
    (
        "llama-cpp-python",
        r"requested tokens \((?P<prompt>\d+)\) exceed context window of "
        r"(?P<window>\d+)",
    ),
    (
        "LM Studio",
        r"keep the first (?P<prompt>\d+) tokens when context the ?overflows.*?context length of "
        r"(?:only )?(?P<window>\d+) tokens",
    ),
    ("LM Studio", r"n_keep[^\d]{0,12}(?P<prompt>\d+)[^\d]{0,12}n_ctx[^\d]{0,12}(?P<window>\d+)"),
    ("Ollama", r"exceeded max context length by (?P<excess>\d+) tokens"),
    (
        "Mistral",
        r"prompt contains (?P<prompt>\d+) tokens.*?too large for model with (?P<window>\d+) max",
    ),
    (
        "Copilot",
        r"prompt token count of (?P<prompt>\d+) exceeds the limit of (?P<window>\d+)",
    ),
    (
        "xAI",
        r"maximum prompt length is (?P<window>\d+) but the request contains (?P<prompt>\d+) tok",
    ),
    (
        "Kimi",
        r"exceeded model token limit: (?P<window>\d+) \(requested: (?P<prompt>\d+)\)",
    ),
    (
        "Gemini",
        r"input token count \((?P<prompt>\d+)\) exceeds the maximum number of tokens allowed "
        r"\((?P<window>\d+)\)",
    ),
    (
        "Vertex",
        r"input token count is (?P<prompt>\d+) but (?:the )?model only supports up to "
        r"(?P<window>\d+)",
    ),
    (
        "Anthropic",
        r"prompt is too long: (?P<prompt>\d+) tokens > (?P<window>\d+) maximum",
    ),
    (
        "Anthropic",
        r"exceed context limit: (?P<prompt>\d+) \+ (?P<answer>\d+) > (?P<window>\d+)",
    ),
    (
        "Fireworks",
        r"prompt is too long: (?P<prompt>\d+), model maximum context length: (?P<window>\d+)",
    ),
    ("Cerebras", r"current length is (?P<total>\d+) while limit is (?P<window>\d+)"),
    (
        "Groq, OpenAI: more than a minute's tokens, which no later minute allows either",
        r"request too large.*?limit (?P<window>\d+), requested (?P<total>\d+)",
    ),
    ("GitHub Models", r"request body too large.*?max size: (?P<window>\d+) tokens"),
    ("Cohere", r"too many tokens:.*?limit exceeded by (?P<excess>\d+) tokens"),
    (
        "SambaNova",
        r"prompt is (?P<prompt>\d+) tokens long.*?maximum supported sequence length is (?:just )?"
        r"(?P<window>\d+)",
    ),
    (
        "any other with counts",
        r"(?:prompt|input|context)(?: (?:length|tokens?|count|size|is|of|has))*\W{0,3}"
        r"(?P<prompt>\d{3,})(?: tokens?)?\)?[^.\d]{0,40}(?:exceed\w*|longer than|larger than|>)"
        r"[^.\d]{0,60}(?P<window>\d{3,})",
    ),
    ("DashScope", r"range of input length should be \[\d+, ?(?P<window>\d+)\]"),
    ("GLM", r"prompt exceeds max(?:imum)? length"),
    ("DashScope", r"total message token length exceed|input or output length"),
    ("Azure, GitHub Models", r"tokens_limit_reached|tokens in request more than max tokens"),
    (
        "Moonshot and others",
        # A limit of `max_tokens` is another one.
        r"^(?!.*max_\w*tokens).*?(?:exceed\w* (?:the )?max\w* (?:number of |message |input |"
        r"prompt )?tokens|token limit exceeded|tokens too long|input too large|"
        r"maximum context size)",
    ),
    ("MiniMax", r"context window exceeds limit"),
    ("Bedrock", r"input is too long for (?:the )?requested model"),
    ("Groq, Cerebras", r"please reduce the length of (?:the|your) (?:messages|prompt|input)"),
    ("LM Studio", r"reached context length|initial prompt is greater than the context length"),
    (
        "llama.cpp",
        r"exceeds? the available context size|context size has been exceeded|"
        r"input (?:prompt )?is (?:too big|larger than the max context size)",
    ),
    (
        "codes and types of errors",
        r"context_length_exceeded|exceed_context_size|context_window_exceeded|"
        r"max_prompt_tokens_exceeded|string_above_max_length.*messages|prompt_too_long|"
        r"ContextWindowExceededError|ContextLengthExceeded",
    ),
    (
        "any other",
        r"maximum context length|(?:prompt|input) (?:is )?too long|"
        r"(?:context|prompt|number of (?:input )?tokens).{0,40}(?:length|window|size|limit)\b"
        r".{0,20}exceed|input (?:token|length).{0,40}exceed|"
        r"exceed(?:s|ed|ing)?\b.{0,40}(?:context|prompt).{0,20}(?:length|window|size|limit)|"
        r"longer than.{0,30}context (?:length|window)|"
        r"(?:messages|prompt|conversation|input) (?:is|are) too (?:long|large) for",
    ),
)
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_PATTERNS: Final = tuple(re.compile(pattern, _FLAGS) for _, pattern in WORDINGS)
# A thousands separator within a number.
_SEPARATOR: Final = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_SPACE: Final = re.compile(r"\s+")
# The limit of max_tokens in the words of vllm-mlx, OpenAI, the real API, DeepSeek and DashScope,
# Volcengine, Groq, Vertex (whose limit is exclusive), and others.
_LONGEST_ANSWER: Final = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        r"max_tokens exceeds server limit \((?P<limit>\d+)\)",
        r"supports at most (?P<limit>\d+) completion tokens",
        r"max_tokens: \d+ > (?P<limit>\d+), which is the maximum",
        r"range of max_(?:completion_|output_)?tokens (?:is|should be) \[\d+, ?(?P<limit>\d+)\]",
        r"maxOutputTokens.*?supported range is from \d+ \(inclusive\) to (?P<above>\d+) \(excl",
        r"maximum tokens you requested exceeds the model limit of (?P<limit>\d+)",
        r"max_(?:completion_|output_|new_)?tokens?\b[`'\"]?.{0,120}?(?:less than or equal to|<=|"
        r"at most|no more than|cannot exceed|not exceed|up to|maximum (?:value )?(?:is|of)|"
        r"limit (?:is|of)|larger than|greater than|exceeds?(?: the)?(?: model)?(?: limit)?"
        r"(?: of)?) ?[`'\"(]*(?P<limit>\d+)",
    )
)


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


def find_overflow(
    message: str,
    details: Mapping[str, Any],
    *,
    requested_tokens: int = 0,
    patterns: Iterable[str] = (),
) -> Overflow | None:
    """Whether a refusal is about the prompt's length; None if it is about something else.

    Args:
        message: the server's error message.
        details: the server's error object, in which llama.cpp sends the counts.
        requested_tokens: the `max_tokens` of the request, which some servers add to the prompt.
        patterns: of the settings, tried before the table.
    """
    prompt_tokens, window = details.get("n_prompt_tokens"), details.get("n_ctx")
    if isinstance(prompt_tokens, int) and isinstance(window, int):
        return Overflow(prompt_tokens, window)
    codes = (details.get("type"), details.get("code"))
    text = " ".join([_plain(message), *(str(code) for code in codes if code)])
    for pattern in (*(re.compile(own, _FLAGS) for own in patterns), *_PATTERNS):
        if found := pattern.search(text):
            groups = found.groupdict()
            counts = {key: int(text) for key, text in groups.items() if text and text.isdigit()}
            return _counted(counts, requested_tokens)
    return None


def _counted(counts: Mapping[str, int], requested_tokens: int) -> Overflow:
    window, prompt = counts.get("window"), counts.get("prompt")
    if prompt is not None:
        prompt += counts.get("tools", 0)
    elif (total := counts.get("total")) is not None:
        prompt = total - requested_tokens if total > requested_tokens else total
    elif "excess" in counts and window is not None:
        prompt = window + counts["excess"]
    return Overflow(prompt, window)


def longest_answer(message: str) -> int:
    """The server's limit of `max_tokens`, if a refusal names one; otherwise 0."""
    text = _plain(message)
    for pattern in _LONGEST_ANSWER:
        if found := pattern.search(text):
            counts = found.groupdict()
            return int(counts["above"]) - 1 if counts.get("above") else int(counts["limit"])
    return 0


def _plain(message: str) -> str:
    """The message in one line, with numbers as digits only."""
    return _SEPARATOR.sub("", _SPACE.sub(" ", message))
