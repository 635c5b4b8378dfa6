"""Small real tokenizers, one for each family of templates, loaded as any model's is.

The vocabulary is the 256 bytes, so that a character outside ASCII always takes several tokens; some
merges, so that tokens cross the borders of markers; and a family's markers as added tokens.
"""

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

_TEXT = 'Hello world, a>\n<b {"name": "Bash", "arguments": {"command": "ls -la"}}\n'
THINKING = ("<think>", "</think>")


@dataclass(frozen=True)
class Family:
    """What tells mlx-lm which parser a model needs."""

    template: str
    markers: tuple[str, ...] = ()


FAMILIES = {
    "json_tools": Family("<tool_call>{{ tool_call.name }}", ("<tool_call>", "</tool_call>")),
    "qwen3_coder": Family("<tool_call>\n<function=", ("<tool_call>", "</tool_call>")),
    "glm47": Family(
        "<arg_key>",
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    "minimax_m2": Family("<minimax:tool_call>", ("<minimax:tool_call>", "</minimax:tool_call>")),
    "mistral": Family("[TOOL_CALLS]", ("[TOOL_CALLS]", "[ARGS]")),
    "kimi_k2": Family(
        "<|tool_calls_section_begin|>",
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_end|>",
            "<|tool_call_argument_begin|>",
        ),
    ),
    "pythonic": Family("<|tool_call_start|>", ("<|tool_call_start|>", "<|tool_call_end|>")),
    "gemma4": Family("<|tool_call><tool_call|>", ("<|tool_call>", "<tool_call|>", '<|"|>')),
    "minicpm5": Family('<function name="<param name="'),
    "longcat": Family("<longcat_tool_call>", ("<longcat_tool_call>", "</longcat_tool_call>")),
    "function_gemma": Family(
        "<start_function_call>", ("<start_function_call>", "<end_function_call>", "<escape>")
    ),
    "kimi_k3": Family("", ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>")),
    "muse_spark": Family("<atem:function_calls>", ("<|message|>", "<|eom|>", "<|eot|>")),
    "none": Family("plain"),
}


@functools.cache
def tokenizer(family: str, *, thinking: bool = False, fast: bool = True) -> TokenizerWrapper:
    """The tokenizer of a family.

    Args:
        thinking: it has think markers.
        fast: mlx-lm takes its byte-level detokenizer; else the one that decodes anew each time.
    """
    chosen = FAMILIES[family]
    markers = [*chosen.markers, *(THINKING if thinking else ())]
    built = _byte_level(markers)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "chat_template": chosen.template,
        "clean_up_tokenization_spaces": False,
    }
    # What mlx-lm's model class adds for this one.
    defaults = {"chat_template_type": family} if family == "muse_spark" else None
    content = json.loads(built.to_str())
    if not fast:
        content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"]]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(content))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return load(Path(folder), defaults=defaults)


def encode(wrapper: TokenizerWrapper, text: str) -> list[int]:
    ids: list[int] = wrapper.encode(text, add_special_tokens=False)
    return ids


def encode_bytes(wrapper: TokenizerWrapper, text: str) -> list[int]:
    """One token for each byte: every character outside ASCII is split."""
    return [token for byte in text.encode() for token in _byte_tokens(wrapper)[byte : byte + 1]]


@functools.cache
def _byte_tokens(wrapper: TokenizerWrapper) -> Sequence[int]:
    # The order of the alphabet of byte-level BPE, from GPT-2.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + at) for at, byte in enumerate(others)}
    vocabulary = wrapper.get_vocab()
    return [vocabulary[letters[byte]] for byte in range(256)]


def _byte_level(markers: Sequence[str]) -> Tokenizer:
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator([_TEXT] * 20, trainer)
    built.add_tokens([AddedToken(text, special=False, normalized=False) for text in markers])
    built.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    return built
