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

# Patterns in which `<prompt>` stands for a group of digits. The groups, all optional: `prompt` and
# `tools` are tokens of the prompt, `total` includes the requested answer, `excess` is what the
# prompt has too many, `window` is the limit.
WORDINGS: Final[tuple[tuple[str, str], ...]] = (
    (
        "vLLM until 0.10, DeepSeek, OpenRouter",
        r"maximum context length is <window> tokens?\b.*?requested (?:about )?\d+ tokens "
        r"\(<prompt> [^,);]*(?:, <tools> (?:of tool|in the func)[^,)]*)?[,;] (?:and )?<answer> +"
        r"(?:in|for) the",
    ),
    (
        "vLLM since 0.10",
        r"maximum context length is <window> tokens\b.*?your (?:request has|prompt contains) "
        r"(?:at least )?<prompt> input tokens",
    ),
    (
        "vLLM",
        r"passed (?:at least )?<prompt> input tokens.*?requested <answer> output tokens.*?context "
        r"length is only <window>",
    ),
    (
        "vLLM",
        r"prompt \((?:total )?length <prompt>\) is (?:longer|too long).*?(?:maximum model length "
        r"of|context length) <window>",
    ),
    ("vLLM: the prompt in characters", r"context length is only <window>"),
    ("vLLM", r"max_(?:completion_)?tokens must be at least 1, got -"),
    ("vLLM", r"input length \(<prompt>\) exceeds.{0,40}length \(<window>\)"),
    (
        "SGLang",
        r"input \(<prompt> tokens\) is longer than the model's context length \(<window> tokens\)",
    ),
    (
        "SGLang",
        r"maximum context length of <window> tokens\b.*?<prompt> tokens from the input messages "
        r"and <answer> tokens for the completion",
    ),
    ("OpenAI, Azure", r"(?:context length is|limit of) <window> tokens.*?resulted in <prompt> tok"),
    (
        "TGI, Together",
        r"`inputs` tokens \+ `max_new_tokens` must be <= <window>\. Given: <prompt> `inputs` "
        r"tokens and <answer>",
    ),
    ("TGI", r"`inputs` must have less than <window> tokens\. Given: <prompt>"),
    (
        "llama.cpp",
        r"request \(<prompt> tokens\) exceeds the available context size \(<window> tokens\)",
    ),
    ("llama-cpp-python", r"requested tokens \(<prompt>\) exceed context window of <window>"),
    (
        "LM Studio",
        r"keep the first <prompt> tokens when context the ?overflows.*?context length of (?:only "
        r")?<window> tokens",
    ),
    ("LM Studio", r"n_keep[^\d]{0,12}<prompt>[^\d]{0,12}n_ctx[^\d]{0,12}<window>"),
    ("Ollama", r"exceeded max context length by <excess> tokens"),
    ("Mistral", r"prompt contains <prompt> tokens.*?too large for model with <window> max"),
    ("Copilot", r"prompt token count of <prompt> exceeds the limit of <window>"),
    ("xAI", r"maximum prompt length is <window> but the request contains <prompt> tok"),
    ("Kimi", r"exceeded model token limit: <window> \(requested: <prompt>\)"),
    (
        "Gemini",
        r"input token count \(<prompt>\) exceeds the maximum number of tokens allowed \(<window>\)",
    ),
    ("Vertex", r"input token count is <prompt> but (?:the )?model only supports up to <window>"),
    ("Anthropic", r"prompt is too long: <prompt> tokens > <window> maximum"),
    ("Anthropic", r"exceed context limit: <prompt> \+ <answer> > <window>"),
    ("Fireworks", r"prompt is too long: <prompt>, model maximum context length: <window>"),
    ("Cerebras", r"current length is <total> while limit is <window>"),
    (
        "Groq, OpenAI: more than a minute's tokens, which no later minute allows either",
        r"request too large.*?limit <window>, requested <total>",
    ),
    ("GitHub Models", r"request body too large.*?max size: <window> tokens"),
    ("Cohere", r"too many tokens:.*?limit exceeded by <excess> tokens"),
    (
        "SambaNova",
        r"prompt is <prompt> tokens long.*?maximum supported sequence length is (?:just )?<window>",
    ),
    (
        "any other with counts",
        r"(?:prompt|input|context)(?: "
        r"(?:length|tokens?|count|size|is|of|has|too|long))*\W{0,3}(?P<prompt>\d{3,})(?: "
        r"tokens?)?\)?[^.\d]{0,40}(?:exceed\w*|longer than|larger than|greater "
        r"than|>|but the)[^.\d]{0,60}(?P<window>\d{3,})",
    ),
    (
        "any other with counts, the limit first",
        r"context (?:length|window|size)[^.\d]{0,40}<window>(?: tokens)?[^.\d]{0,20}"
        r"(?:prompt|input)[^.\d]{0,30}<prompt>",
    ),
    ("DashScope", r"range of input length should be \[\d+, ?<window>\]"),
    ("GLM", r"prompt exceeds max(?:imum)? length"),
    ("DashScope", r"total message token length exceed|input or output length"),
    ("Azure, GitHub Models", r"tokens_limit_reached|tokens in request more than max tokens"),
    (
        "Moonshot and others",
        # A limit of `max_tokens` is another one.
        r"^(?!.*max_\w*tokens).*?(?:exceed\w* (?:the )?max\w* (?:number of |message |input "
        r"|prompt )?tokens|token limit exceeded|exceeded model token limit|tokens too long"
        r"|input too large|too many input tokens|maximum (?:context size|sequence length)"
        r"|tokens\b.{0,20}exceed\w* .{0,20}max\w* length)",
    ),
    ("MiniMax", r"context window exceeds limit"),
    ("Bedrock", r"input is too long for (?:the )?requested model"),
    ("Groq, Cerebras", r"please reduce the length of (?:the|your) (?:messages|prompt|input)"),
    ("LM Studio", r"reached context length|initial prompt is greater than the context length"),
    (
        "llama.cpp",
        r"exceeds? the available context size|context size has been exceeded|context shift is "
        r"disabled|input (?:prompt )?is (?:too big|larger than the max context size)",
    ),
    ("Google, Bedrock: bytes", r"request payload size exceeds|too many total text bytes"),
    (
        "codes and types of errors",
        r"context_length_exceeded|exceed_context_size|context_window_exceeded|"
        r"prompt_tokens_exceeded|messages\[\d+\]\.content\b.*string_above_max_length|prompt_too_long|"
        r"ContextWindowExceededError|ContextLengthExceeded",
    ),
    (
        "any other",
        r"maximum context length|(?:prompt|inputs?|conversation|message you submitted) (?:is |are "
        r"|was )?too (?:long|large)|(?:context|prompt|number of "
        r"(?:input )?tokens).{0,40}(?:length|window|size|limit)\b.{0,20}exceed|input "
        r"(?:token|length).{0,40}exceed|exceed(?:s|ed|ing)?\b.{0,40}(?:context|"
        r"prompt).{0,20}(?:length|window|size|limit)|longer than.{0,30}context "
        r"(?:length|window)|(?:messages|prompt|conversation|input) (?:is|are) too (?:long|large) "
        r"for",
    ),
)
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_COUNT: Final = re.compile(r"(?<!\?P)<([a-z]+)>")


