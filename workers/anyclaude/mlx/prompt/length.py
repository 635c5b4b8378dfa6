"""Refuses a prompt that is far too long before it is rendered.

Rendering and encoding a prompt of 30 MB takes minutes, and requests are rendered one after another.
So large requests are looked at first, on a thread of their own: their texts are encoded slice by
slice, with the interpreter's lock released, and only until the window is full.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

from anyclaude.messages.errors import prompt_too_long
from anyclaude.messages.lengths import certain_texts
from anyclaude.messages.requests import CountTokensRequest
from anyclaude.mlx.adapter import TokenizerWrapper

# A smaller body is rendered at once.
LARGE_BODY_BYTES: Final = 1024 * 1024
_SLICE_CHARACTERS: Final = 32 * 1024
# Cutting a text in slices may add some tokens at each cut.
_TOKENS_PER_CUT: Final = 8


class LengthCheck:
    """For one thread, with a tokenizer of its own that is made for the first large request."""

    def __init__(
        self, new_tokenizer: Callable[[], TokenizerWrapper], window_tokens: int, advice: str
    ) -> None:
        self._new_tokenizer = new_tokenizer
        self._window_tokens = window_tokens
        self._advice = advice

    @cached_property
    def _tokenizer(self) -> TokenizerWrapper:
        return self._new_tokenizer()

    def check(self, request: CountTokensRequest) -> None:
        """Returns unless the prompt certainly fills the window.

        Raises:
            ApiError: 400; the number of tokens in it is an estimate from the part that was encoded.
        """
        total = sum(map(len, certain_texts(request)))
        tokens = characters = 0
        for piece in _slices(request):
            ids = self._tokenizer.encode(piece, add_special_tokens=False, verbose=False)
            characters += len(piece)
            tokens += max(0, len(ids) - _TOKENS_PER_CUT)
            if tokens >= self._window_tokens:
                estimate = max(tokens * total // characters, self._window_tokens + 1)
                raise prompt_too_long(estimate, self._window_tokens, self._advice)


def _slices(request: CountTokensRequest) -> Iterator[str]:
    for text in certain_texts(request):
        for start in range(0, len(text), _SLICE_CHARACTERS):
            yield text[start : start + _SLICE_CHARACTERS]
