"""The chat templates of real models, and the facts of each model that no template contains.

Each template runs on the nearest of five real vocabularies, with the control tokens that the
model's own tokenizer has. `load` makes a tokenizer of them as the worker loads any model's.
"""

import functools
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from mlx_lm import tokenizer_utils
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from anyclaude.mlx.adapter import TokenizerWrapper, load_tokenizer_from

_THINK: Final = ("<think>", "</think>")
_MARKUP: Final = re.compile(r"</?\w+>")
# Control tokens that templates write in one piece.
_IN_TEMPLATE: Final = re.compile(r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>{}\s]{1,40}\uff5c>")


@dataclass(frozen=True)
class Family:
    """The facts of a model family that its template does not contain."""

    # A file in `templates`, without its extension.
    template: str
    # The tokens with which the model ends an answer: with a call, and without.
    ends: tuple[str, str] = ("<|im_end|>", "<|im_end|>")
    # Control tokens that are neither in the tokenizer in `tokenizers` nor in the template.
    control: tuple[str, ...] = ()
    tokenizer: str = "qwen3"
    # Whether the model writes thinking.
    thinks: bool = False
    # How its documentation writes calls and thinking: a name in `documented`. Empty for a family
    # whose calls are only taken from its template.
    calls: str = ""
    # The type in its config, where mlx-lm keeps defaults for the tokenizers of such models.
    model_type: str = ""
    # Whether it is one of the families that have to be green in every column.
    first: bool = False
    # Why something of it is red and stays so, as a sentence; empty if all is green.
    why: str = ""


