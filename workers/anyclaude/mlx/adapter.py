"""The only module that imports mlx-lm, and transformers.

mlx-lm changes its API between patch releases, so its version is pinned exactly, and everything that
the worker uses of it is here, typed as far as it can be.
"""

import os
import re
import sys

# We resolve model names ourselves; nothing here may use the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from anyclaude.mlx import transformers_import

# It has to come before the imports of mlx-lm, which import transformers.
# ruff: noqa: E402
transformers_import.install()

from mlx_lm.models import base
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
from transformers.utils.chat_template_utils import _compile_jinja_template

import mlx.core as mx
from anyclaude.mlx.markup import UNMARKED, Markup, markup_of
from anyclaude.mlx.tokens import TokenArray, token_array

__all__ = [
    "MLX_VERSIONS",
    "ArraysCache",
    "CacheList",
    "ChunkedKVCache",
    "KVCache",
    "LanguageModel",
    "Layer",
    "Masks",
    "QuantizedKVCache",
    "RotatingKVCache",
    "Sampler",
    "SharedAttention",
    "TokenizerWrapper",
    "allow_list_changes",
    "attention",
    "evaluate",
    "library_sampler",
    "load_tokenizer_from",
    "load_weights",
    "make_prompt_cache",
    "map_weights",
    "opens_thinking",
    "parser_family",
    "prefill",
    "read_token",
    "template_source",
    "tokenizer_json",
    "with_markup",
]

# A layer's cache; mlx-lm's classes share no typed base.
Layer = Any
# A mask of each row of a shared pass.
Masks = Sequence[Any]
# Log-probabilities of shape (1, vocabulary) to a token id of shape (1,).
Sampler = Callable[[mx.array], mx.array]

QUANTIZATION_GROUP: Final = 64
OPENING_TOKENS: Final = 32
# Where mlx-lm notes the name of the parser that it chose.
_FAMILY_KEY: Final = "tool_parser_type"
_BARE_CALL: Final = re.compile(r"""\s*\[?(?:\{"name": "probe"|probe\()""")
_LIST_CHANGES: Final = ("append", "extend", "insert", "pop", "remove")
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
    return with_markup(tokenizer)


def with_markup(tokenizer: TokenizerWrapper) -> TokenizerWrapper:
    """The tokenizer, with the markers of its family if mlx-lm does not know that family."""
    markup = markup_of(template_source(tokenizer), parser_family(tokenizer))
    if markup is None and not parser_family(tokenizer) and _prints_bare_calls(tokenizer):
        markup = UNMARKED
    if markup is not None:
        _mark(tokenizer, markup)
    return tokenizer


def _prints_bare_calls(tokenizer: Any) -> bool:
    """Whether the template prints a call as the first words of an answer, without a marker."""
    function = {"name": "probe", "description": "Looks.", "parameters": {"type": "object"}}
    call = {"id": "probe0001", "type": "function", "function": {"name": "probe", "arguments": {}}}
    ask = {"role": "user", "content": "Look."}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}

    def rendered(messages: list[Any], **how: Any) -> str:
        tools = [{"type": "function", "function": function}]
        return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **how))

    try:
        asked = rendered([ask], add_generation_prompt=True)
        answered = rendered([ask, answer])
    except Exception:  # noqa: BLE001 - templates raise what they like
        return False
    return answered.startswith(asked) and bool(_BARE_CALL.match(answered, len(asked)))


def _mark(tokenizer: Any, markup: Markup) -> None:
    """Sets what mlx-lm sets when it knows a family; its constructor takes only a part of it."""
    tokenizer.init_kwargs[_FAMILY_KEY] = markup.family
    tokenizer._tool_parser = _no_parser
    tokenizer._tool_call_start = markup.start
    tokenizer._tool_call_start_tokens = _encoded(tokenizer, markup.start)
    tokenizer._tool_call_end = markup.end
    tokenizer._tool_call_end_tokens = _encoded(tokenizer, markup.end)
    if markup.thinking is not None:
        tokenizer._think_start, tokenizer._think_end = markup.thinking
        tokenizer._think_start_tokens, tokenizer._think_end_tokens = (
            _encoded(tokenizer, marker) for marker in markup.thinking
        )
    tokenizer._structural_markers = markup.structure
    if markup.transitions:
        tokenizer._response_format = {
            "initial_state": "header",
            "transitions": markup.transitions,
        }
    vocabulary = tokenizer.get_vocab()
    for stop in markup.stops:
        if stop in vocabulary:
            tokenizer.add_eos_token(stop)


