"""The only module that imports mlx-lm.

mlx-lm changes its API between patch releases, so its version is pinned exactly, and everything that
the worker uses of it is here, typed as far as it can be.
"""

import os

# We resolve model names ourselves; nothing here may use the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Generator, Mapping, Sequence
from copy import copy
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from mlx_lm.generate import generate_step
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)
from mlx_lm.sample_utils import make_sampler as library_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer

import mlx.core as mx
from anyclaude.mlx.tokens import TokenArray, token_array

__all__ = [
    "MLX_VERSIONS",
    "ArraysCache",
    "CacheList",
    "ChunkedKVCache",
    "KVCache",
    "LanguageModel",
    "Layer",
    "QuantizedKVCache",
    "RotatingKVCache",
    "Sampler",
    "TokenizerWrapper",
    "decode",
    "evaluate",
    "library_sampler",
    "load_tokenizer_from",
    "load_weights",
    "make_prompt_cache",
    "map_weights",
    "opens_thinking",
    "parser_family",
    "prefill",
    "tokenizer_json",
]

# A layer's cache; mlx-lm's classes share no typed base.
Layer = Any
# Log-probabilities of shape (1, vocabulary) to a token id of shape (1,).
Sampler = Callable[[mx.array], mx.array]

QUANTIZATION_GROUP: Final = 64
OPENING_TOKENS: Final = 32
# Another version or device may compute different last bits.
MLX_VERSIONS: Final = (
    metadata.version("mlx"),
    metadata.version("mlx-lm"),
    str(mx.default_device()),
)


class LanguageModel(Protocol):
    """What the engine needs of an mlx-lm model."""

    layers: list[Any]

    def __call__(self, inputs: mx.array, cache: list[Layer]) -> mx.array: ...


def load_weights(folder: Path) -> tuple[LanguageModel, Mapping[str, Any]]:
    """Loads and evaluates the model in `folder`; returns it with its config.

    Raises:
        FileNotFoundError, ValueError: the folder holds no model that mlx-lm knows.
    """
    model, config = load_model(folder)
    return model, config


def map_weights(folder: Path) -> tuple[LanguageModel, dict[str, Any]]:
    """Like `load_weights`, but nothing of the weights is read until it is used."""
    model, config = load_model(folder, lazy=True)
    return model, dict(config)


def load_tokenizer_from(folder: Path, config: Mapping[str, Any]) -> TokenizerWrapper:
    """A new tokenizer object, since threads must never share one."""
    tokenizer: TokenizerWrapper = load_tokenizer(  # type: ignore[no-untyped-call]
        folder, eos_token_ids=config.get("eos_token_id")
    )
    return tokenizer


def parser_family(tokenizer: TokenizerWrapper) -> str:
    """The name of the tool parser that mlx-lm chose for the model, such as "qwen3_coder"."""
    return str(tokenizer.tool_parser.__module__).rpartition(".")[2]


def tokenizer_json(tokenizer: TokenizerWrapper) -> str:
    """The tokenizer as the `tokenizers` library serialises it, without padding and truncation.

    Raises:
        AttributeError: another library made the tokenizer.
    """
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())


def opens_thinking(tokenizer: TokenizerWrapper, token_ids: Sequence[int] | TokenArray) -> bool:
    """Whether a prompt ends inside a thinking block that its template began."""
    if not tokenizer.has_thinking:
        return False
    # A template opens the block at the prompt's very end.
    tail = token_array(token_ids[-OPENING_TOKENS:]).tolist()
    opened = tokenizer.rfind_think_start(tail)  # type: ignore[no-untyped-call]
    closed = tokenizer.rfind_think_end(tail)  # type: ignore[no-untyped-call]
    return bool(opened >= 0 and opened > closed)


def prefill(
    model: LanguageModel, layers: list[Layer], token_ids: Sequence[int] | TokenArray
) -> None:
    """Runs `token_ids` through the model to fill its caches.

    Only the caches are evaluated: the last layer's attention and the head never run.
    """
    model(mx.array(token_array(token_ids))[None], cache=layers)
    evaluate(layers)
    mx.clear_cache()


def decode(
    model: LanguageModel, layers: list[Layer], last_token: int, max_tokens: int, sampler: Sampler
) -> Generator[int]:
    """Generates from the prompt's last token, which must not be in the cache yet.

    Each token is in the cache by the time it is returned, because a step runs ahead. Closing the
    iterator leaves the cache valid.
    """
    steps = generate_step(
        mx.array([last_token]),
        model,
        prompt_cache=layers,
        max_tokens=max_tokens,
        sampler=sampler,
    )
    for token, _ in steps:
        yield int(token)


def evaluate(layers: list[Layer]) -> None:
    """Computes what MLX has only planned so far for the caches."""
    mx.eval([layer.state for layer in layers])
