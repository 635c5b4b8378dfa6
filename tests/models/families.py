"""One small tokenizer and two example calls for each family of models.

The tokenizers are real ones, loaded as any model's is. The vocabulary is the 256 bytes, so that a
character outside ASCII takes several tokens; some merges, so that tokens cross the borders of
markers; and the family's markers as added tokens.
"""

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from anyclaude.mlx.adapter import with_markup
from anyclaude.mlx.decode import notations

_TEXT = 'Hello world, a>\n<b {"name": "Bash", "arguments": {"command": "ls -la"}}\n'
THINKING = ("<think>", "</think>")


@dataclass(frozen=True)
class Family:
    """The parts of a model folder by which mlx-lm chooses a parser, and calls in its notation."""

    # A piece of the chat template.
    template: str
    # Markers that are tokens of their own.
    markers: tuple[str, ...] = ()
    # Two calls as the family writes them: Bash with command "ls" and timeout 5, then Status.
    calls: str = ""


FAMILIES = {
    "json_tools": Family(
        "<tool_call>{{ tool_call.name }}",
        ("<tool_call>", "</tool_call>"),
        '<tool_call>\n{"name": "Bash", "arguments": {"command": "ls", "timeout": 5}}\n'
        '</tool_call>\n<tool_call>\n{"name": "Status", "arguments": {}}\n</tool_call>',
    ),
    "qwen3_coder": Family(
        "<tool_call>\n<function=",
        ("<tool_call>", "</tool_call>"),
        "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n"
        "<parameter=timeout>\n5\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=Status>\n</function>\n</tool_call>",
    ),
    "glm47": Family(
        "<arg_key>",
        ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        "<tool_call>Bash\n<arg_key>command</arg_key>\n<arg_value>ls</arg_value>\n"
        "<arg_key>timeout</arg_key>\n<arg_value>5</arg_value>\n</tool_call>\n"
        "<tool_call>Status\n</tool_call>",
    ),
    "minimax_m2": Family(
        "<minimax:tool_call>",
        ("<minimax:tool_call>", "</minimax:tool_call>"),
        '<minimax:tool_call>\n<invoke name="Bash">\n<parameter name="command">ls'
        '</parameter>\n<parameter name="timeout">5</parameter>\n</invoke>\n'
        '<invoke name="Status">\n</invoke>\n</minimax:tool_call>',
    ),
    "mistral": Family(
        "[TOOL_CALLS]",
        ("[TOOL_CALLS]", "[ARGS]"),
        '[TOOL_CALLS]Bash[ARGS]{"command": "ls", "timeout": 5}[TOOL_CALLS]Status[ARGS]{}',
    ),
    "kimi_k2": Family(
        "<|tool_calls_section_begin|>",
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_end|>",
            "<|tool_call_argument_begin|>",
        ),
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.Bash:0"
        '<|tool_call_argument_begin|>{"command": "ls", "timeout": 5}<|tool_call_end|>'
        "<|tool_call_begin|>functions.Status:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
    ),
    "pythonic": Family(
        "<|tool_call_start|>",
        ("<|tool_call_start|>", "<|tool_call_end|>"),
        '<|tool_call_start|>[Bash(command="ls", timeout=5), Status()]<|tool_call_end|>',
    ),
    "gemma4": Family(
        "<|tool_call><tool_call|>",
        ("<|tool_call>", "<tool_call|>", '<|"|>'),
        '<|tool_call>call:Bash{command:<|"|>ls<|"|>,timeout:5}<tool_call|>'
        "<|tool_call>call:Status{}<tool_call|>",
    ),
    "minicpm5": Family(
        '<function name="<param name="',
        (),
        '<function name="Bash"><param name="command">ls</param><param name="timeout">5'
        '</param></function>\n<function name="Status"></function>',
    ),
    "longcat": Family(
        "<longcat_tool_call>",
        ("<longcat_tool_call>", "</longcat_tool_call>"),
        "<longcat_tool_call>Bash\n<longcat_arg_key>command</longcat_arg_key>\n"
        "<longcat_arg_value>ls</longcat_arg_value>\n<longcat_arg_key>timeout</longcat_arg_key>\n"
        "<longcat_arg_value>5</longcat_arg_value>\n</longcat_tool_call>\n"
        '<longcat_tool_call>{"name": "Status", "arguments": {}}</longcat_tool_call>',
    ),
    "function_gemma": Family(
        "<start_function_call>",
        ("<start_function_call>", "<end_function_call>", "<escape>"),
        "<start_function_call>call:Bash{command:<escape>ls<escape>,timeout:5}"
        "<end_function_call><start_function_call>call:Status{}<end_function_call>",
    ),
    "kimi_k3": Family(
        "",
        ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
        '<|open|>tools<|sep|><|open|>call tool="Bash" index="1"<|sep|><|open|>argument '
        'key="command" type="string"<|sep|>ls<|close|>argument<|sep|><|open|>argument '
        'key="timeout" type="number"<|sep|>5<|close|>argument<|sep|><|close|>call<|sep|>'
        '<|open|>call tool="Status" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    ),
    "muse_spark": Family(
        "<atem:function_calls>",
        ("<|message|>", "<|eom|>", "<|eot|>"),
        'to=Bash<|message|><atem:function_calls>\n<atem:invoke name="Bash">\n'
        '<atem:parameter name="command">ls</atem:parameter>\n<atem:parameter name="timeout">5'
        '</atem:parameter>\n</atem:invoke>\n<atem:invoke name="Status">\n</atem:invoke>\n'
        "</atem:function_calls>",
    ),
    # The families below are recognised by `anyclaude/mlx/markup.py`.
    "harmony": Family(
        "<|start|>assistant<|channel|>analysis<|message|><|call|>",
        (
            *("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"),
            *("<|end|>", "<|call|>", "<|return|>"),
        ),
        "<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>"
        '{"command": "ls", "timeout": 5}<|call|><|start|>assistant to=functions.Status'
        "<|channel|>commentary json<|message|>{}<|call|>",
    ),
    "solar": Family(
        "<|tool_calls|><|tool_call:begin|><|think|>",
        (
            *("<|begin|>", "<|end|>", "<|think|>", "<|content|>", "<|tool_calls|>", "<|calls|>"),
            *("<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>"),
            "<|tool_call:end|>",
        ),
        "<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>Bash<|tool_call:args|>"
        '{"command": "ls", "timeout": 5}<|tool_call:end|><|tool_call:begin|>a2<|tool_call:name|>'
        "Status<|tool_call:args|>{}<|tool_call:end|><|calls|>",
    ),
    "deepseek_v3": Family(
        "<｜tool▁calls▁begin｜>",
        (
            *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"),
            *("<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
        ),
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>Bash<｜tool▁sep｜>"
        '{"command": "ls", "timeout": 5}<｜tool▁call▁end｜><｜tool▁call▁begin｜>Status'
        "<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek_dsml": Family(
        "<｜DSML｜function_calls>",
        ("｜DSML｜",),
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="Bash">\n<｜DSML｜parameter name="command"'
        ' string="true">ls</｜DSML｜parameter>\n<｜DSML｜parameter name="timeout" string="false">5'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
        '<｜DSML｜invoke name="Status">\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
    ),
    "minimax_m3": Family(
        "]<]minimax[>[<invoke",
        ("]<]minimax[>[", "<mm:think>", "</mm:think>"),
        ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="Bash">]<]minimax[>[<command>ls'
        "]<]minimax[>[</command>]<]minimax[>[<timeout>5]<]minimax[>[</timeout>]<]minimax[>["
        '</invoke>\n]<]minimax[>[<invoke name="Status">]<]minimax[>[</invoke>\n]<]minimax[>['
        "</tool_call>",
    ),
    "seed_oss": Family(
        "<seed:tool_call>",
        ("<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>"),
        "<seed:tool_call>\n<function=Bash>\n<parameter=command>ls</parameter>\n"
        "<parameter=timeout>5</parameter>\n</function>\n</seed:tool_call>\n"
        "<seed:tool_call>\n<function=Status>\n</function>\n</seed:tool_call>",
    ),
    "hunyuan": Family(
        "<tool_calls{}>':opensource'",
        (
            *("<tool_calls:opensource>", "</tool_calls:opensource>", "<tool_call:opensource>"),
            *("</tool_call:opensource>", "<tool_sep:opensource>", "<arg_key:opensource>"),
            *("</arg_key:opensource>", "<arg_value:opensource>", "</arg_value:opensource>"),
            *("<think:opensource>", "</think:opensource>"),
        ),
        "<tool_calls:opensource>\n<tool_call:opensource>Bash<tool_sep:opensource>\n"
        "<arg_key:opensource>command</arg_key:opensource>\n<arg_value:opensource>ls"
        "</arg_value:opensource>\n<arg_key:opensource>timeout</arg_key:opensource>\n"
        "<arg_value:opensource>5</arg_value:opensource>\n</tool_call:opensource>\n"
        "<tool_call:opensource>Status<tool_sep:opensource>\n</tool_call:opensource>\n"
        "</tool_calls:opensource>",
    ),
    "cohere": Family(
        "<|START_ACTION|>tool_name",
        (
            *("<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>"),
            *("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "Bash", "parameters": '
        '{"command": "ls", "timeout": 5}},\n    {"tool_call_id": "1", "tool_name": "Status", '
        '"parameters": {}}\n]<|END_ACTION|>',
    ),
    "apertus": Family(
        "<|tools_prefix|><|tools_suffix|>",
        ("<|tools_prefix|>", "<|tools_suffix|>", "<|inner_prefix|>", "<|inner_suffix|>"),
        '<|tools_prefix|>[{"Bash": {"command": "ls", "timeout": 5}}, {"Status": {}}]'
        "<|tools_suffix|>",
    ),
    "json_list": Family(
        "<TOOLCALL></TOOLCALL>",
        (),
        '<TOOLCALL>[{"name": "Bash", "arguments": {"command": "ls", "timeout": 5}}, '
        '{"name": "Status", "arguments": {}}]</TOOLCALL>',
    ),
    "functionary": Family(
        "<function=</function>ipython",
        (),
        '<function=Bash>{"command": "ls", "timeout": 5}</function><function=Status>{}</function>',
    ),
    "llama3": Family(
        '<|start_header_id|>ipython"parameters": ',
        ("<|start_header_id|>", "<|python_tag|>"),
        '{"name": "Bash", "parameters": {"command": "ls", "timeout": 5}}'
        ' {"name": "Status", "parameters": {}}',
    ),
    # Its template offers no tools.
    "none": Family("plain"),
}
CALLS = {name: family.calls for name, family in FAMILIES.items() if family.calls}
# The families whose calls a grammar can constrain.
CONSTRAINED = [name for name in CALLS if notations.FAMILIES[name].notation]


@functools.cache
def tokenizer(family: str, *, thinking: bool = False, fast: bool = True) -> TokenizerWrapper:
    """The tokenizer of a family.

    Args:
        thinking: whether it has the markers of thinking.
        fast: whether mlx-lm chooses its byte-level detokenizer, or the one that decodes the whole
            answer at each token.
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
    # mlx-lm's model class adds this for the family.
    defaults = {"chat_template_type": family} if family == "muse_spark" else None
    content = json.loads(built.to_str())
    if not fast:
        content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"]]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(content))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return with_markup(load(Path(folder), defaults=defaults))


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


def tagged(family: str, **arguments: str) -> str:
    """A call of Bash in the notation of a family that writes tags."""
    if family == "qwen3_coder":
        body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in arguments.items())
        return f"<tool_call>\n<function=Bash>\n{body}</function>\n</tool_call>"
    if family == "glm47":
        body = "".join(
            f"<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>\n" for k, v in arguments.items()
        )
        return f"<tool_call>Bash\n{body}</tool_call>"
    body = "".join(f'<parameter name="{k}">{v}</parameter>\n' for k, v in arguments.items())
    return f'<minimax:tool_call>\n<invoke name="Bash">\n{body}</invoke>\n</minimax:tool_call>'


def json_call(arguments: Any, name: str = "Bash") -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