def _encoded(tokenizer: TokenizerWrapper, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _no_parser(text: str, tools: Any = None) -> Any:
    """Stands in for a parser of mlx-lm in the families that it does not know."""
    raise ValueError("mlx-lm has no parser for this family")


def allow_list_changes(template: str) -> None:
    """Lets a chat template append to lists and take from them, as Kimi-K2-Thinking's does.

    transformers compiles each template once, in a sandbox that refuses this. A template is only
    ever given copies, so it cannot change what others use.
    """
    if not any(f".{name}(" in template for name in _LIST_CHANGES):
        return
    environment = _compile_jinja_template(template).environment
    is_safe = environment.is_safe_attribute

    def is_safe_or_changes_list(owner: object, name: str, value: object) -> bool:
        changes_list = isinstance(owner, list) and name in _LIST_CHANGES
        return changes_list or bool(is_safe(owner, name, value))

    environment.is_safe_attribute = is_safe_or_changes_list


def parser_family(tokenizer: TokenizerWrapper) -> str:
    """The name of the model's family, such as "qwen3_coder"; empty if it is not known.

    It is that of the tool parser which mlx-lm chose, or that of a `Markup`.
    """
    return str(tokenizer.init_kwargs.get(_FAMILY_KEY) or "")


def template_source(tokenizer: TokenizerWrapper) -> str:
    """The source of all templates of the tokenizer; empty if its renderer is written in Python."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        return "".join(template.values())
    return template or ""


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


def attention(
    queries: mx.array, keys: Any, values: Any, layer: Layer, mask: Any, **options: Any
) -> mx.array:
    """Attention as mlx-lm computes it for one conversation."""
    attended: mx.array = base.scaled_dot_product_attention(
        queries, keys, values, layer, mask=mask, **options
    )
    return attended


class SharedAttention:
    """Lets a model compute several conversations at once, on layers that have `attend` (`kv.rows`).

    mlx-lm's models call attention by a name in their own modules. Within this context, that name is
    a function that calls the layer instead, so passes outside are as mlx-lm wrote them. Multi-head
    latent attention computes with the cached keys itself, so it runs for each row by itself.
    """

    def __init__(self, model: Any) -> None:
        self._modules = _attention_modules(model)
        latent = {type(module) for module in model.modules() if hasattr(module, "kv_lora_rank")}
        self._latent = {kind: kind.__call__ for kind in latent}

    def __enter__(self) -> None:
        for module in self._modules:
            module.scaled_dot_product_attention = _attend
        for kind, call in self._latent.items():
            kind.__call__ = _row_by_row(call)

    def __exit__(self, *_: object) -> None:
        for module in self._modules:
            module.scaled_dot_product_attention = base.scaled_dot_product_attention
        for kind, call in self._latent.items():
            kind.__call__ = call


def _attend(
    queries: mx.array,
    keys: Any,
    values: Any,
    cache: Layer,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    attend = getattr(cache, "attend", None)
    if attend is None:
        # A row that is computed by itself.
        return attention(queries, keys, values, cache, mask, scale=scale, sinks=sinks)
    attended: mx.array = attend(queries, keys, values, mask, scale=scale, sinks=sinks)
    return attended


def _row_by_row(call: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """The `__call__` of an attention module, for the layers of `kv.rows` too."""

    def attend(module: Any, x: mx.array, mask: Any = None, cache: Any = None, *more: Any) -> Any:
        if more or not hasattr(cache, "row_by_row"):
            return call(module, x, mask, cache, *more)
        return cache.row_by_row(partial(call, module), x, mask)

    return attend


def _attention_modules(model: Any) -> list[Any]:
    modules = {sys.modules[type(module).__module__] for module in model.modules()}
    name = base.scaled_dot_product_attention.__name__
    return [m for m in modules if getattr(m, name, None) is base.scaled_dot_product_attention]


def prefill(
    model: LanguageModel, layers: list[Layer], token_ids: Sequence[int] | TokenArray
) -> None:
    """Runs `token_ids` through the model to fill its caches.

    Only the caches are evaluated: the last layer's attention and the head never run.
    """
    model(mx.array(token_array(token_ids))[None], cache=layers)
    evaluate(layers)
    mx.clear_cache()


def read_token(token: mx.array) -> int:
    """Waits for a sampled token and returns its id."""
    value: Any = token.item()
    return int(value)


def evaluate(layers: list[Layer]) -> None:
    """Computes what MLX has only planned so far for the caches."""
    mx.eval([layer.state for layer in layers])
