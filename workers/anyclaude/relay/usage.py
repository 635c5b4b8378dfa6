"""Token counts as other servers report them, and estimates until they do."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic_core import to_json

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.worker.v1.worker_pb2 import Usage

# For English and code in JSON; replaced by what the server's own counts show.
_CHARACTERS_PER_TOKEN: Final = 3.6
# For text with the longest tokens.
_MOST_CHARACTERS_PER_TOKEN: Final = 6.0
_TOKENS_PER_IMAGE: Final = 1500
# Shorter prompts consist mostly of the chat template, and show little.
_MIN_LEARNED_TOKENS: Final = 200


class Estimator:
    """Estimates the tokens of a prompt, and learns from prompts whose count is known."""

    def __init__(self) -> None:
        self._learned: float | None = None

    def estimate(self, request: CountTokensRequest, body: bytes) -> int:
        """An estimate, until the server reports its own count."""
        return _tokens(request, body, self._learned or _CHARACTERS_PER_TOKEN)

    def estimate_edited(self, request: CountTokensRequest) -> int:
        """As `estimate`, for a request that is not as the client sent it."""
        return self.estimate(request, to_json(request))

    def at_least(self, request: CountTokensRequest, body: bytes) -> int:
        """A low estimate, by which no prompt is refused in error."""
        return _tokens(request, body, self._learned or _MOST_CHARACTERS_PER_TOKEN)

    def learn(self, request: CountTokensRequest, body: bytes, prompt_tokens: int) -> None:
        if prompt_tokens < _MIN_LEARNED_TOKENS or any(_images(request)):
            return
        self._learned = min(max(len(body) / prompt_tokens, 1.0), 10.0)


def _tokens(request: CountTokensRequest, body: bytes, characters_per_token: float) -> int:
    images = list(_images(request))
    characters = len(body) - sum(images)
    return max(1, math.ceil(characters / characters_per_token) + len(images) * _TOKENS_PER_IMAGE)


def _images(request: CountTokensRequest) -> Iterator[int]:
    """The number of characters of each image's data."""
    for message in request.messages:
        for block in message.blocks():
            yield from _block_images(block)


def _block_images(block: Mapping[str, Any]) -> Iterator[int]:
    source = block.get("source")
    if block.get("type") == "image" and isinstance(source, dict):
        yield len(str(source.get("data") or ""))
    content = block.get("content")
    if isinstance(content, list):
        for part in content:
            if isinstance(part, dict):
                yield from _block_images(part)


def openai_usage(usage: Mapping[str, Any], timings: Mapping[str, Any]) -> Usage | None:
    """The counts of a chat completion; None if there are none.

    In older versions of llama.cpp, its `timings` are the only source for reused tokens.
    """
    prompt = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    answer = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    if not prompt:
        # No prompt is empty: a server that counts none sends 0.
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    if cached is None:
        named = (_count(usage, name) for name in ("prompt_cache_hit_tokens", "cached_tokens"))
        cached = next(filter(None, named), None) or _count(timings, "cache_n") or 0
    # The API counts at least one token as new.
    cached = min(cached, max(0, prompt - 1))
    return Usage(
        input_tokens=max(1, prompt - cached), cache_read_tokens=cached, output_tokens=answer or 0
    )


def anthropic_usage(usage: Mapping[str, Any]) -> Usage:
    """The counts of a Messages response; missing ones are 0."""
    return Usage(
        input_tokens=_count(usage, "input_tokens") or 0,
        cache_read_tokens=_count(usage, "cache_read_input_tokens") or 0,
        cache_creation_tokens=_count(usage, "cache_creation_input_tokens") or 0,
        output_tokens=_count(usage, "output_tokens") or 0,
    )


def prompt_tokens(usage: Usage) -> int:
    return int(usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens)


def _count(counts: Mapping[str, Any], key: str) -> int | None:
    value = counts.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**32 else None
