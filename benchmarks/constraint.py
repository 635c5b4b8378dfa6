"""What constraining an answer by a grammar costs: per token, and in speed on a tiny model.

    python -m benchmarks.constraint

With `ANYCLAUDE_TEST_MATERIAL` (tests/real/material.py) the vocabulary is Qwen3's. Otherwise one of
150,000 tokens is made up here, in the shape of a real one: bytes, then words with and without a
space before them, then control tokens. Grammars are those of 25 tools. The cost per
token is everything that the constraint does besides waiting for the model: reading the last token,
advancing the grammar, computing the mask, and giving it to MLX. For the speed, constrained and free
answers of one length alternate in one run.
"""

import random
import statistics
import time
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper
from mlx_lm.tool_parsers import json_tools
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import LanguageModel
from anyclaude.mlx.decode import make_sampler
from anyclaude.mlx.decode.constraint import ConstraintCompiler
from anyclaude.mlx.decode.constraint.masks import expanded, only_token
from anyclaude.mlx.engine.decoding import Decoding
from anyclaude.mlx.kv.live import LiveCache
from benchmarks.vocabulary import real_qwen3
from tests.models import tiny
from tests.models.claude_tools import tools

VOCABULARY = 150_000
SAMPLED_TOKENS = 4_000
SPEED_TOKENS = 256
ROUNDS = 8
MAX_MEDIAN_SECONDS = 0.0001
MAX_MEAN_SECONDS = 0.0005
MIN_SPEED = 0.8
_SHAPE = {"hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128, "head_dim": 16}
_EOS = "<|im_end|>"
_CHOICE = ToolChoice(type="any")


def main() -> None:
    began = time.perf_counter()
    tokenizer = real_qwen3() or made_up()
    print(f"tokenizer of {len(tokenizer)} tokens made in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    compiler = ConstraintCompiler(tokenizer)
    print(f"prepared for grammars in {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    compiled(compiler, tools())
    print(f"25 tools compiled in {1000 * (time.perf_counter() - began):.0f} ms", end=", ")
    began = time.perf_counter()
    compiled(compiler, tools())
    print(f"again in {1000 * (time.perf_counter() - began):.1f} ms")
    cost_per_token(compiler)
    speed(compiler, tokenizer)


def compiled(compiler: ConstraintCompiler, offered: list[Tool]) -> "object":
    return compiler.compile(offered, _CHOICE, None, in_thinking=False, may_think=False)


def cost_per_token(compiler: ConstraintCompiler) -> None:
    """The constraint's own work, token by token, over random answers."""
    for name, offered in (("bounded", tools()), ("unbounded", tools(bounded=False))):
        seconds = list(costs(compiler, offered))
        ordered = sorted(seconds)
        median, mean = statistics.median(seconds), statistics.fmean(seconds)
        print(
            f"cost per token, strings {name}: median {1000 * median:.3f} ms, mean"
            f" {1000 * mean:.3f} ms, p99 {1000 * ordered[int(0.99 * len(ordered))]:.3f} ms,"
            f" max {1000 * ordered[-1]:.1f} ms over {len(seconds)} tokens"
        )
        assert median <= MAX_MEDIAN_SECONDS, "the median is over its limit"
        assert mean <= MAX_MEAN_SECONDS, "the mean is over its limit"


def costs(compiler: ConstraintCompiler, offered: list[Tool]) -> Iterator[float]:
    rng, done = random.Random(1), 0
    while done < SAMPLED_TOKENS:
        whole = compiler.compile(offered, _CHOICE, None, in_thinking=False, may_think=False)
        assert whole is not None
        constraint = whole.constraint
        for _ in range(400):
            began = time.perf_counter()
            mask = constraint.mask()
            if only_token(mask) is None:
                expanded(mask, VOCABULARY)
            took = time.perf_counter() - began
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            token = int(allowed[rng.randrange(len(allowed))])
            if token in compiler.eos_token_ids:
                break
            began = time.perf_counter()
            constraint.observe(token)
            yield took + time.perf_counter() - began
            done += 1


def speed(compiler: ConstraintCompiler, tokenizer: TokenizerWrapper) -> None:
    """Alternates constrained and free generation on one model."""
    model = tiny.build(tiny.Family.DENSE, len(tokenizer), **_SHAPE)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for is_constrained in (True, False):
            rates[is_constrained].append(
                rate(compiler, model, number, is_constrained=is_constrained)
            )
    constrained, free = (
        statistics.median(rates[is_constrained]) for is_constrained in (True, False)
    )
    ratio = constrained / free
    print(f"speed: constrained {constrained:.0f}, free {free:.0f} tokens/s, ratio {ratio:.2f}")
    assert ratio >= MIN_SPEED, "the constraint costs too much speed"


def rate(
    compiler: ConstraintCompiler, model: LanguageModel, seed: int, *, is_constrained: bool
) -> float:
    mx.random.seed(seed)
    sampler = make_sampler(1.0)
    whole = compiler.compile(
        _endless(), ToolChoice(type="any"), None, in_thinking=False, may_think=False
    )
    assert whole is not None
    if is_constrained:
        sampler = whole.constraint.sampler(sampler, needs_probabilities=False)
    live = LiveCache.empty(model, kv_bits=0, max_checkpoints=1)
    passes = Decoding(model, live, sampler).tokens(1 + seed, SPEED_TOKENS + 8)
    # After each pass there is a None.
    tokens = (token for token in passes if token is not None)
    began = 0.0
    for number, token in enumerate(tokens):
        if number == 8:
            began = time.perf_counter()
        if is_constrained:
            whole.constraint.observe(token)
    return SPEED_TOKENS / (time.perf_counter() - began)


def _endless() -> list[Tool]:
    """The tools, with strings so long that no random answer ends within a round."""
    text = {"type": "string", "minLength": 40 * SPEED_TOKENS}
    schema = {"type": "object", "properties": {"content": text}, "required": ["content"]}
    return [Tool(name=tool.name, input_schema=schema) for tool in tools()]


def made_up() -> TokenizerWrapper:
    """Makes a byte-level tokenizer of VOCABULARY tokens with Qwen's markers."""
    rng = random.Random(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(letters)
    common = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [2 ** (-at / 5) for at in range(26)]
    marks = ['"', '",', '":', "\\n", "{", "}", "[", "]", "(", ")", "_", "-", "/", ".", "0", "7"]
    while len(words) < VOCABULARY - 40:
        word = "".join(rng.choices(common, weights, k=rng.randint(2, 11)))
        shape = rng.random()
        if shape < 0.55:
            word = "Ġ" + word
        elif shape < 0.7:
            word = word.capitalize()
        elif shape < 0.8:
            word = rng.choice(marks) + word
        elif shape < 0.9:
            word = "".join(rng.choices(letters, k=rng.randint(2, 4)))
        words.setdefault(word)
    built = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", _EOS, "<|endoftext|>", *(f"<|extra_{n}|>" for n in range(20))]
    built.add_special_tokens([AddedToken(text, special=True) for text in special])
    markup = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    built.add_tokens([AddedToken(text, special=False, normalized=False) for text in markup])
    # mlx-lm notes the parser that it chose for a model there; grammars go by that name.
    family = "json_tools"
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=built, eos_token=_EOS, tool_parser_type=family
    )
    return TokenizerWrapper(
        fast,
        BPEStreamingDetokenizer,
        tool_call_start=json_tools.tool_call_start,
        tool_call_end=json_tools.tool_call_end,
        tool_parser=json_tools.parse_tool_call,
    )


if __name__ == "__main__":
    main()
