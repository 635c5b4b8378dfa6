"""Small real tokenizers, built at import, with the added tokens of each template."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from anyclaude.mlx.adapter import with_markup
from tests.models.templates import TEMPLATES

BOS: Final = "<s>"
EOS: Final = "</s>"
_MISTRAL: Final = (
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
_SPECIAL: Final = {
    "bare": (),
    "chatml": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "gemma2": ("<start_of_turn>", "<end_of_turn>"),
    "glm": ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "gpt_oss": (*("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>"),),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma4": (
        *("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>"),
        *("<|channel>", "<channel|>", "<|tool_response>", "<tool_response|>"),
    ),
    "mistral": _MISTRAL,
    "mistral_small": _MISTRAL,
}
_MARKUP: Final = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
_THINKING: Final = ("<think>", "</think>")
_THINKERS: Final = frozenset({"chatml", "glm", "qwen3", "qwen3_5"})

_CORPUS: Final = (
    "The quick brown fox reads the file and runs the tests, then answers the user's question.",
    '{"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}',
    "def render(messages):\n    return '\\n'.join(message['content'] for message in messages)\n",
    "<system-reminder>\nToday is Monday. Tools: Bash, Read, Edit.\n</system-reminder>\n\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. 素早い茶色の狐。🦊\n\n",
)

Style = Literal["byte_level", "metaspace"]


@functools.cache
def tokenizer(family: str, style: Style = "byte_level") -> TokenizerWrapper:
    """A tokenizer with the family's template and control tokens.

    Args:
        style: `metaspace` puts a space before the first word of a text, as older models do.
    """
    built = byte_level() if style == "byte_level" else _metaspace()
    return wrap(built, TEMPLATES[family], special_tokens(family), markup_tokens(family))


def wrap(
    built: Tokenizer, template: str, special: Sequence[str], markup: Sequence[str] = ()
) -> TokenizerWrapper:
    """A tokenizer of the `tokenizers` library in the form that mlx-lm returns."""
    built.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    built.add_tokens([AddedToken(text, special=False, normalized=False) for text in markup])
    make: Callable[..., Any] = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=built,
        bos_token=BOS,
        eos_token=EOS,
        unk_token="<unk>" if built.token_to_id("<unk>") is not None else None,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    return with_markup(TokenizerWrapper(fast))


def special_tokens(family: str) -> tuple[str, ...]:
    return (BOS, EOS, *_SPECIAL.get(family, _SPECIAL["chatml"]))


def markup_tokens(family: str) -> tuple[str, ...]:
    return _MARKUP + _THINKING * (family in _THINKERS)


def control_texts(family: str) -> tuple[str, ...]:
    return special_tokens(family) + markup_tokens(family)


def byte_level() -> Tokenizer:
    """Byte-level BPE like Qwen's: no text is unknown, and no space is added."""
    built = Tokenizer(models.BPE())
    built.normalizer = normalizers.NFC()
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(_CORPUS * 4, trainer)
    return built


def _metaspace() -> Tokenizer:
    built = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    built.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>", *bytes_], show_progress=False
    )
    built.train_from_iterator(_CORPUS * 4, trainer)
    # The trainer makes added tokens of the bytes, where real models have plain ones.
    content = json.loads(built.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(content))