def _pattern(wording: str) -> re.Pattern[str]:
    return re.compile(_COUNT.sub(r"(?P<\1>\\d+)", wording), _FLAGS)


_PATTERNS: Final = tuple(_pattern(wording) for _, wording in WORDINGS)
# A thousands separator within a number.
_SEPARATOR: Final = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_SPACE: Final = re.compile(r"\s+")
# The limit of max_tokens, in the words of OpenAI, Groq, Cerebras, pydantic, vllm-mlx and others.
_ANSWER: Final = r"\bmax_?(?:completion_?|output_?|new_?)?tokens?(?![a-z_])"
_LONGEST_ANSWER: Final = tuple(
    _pattern(wording)
    for wording in (
        # An interval, whose upper end may be exclusive (Vertex).
        _ANSWER + r".*?supported range is from \d+ \(inclusive\) to <above> \(excl",
        _ANSWER
        + r"[^.]{0,80}?(?:between|range|in|\uff1a) ?(?:of |from )?[\[(]?\d+(?:,| and| to) ?<limit>",
        r"range of " + _ANSWER + r" (?:is|should be) \[\d+, ?<limit>\]",
        # The limit before the field, or without its name.
        r"at most <limit> (?:completion|output|new) tokens",
        r"maximum tokens you requested exceeds the model limit of <limit>",
        r"max(?:imum)? (?:number of )?output tokens[^.,\d]{0,40}<limit>",
        r"(?:maximum|limit)[^.\d]{0,30}" + _ANSWER + r" (?:is|of) <limit>",
        r"less than or equal to <limit>.{0,20}" + _ANSWER,
        r"max_tokens: \d+ > <limit>, which is the maximum",
        # The limit behind the field; a window of the prompt is another limit.
        _ANSWER
        + r"(?:(?!context|prompt).){0,120}?(?:less than or equal to|<=|at most|no more than|"
        r"cannot exceed|not exceed|up to|larger than|greater than|exceeds?|maximum|limit)"
        r"(?:(?!context|prompt|budget|len)[^.\d]){0,40}<limit>",
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

    In `details`, the server's error object, llama.cpp sends the counts. Some servers add the
    `max_tokens` of the request, `requested_tokens`, to the prompt. `patterns` of the settings are
    tried before the table.
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
