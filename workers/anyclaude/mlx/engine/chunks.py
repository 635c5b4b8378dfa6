"""How many prompt tokens one prefill step computes.

A larger step is faster per token, but everything that arrives waits until the running step is
over. So a step takes about a second by measured speed, divided among the requests that take turns.
While a request decodes, steps have a smaller fixed size.

Attention without a fused kernel keeps the scores of all heads in memory, heads x step x context x 4
bytes at a time, so the step gets smaller as the context grows.

Sizes are powers of two: each size has last bits of its own on a GPU, and buffers of its own.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from anyclaude.runtime.settings import MlxSettings

# Before the first measurement.
_FIRST_TOKENS: Final = 512
_LEAST_TOKENS: Final = 256
_MOST_TOKENS: Final = 2048
_STEP_SECONDS: Final = 1.0
# A shorter step, such as the end of a prompt, says little about the speed.
_LEAST_MEASURED_TOKENS: Final = 128
# However much memory the scores take, a step has at least so many tokens.
_LEAST_FITTING_TOKENS: Final = 16
_SCORE_BYTES: Final = 4
# Of a model whose config names none.
_UNKNOWN_HEADS: Final = 64
# MLX 0.31, `metal/scaled_dot_product_attention.cpp`, `use_fallback`: the sizes of a head for which
# the kernel for prompts is fused. There is none for quantised KV, and none on the CPU.
_FUSED_HEAD_SIZES: Final = frozenset({64, 80, 128})


class ChunkSizes:
    """Chooses the sizes of one engine's prefill steps, and measures their speed."""

    def __init__(
        self,
        settings: MlxSettings,
        *,
        score_heads: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`score_heads` is what the function of that name returns."""
        self._settings = settings
        self._score_heads = score_heads
        self._clock = clock
        self._tokens_per_second: float | None = None

    @property
    def unmeasured_tokens(self) -> int:
        """The size of a step that runs alone before any was measured."""
        return self._settings.prefill_chunk_tokens or _FIRST_TOKENS

    def tokens(self, context_tokens: int, *, running: int, decoding: bool) -> int:
        """The size of the next step, after `context_tokens` in the cache.

        `running` counts the requests that take turns, this one included; `decoding` tells whether
        one of them decodes.
        """
        size = self._settings.shared_prefill_chunk_tokens if decoding else self._alone(running)
        limit = self._settings.attention_scores_bytes
        while size > _LEAST_FITTING_TOKENS and self._scores(size, context_tokens) > limit:
            size //= 2
        return size

    def scores_bytes(self, prompt_tokens: int) -> int:
        """The most memory that attention scores take while a prompt is computed."""
        size = min(self._settings.prefill_chunk_tokens or _MOST_TOKENS, prompt_tokens)
        limit = self._settings.attention_scores_bytes
        return min(limit, self._scores(size, prompt_tokens - size))

    @contextmanager
    def timed(self, tokens: int) -> Iterator[None]:
        """Measures a step of `tokens`, which runs within this context."""
        began = self._clock()
        yield
        seconds = self._clock() - began
        if tokens < _LEAST_MEASURED_TOKENS or seconds <= 0:
            return
        speed, before = tokens / seconds, self._tokens_per_second
        self._tokens_per_second = speed if before is None else (before + speed) / 2

    def _alone(self, running: int) -> int:
        """The size while nobody decodes."""
        if self._settings.prefill_chunk_tokens or self._tokens_per_second is None:
            return self.unmeasured_tokens
        wanted = self._tokens_per_second * _STEP_SECONDS / running
        size = _MOST_TOKENS
        while size > max(wanted, _LEAST_TOKENS):
            size //= 2
        return size

    def _scores(self, tokens: int, context_tokens: int) -> int:
        return self._score_heads * tokens * (context_tokens + tokens) * _SCORE_BYTES


def score_heads(config: Mapping[str, Any], kv_bits: int, *, on_metal: bool) -> int:
    """The heads whose attention scores a prefill step keeps in memory; 0 with a fused kernel."""
    text = config.get("text_config") or config
    heads, size = text.get("num_attention_heads"), text.get("head_dim")
    if not isinstance(heads, int) or heads < 1:
        return _UNKNOWN_HEADS
    if not isinstance(size, int):
        size = int(text.get("hidden_size") or 0) // heads
    # Models with compressed KV (multi-head latent attention) add scores of their own as a mask.
    compressed = "kv_lora_rank" in text
    is_fused = on_metal and not kv_bits and size in _FUSED_HEAD_SIZES and not compressed
    return 0 if is_fused else heads
