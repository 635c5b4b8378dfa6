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
    ("DashScope", r"range of input length should be \[\d+, ?<window>\]"),
    ("SiliconFlow", r"prompt_tokens \(<prompt>\) must be less than max_seq_len \(<window>\)"),
    ("Cohere", r"total number of tokens in the prompt cannot exceed <window> - received <prompt>"),
    ("watsonx", r"number of input tokens <prompt> cannot exceed the total tokens limit <window>"),
    ("Groq, Cerebras", r"please reduce the length of (?:the|your) (?:messages|prompt|input)"),
    ("llama.cpp", r"context shift is disabled"),
    ("Cloudflare", r"exceeded this model context window limit"),
    ("Moonshot", r"exceed max message tokens"),
    ("Azure", r"tokens in request more than"),
    ("DashScope", r"input or output length"),
    ("Google, Bedrock: bytes", r"request payload size exceeds|too many total text bytes"),
    (
        "codes and types of errors",
        r"context_?(?:length|size|window)_?exceed|exceed_?context_?(?:length|size|window)|"
        r"prompt_tokens_exceeded|token_quantity_exceeded|tokens_limit_reached|prompt_too_long|"
        r"messages\[\d+\]\.content\b.*string_above_max_length",
    ),
)
# For wordings that are in no row of the table: words that say that something is too long, words
# that name the prompt, and words that name something else, such as a rate limit.
_TOO_LONG: Final = re.compile(
    r"exceed|too (?:long|large|big)|too many (?:input |prompt )?tokens|above the|overflow|reached|"
    r">|(?:longer|larger|greater) than|full\b|not enough|n[o']t fit|"
    r"(?:more than|less than|shorter than|requested|needs|tokens,? but)\b[^.]*?\d{3}|"
    r"max(?:imum)? (?:context|sequence|input|prompt)|\u8d85|\u8fc7\u957f",
    re.IGNORECASE,
)
_OF_PROMPT: Final = re.compile(
    r"(?<![a-z])(?:prompt|inputs?|context|conversation|messages?|chat|sequence|n_ctx|max_model_len|"
    r"max_(?:seq|total|position|input)\w*)(?![a-z])|\u8f93\u5165|\u4e0a\u4e0b\u6587",
    re.IGNORECASE,
)
_OF_TOKENS: Final = re.compile(r"(?<![a-z])token(?:s|[ _](?:count|limit))(?![a-z])", re.IGNORECASE)
_OF_ELSE: Final = re.compile(
    r"image|audio|video|file|pixel|tools?(?![a-z])|function|description|schema|metadata|user_?id|"
    r"(?<![a-z])(?:rate|quota|credits?|balance|afford|budget|spend\w*|billing|plan|rpm|[tr]p[md]|"
    r"deadline|time(?:d|out)?|keys?|accounts?|array|stop|temperature|minimum|least)(?![a-z])|"
    r"minute|hourly|daily|monthly|(?:this|for the) month|"
    r"per[ -](?:\w+[ -])?(?:min|hour|day|month|sec|week|model)|thinking|\broles?\b|json|expected|"
    r"session|concurren|(?<!kv )cach|wait|(?:too many|number of) requests|"
    r"window (?:is )?too small",
    re.IGNORECASE,
)
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_COUNT: Final = re.compile(r"(?<!\?P)<([a-z]+)>")


def _pattern(wording: str) -> re.Pattern[str]:
    return re.compile(_COUNT.sub(r"(?P<\1>\\d+)", wording), _FLAGS)


_PATTERNS: Final = tuple(_pattern(wording) for _, wording in WORDINGS)
# A thousands separator within a number.
_SEPARATOR: Final = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_SPACE: Final = re.compile(r"\s+")
# A number of tokens, and no part of a name, a date or a status.
_NUMBER: Final = re.compile(r"(?<![\w.<-])\d{3,}(?![\w>-]|\.\d)")
_STATUS: Final = re.compile(r"\b(?:code|status|error)\W{0,3}[45]\d\d\b", re.IGNORECASE)
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
_OF_ANSWER: Final = re.compile(
    _ANSWER + r"|(?:output|completion|generated|new) tokens|generation length", re.IGNORECASE
)
# Prompt and answer are counted together.
_OF_BOTH: Final = re.compile(r"total|\+|output", re.IGNORECASE)
_BELOW: Final = re.compile(r"(?:less|lower|smaller) than (?!or )|below", re.IGNORECASE)


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
    codes = (details.get("param"), details.get("type"), details.get("code"))
    text = " ".join([_plain(message), *(str(code) for code in codes if code)])
    for pattern in (*(re.compile(own, _FLAGS) for own in patterns), *_PATTERNS):
        if found := pattern.search(text):
            groups = found.groupdict()
            counts = {key: int(text) for key, text in groups.items() if text and text.isdigit()}
            return _counted(counts, requested_tokens)
    return _by_its_words(_plain(message), requested_tokens)


def _by_its_words(text: str, requested_tokens: int) -> Overflow | None:
    """The overflow that a wording says which no row of the table has; None if it says none.

    Of two counts the larger one is the prompt's, unless the answer is counted, too.
    """
    what = _OF_PROMPT.search(text) or (_OF_TOKENS.search(text) and not _OF_ANSWER.search(text))
    if not what or not _TOO_LONG.search(text) or _OF_ELSE.search(text) or _limit(text):
        return None
    numbers = _numbers(text) - {requested_tokens}
    if _OF_BOTH.search(text) or len(numbers) != 2:
        return Overflow()
    return Overflow(max(numbers), min(numbers))


def _numbers(text: str) -> set[int]:
    return {int(number) for number in _NUMBER.findall(_STATUS.sub("", text))}


def _counted(counts: Mapping[str, int], requested_tokens: int) -> Overflow:
    window, prompt = counts.get("window"), counts.get("prompt")
    if prompt is not None:
        prompt += counts.get("tools", 0)
    elif (total := counts.get("total")) is not None:
        prompt = total - requested_tokens if total > requested_tokens else total
    elif "excess" in counts and window is not None:
        prompt = window + counts["excess"]
    return Overflow(prompt, window)


def longest_answer(message: str, requested_tokens: int = 0) -> int:
    """The server's limit of `max_tokens`, if a refusal names one; otherwise 0."""
    text = _plain(message)
    if limit := _limit(text):
        return limit
    if not _OF_ANSWER.search(text) or _OF_PROMPT.search(text) or _OF_ELSE.search(text):
        return 0
    # Beside what was requested, one number is there, the limit.
    numbers = _numbers(text)
    limits = numbers - {requested_tokens or (max(numbers) if len(numbers) > 1 else 0)}
    if len(limits) != 1 or 0 < requested_tokens < max(limits):
        return 0
    return max(limits) - (1 if _BELOW.search(text) else 0)


def _limit(text: str) -> int:
    for pattern in _LONGEST_ANSWER:
        if found := pattern.search(text):
            counts = found.groupdict()
            return int(counts["above"]) - 1 if counts.get("above") else int(counts["limit"])
    return 0


def _plain(message: str) -> str:
    """The message in one line, with numbers as digits only."""
    return _SEPARATOR.sub("", _SPACE.sub(" ", message))