_GLM: Final = (
    *("[gMASK]", "<sop>", "<tool_call>", "</tool_call>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
_MISTRAL: Final = (
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[CALL_ID]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[ARGS]", "[TOOL_CONTENT]", "[THINK]", "[/THINK]"),
)
_OLD_MISTRAL: Final = (*_MISTRAL[:2], *_MISTRAL[4:5], *_MISTRAL[6:10])
_GEMMA4: Final = (
    *("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|channel>"),
    *("<channel|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>"),
)
_MINIMAX: Final = ("]~!b[", "]~b]", "[e~[", "<minimax:tool_call>", "</minimax:tool_call>")
_MINIMAX3: Final = ("]~!b[", "]~b]", "[e~[", "]<]minimax[>[", "<mm:think>", "</mm:think>")
_NEMOTRON2: Final = ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>")
_HY3: Final = (
    *(f"<\uff5c{name}:opensource\uff5c>" for name in ("hy_eos", "hy_begin_of_sentence")),
    *(f"<\uff5c{name}:opensource\uff5c>" for name in ("hy_User", "hy_Assistant", "reasoning_mode")),
    *(
        f"<{slash}{name}:opensource>"
        for name in ("think", "tool_calls", "tool_call", "tool_responses", "tool_response")
        for slash in ("", "/")
    ),
    *("<tool_sep:opensource>", "<arg_key:opensource>", "</arg_key:opensource>"),
    *("<arg_value:opensource>", "</arg_value:opensource>"),
)
_LAGUNA: Final = ("\u3008|EOS|\u3009", "<assistant>", "</assistant>", *_GLM[2:])
_TOOL_CALL: Final = ("<tool_call>", "</tool_call>")
_GEMMA_ENDS: Final = ("<|tool_response>", "<turn|>")
_GLM_ENDS: Final = ("<|observation|>", "<|user|>")
_MISTRAL_ENDS: Final = ("</s>", "</s>")
_LAGUNA_ENDS: Final = ("</assistant>", "</assistant>")
_DEEPSEEK_ENDS: Final = ("<\uff5cend\u2581of\u2581sentence\uff5c>",) * 2
_EOT: Final = ("<|eot_id|>", "<|eot_id|>")
_GRANITE_ENDS: Final = ("<|end_of_text|>", "<|end_of_text|>")
_END: Final = ("<|end|>", "<|end|>")
_COMMAND_ENDS: Final = ("<|END_OF_TURN_TOKEN|>",) * 2
_LLAMA: Final = "llama3_1"
_DEEPSEEK: Final = "deepseek_v3"

FAMILIES: Final = (
    Family("Qwen-Qwen3-0.6B", thinks=True, calls="json_tools", first=True),
    Family("Qwen3-Coder", calls="function_tags", first=True),
    Family("Qwen3.5-4B", thinks=True, calls="function_tags", first=True),
    Family("GLM-4.6", _GLM_ENDS, _GLM, thinks=True, calls="glm_lines", first=True),
    Family("GLM-4.7-Flash", _GLM_ENDS, _GLM, thinks=True, calls="glm", first=True),
    Family(
        "openai-gpt-oss-120b",
        ("<|call|>", "<|return|>"),
        ("<|constrain|>",),
        "gptoss",
        thinks=True,
        calls="harmony",
        first=True,
    ),
    Family("MiniMax-M2", ("[e~[",) * 2, _MINIMAX, thinks=True, calls="minimax_m2", first=True),
    Family("Kimi-K2-Instruct", calls="kimi_k2", first=True),
    Family("Kimi-K2-Thinking", thinks=True, calls="kimi_k2", first=True),
    Family(
        "unsloth-mistral-Devstral-Small-2507",
        _MISTRAL_ENDS,
        _MISTRAL,
        calls="mistral",
        first=True,
    ),
    Family(
        "mistralai-Ministral-3-14B-Reasoning-2512",
        _MISTRAL_ENDS,
        _MISTRAL,
        thinks=True,
        calls="mistral",
        first=True,
    ),
    Family(
        "google-gemma-4-31B-it",
        _GEMMA_ENDS,
        _GEMMA4,
        "gemma3",
        thinks=True,
        calls="gemma4",
        first=True,
    ),
    Family("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", thinks=True, calls="function_tags", first=True),
    Family("StepFun3.5-Flash", thinks=True, calls="function_tags", first=True),
    Family(
        "deepseek-ai-DeepSeek-V3.1",
        _DEEPSEEK_ENDS,
        tokenizer=_DEEPSEEK,
        thinks=True,
        calls="deepseek_v3",
        first=True,
    ),
    Family(
        "deepseek-ai-DeepSeek-V3.2",
        _DEEPSEEK_ENDS,
        ("\uff5cDSML\uff5c",),
        _DEEPSEEK,
        thinks=True,
        calls="dsml",
        first=True,
    ),
    Family(
        "LFM2-8B-A1B",
        control=("<|tool_call_start|>", "<|tool_call_end|>"),
        calls="pythonic",
        first=True,
    ),
    Family(
        "poolside-Laguna-XS.2",
        _LAGUNA_ENDS,
        _LAGUNA,
        thinks=True,
        calls="glm_lines",
        first=True,
    ),
    Family(
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        control=_TOOL_CALL,
        tokenizer=_LLAMA,
        calls="json_tools",
        first=True,
    ),
    Family(
        "Mistral-Small-3.2-24B-Instruct-2506",
        _MISTRAL_ENDS,
        _MISTRAL,
        calls="mistral_id",
        first=True,
    ),
    # The others.
    Family(
        "Apertus-8B-Instruct",
        ("<|assistant_end|>",) * 2,
        why=(
            "the template opens an answer behind a result with a token that it leaves out "
            "in later prompts"
        ),
    ),
    Family("Apriel-1.6-15b-Thinker-fixed", _END, thinks=True, calls="apriel"),
    Family("Bielik-11B-v3.0-Instruct", calls="json_tools", thinks=True),
    Family(
        "ByteDance-Seed-OSS",
        ("<seed:eos>",) * 2,
        (
            *("<seed:bos>", "<seed:eos>", "<seed:tool_call>", "</seed:tool_call>"),
            *("<seed:think>", "</seed:think>"),
        ),
        thinks=True,
    ),
    Family("Cohere2MoE", _COMMAND_ENDS, thinks=True, calls="cohere"),
    Family(
        "CohereForAI-c4ai-command-r-plus-tool_use",
        _COMMAND_ENDS,
        why=(
            "the template writes an instruction behind the last message of each prompt "
            "and no end of a turn behind a call, so a later prompt never extends an "
            "earlier one, and the run cannot tell a call from that instruction"
        ),
    ),
    Family(
        "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        _COMMAND_ENDS,
        thinks=True,
        calls="cohere",
    ),
    Family("GigaChat3-10B-A1.8B", ("<|message_sep|>",) * 2),
    Family("GigaChat3.1-10B-A1.8B", ("<|message_sep|>",) * 2),
    Family("HuggingFaceTB-SmolLM3-3B", tokenizer=_LLAMA, thinks=True),
    Family("Kimi-K3", ("<|end_of_msg|>",) * 2, thinks=True),
    Family(
        "LFM2.5-8B-A1B",
        control=("<|tool_call_start|>", "<|tool_call_end|>"),
        thinks=True,
        calls="pythonic",
    ),
    Family(
        "LFM2.5-Instruct",
        control=("<|tool_call_start|>", "<|tool_call_end|>"),
        calls="pythonic",
    ),
    Family("MiMo-VL", calls="json_tools"),
    Family(
        "MiniMax-M1",
        ("<end_of_sentence>",) * 2,
        ("<begin_of_document>", "<beginning_of_sentence>", "<end_of_sentence>"),
    ),
    Family(
        "MiniMax-M3",
        ("[e~[",) * 2,
        _MINIMAX3,
        thinks=True,
        why=(
            "the parts of lists and objects are tags of their own, for which there is no "
            "grammar; calls are read and repaired"
        ),
    ),
    Family("NVIDIA-Nemotron-Nano-v2", ("<SPECIAL_12>",) * 2, _NEMOTRON2, thinks=True),
    Family(
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        control=_TOOL_CALL,
        tokenizer=_LLAMA,
        calls="json_tools",
    ),
    Family("Qwen-QwQ-32B", thinks=True, calls="json_tools"),
    Family("Qwen-Qwen2.5-7B-Instruct", calls="json_tools"),
    Family("Reka-Edge", ("<sep>",) * 2, ("<sep>",), thinks=True, calls="json_tools"),
    Family("Spark2.5", _DEEPSEEK_ENDS, _GLM[2:], thinks=True, calls="glm"),
    Family(
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        _DEEPSEEK_ENDS,
        tokenizer=_DEEPSEEK,
        thinks=True,
    ),
    Family(
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        _DEEPSEEK_ENDS,
        tokenizer=_DEEPSEEK,
        thinks=True,
    ),
    Family(
        "deepseek-ai-DeepSeek-V4",
        _DEEPSEEK_ENDS,
        ("\uff5cDSML\uff5c",),
        _DEEPSEEK,
        thinks=True,
    ),
    Family(
        "deepseek-ai-DeepSeek-V4-Flash-0731",
        _DEEPSEEK_ENDS,
        ("\uff5cDSML\uff5c",),
        _DEEPSEEK,
        thinks=True,
    ),
    Family(
        "fireworks-ai-llama-3-firefunction-v2",
        _EOT,
        tokenizer=_LLAMA,
        why=(
            "the template wants its tools as a text in a variable of its own, which no "
            "client of chat templates gives it"
        ),
    ),
    Family("google-gemma-2-2b-it", ("<end_of_turn>",) * 2, tokenizer="gemma3"),
    Family(
        "google-gemma-4-31B-it-interleaved",
        _GEMMA_ENDS,
        _GEMMA4,
        "gemma3",
        thinks=True,
        calls="gemma4",
    ),
    Family("ibm-granite-granite-3.3-2B-Instruct", _GRANITE_ENDS, thinks=True),
    Family("ibm-granite-granite-4.0", _GRANITE_ENDS, calls="json_tools"),
    Family("ibm-granite-granite-4.1", _GRANITE_ENDS, calls="json_tools"),
    Family(
        "inclusionai-ling-3.0-flash",
        ("<|role_end|>",) * 2,
        ("<role>", "</role>", *_GLM[2:]),
        thinks=True,
        calls="glm_lines",
    ),
    Family(
        "llama-cpp-deepseek-r1",
        _DEEPSEEK_ENDS,
        tokenizer=_DEEPSEEK,
        thinks=True,
        why=("the template prints a generator as JSON, which only llama.cpp accepts"),
    ),
    Family("llama-cpp-rwkv-world", ("</s>", "</s>"), thinks=True),
    Family("meetkai-functionary-medium-v3.1", ("<|eom_id|>", "<|eot_id|>"), tokenizer=_LLAMA),
    Family(
        "meetkai-functionary-medium-v3.2",
        _EOT,
        tokenizer=_LLAMA,
        why=(
            "a call is a message whose header is the name of the tool, without a marker, "
            "so that calls are text here"
        ),
    ),
    Family(
        "meta-llama-Llama-3.1-8B-Instruct",
        _EOT,
        tokenizer=_LLAMA,
        why=(
            "a call is JSON without a marker, so nothing shows a grammar where one "
            "begins; calls are read and repaired"
        ),
    ),
    Family(
        "meta-llama-Llama-3.2-3B-Instruct",
        _EOT,
        tokenizer=_LLAMA,
        why=(
            "a call is JSON without a marker, so nothing shows a grammar where one "
            "begins; calls are read and repaired"
        ),
    ),
    Family(
        "meta-llama-Llama-3.3-70B-Instruct",
        _EOT,
        tokenizer=_LLAMA,
        why=(
            "a call is JSON without a marker, so nothing shows a grammar where one "
            "begins; calls are read and repaired"
        ),
    ),
    Family("microsoft-Phi-3.5-mini-instruct", _END),
    Family(
        "mistralai-Mistral-Nemo-Instruct-2407",
        _MISTRAL_ENDS,
        _OLD_MISTRAL,
        why=(
            "the template writes the system prompt and the tools before the last question "
            "only and drops words beside calls"
        ),
    ),
    Family("moonshotai-Kimi-K2", calls="kimi_k2"),
    Family(
        "muse-glimmer",
        ("<|eot|>",) * 2,
        thinks=True,
        model_type="muse_spark",
    ),
    Family(
        "openbmb-MiniCPM5-1B",
        thinks=True,
        why=(
            "a text is written as it is or as CDATA, and there is no grammar for both; "
            "calls are read and repaired"
        ),
    ),
    Family("poolside-Laguna-S-2.1", _LAGUNA_ENDS, _LAGUNA, thinks=True, calls="glm"),
    Family("poolside-Laguna-XS-2.1", _LAGUNA_ENDS, _LAGUNA, thinks=True, calls="glm_lines"),
    Family("tencent-Hy3", (_HY3[0],) * 2, _HY3, thinks=True, calls="hunyuan"),
    Family("unsloth-Apriel-1.5", _END, thinks=True, calls="apriel"),
    Family("upstage-Solar-Open-100B", ("<|calls|>", "<|end|>"), thinks=True, calls="solar"),
)

_BOS: Final = {
    "qwen3": "<s>",
    "gemma3": "<bos>",
    "gptoss": "<|startoftext|>",
    "deepseek_v3": "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "llama3_1": "<|begin_of_text|>",
}


def load(
    folder: Path, family: Family, *, pieces: int | None = None, streams: bool = False
) -> TokenizerWrapper:
    """The family's template on the nearest real vocabulary, with the control tokens it needs.

    Args:
        folder: the material of `python -m tests.real.material`.
        pieces: how many pieces of the vocabulary to keep, from the first on; None for all. The
            grammars of a small vocabulary are compiled in a tenth of the time.
        streams: whether answers will be read, for which a detokenizer is made; that of a whole
            vocabulary takes half a second.
    """
    template = (folder / "templates" / f"{family.template}.jinja").read_text()
    base = _base(folder / "tokenizers" / family.tokenizer / "tokenizer.json", pieces)
    bos = _BOS[family.tokenizer]
    special = [bos, *family.ends, *family.control, *_IN_TEMPLATE.findall(template)]
    markup = _THINK if family.thinks and "<think>" in template else ()
    built = _extended(base, template, special, markup)
    return _wrapped(built, template, bos, family, streams=streams)


@functools.cache
def _base(path: Path, pieces: int | None) -> Tokenizer:
    if pieces is None:
        return Tokenizer.from_file(str(path))
    content = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    # Single characters, which some vocabularies have at the end, are needed for any text.
    found = sorted((n, text) for text, n in model["vocab"].items() if n < pieces or len(text) == 1)
    kept = {text: number for number, (_, text) in enumerate(found)}
    merges = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    model["merges"] = [[a, b] for a, b in merges if a in kept and b in kept and a + b in kept]
    model["vocab"] = kept
    # Other added tokens follow the vocabulary.
    for number, token in enumerate(content["added_tokens"], len(kept)):
        token["id"] = kept.get(token["content"], number)
    return Tokenizer.from_str(json.dumps(content))


def _extended(
    base: Tokenizer, template: str, special: Sequence[str], markup: Sequence[str]
) -> Tokenizer:
    """A tokenizer that shares the vocabulary of `base`, with the added tokens of the family."""
    built = Tokenizer(base.model)
    if base.normalizer is not None:
        built.normalizer = base.normalizer
    if base.pre_tokenizer is not None:
        built.pre_tokenizer = base.pre_tokenizer
    built.decoder = base.decoder
    added = sorted(base.get_added_tokens_decoder().items())
    built.add_tokens([token for _, token in added if _belongs(token, template)])
    built.add_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    built.add_tokens([AddedToken(text, special=False, normalized=False) for text in markup])
    return built


def _belongs(token: AddedToken, template: str) -> bool:
    """Whether a token of the nearest vocabulary is one of the family's own too."""
    return token.special or not _MARKUP.fullmatch(token.content) or token.content in template


def _wrapped(
    built: Tokenizer, template: str, bos: str, family: Family, *, streams: bool
) -> TokenizerWrapper:
    """What the worker loads for a model folder with this tokenizer and template.

    Args:
        streams: whether the detokenizer has to be the one that mlx-lm chooses for the tokenizer.
    """
    make: Callable[..., Any] = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=Tokenizer(models.BPE()),
        bos_token=bos,
        eos_token=family.ends[1],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    # The constructor would copy the vocabulary, which takes a second.
    fast._tokenizer = built
    with tempfile.TemporaryDirectory() as name:
        decoder = json.loads(built.decoder.__getstate__()) if streams else None
        (Path(name) / "tokenizer.json").write_text(json.dumps({"decoder": decoder}))
        (Path(name) / "config.json").write_text(json.dumps({"model_type": family.model_type}))
        with mock.patch.object(tokenizer_utils, "AutoTokenizer") as library:
            library.from_pretrained.return_value = fast
            ends = [built.token_to_id(end) for end in set(family.ends)]
            return load_tokenizer_from(Path(name), {"eos_token_id": ends})
