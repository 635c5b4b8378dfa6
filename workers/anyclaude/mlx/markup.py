"""The markers of model families that mlx-lm does not know, or takes for another family.

A family is recognised by texts of its chat template. How it writes the calls between its markers is
declared in `decode/notations.py`, under the same name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Markup:
    """The markers of one family."""

    # Its name in `decode/notations.py`.
    family: str
    # Texts that all occur in its chat template.
    signs: tuple[str, ...]
    # The markers around calls. Without an end marker, the calls show themselves where they end.
    start: str
    end: str = ""
    # The markers around thinking, if mlx-lm does not know them.
    thinking: tuple[str, str] | None = None
    # Markers that say nothing in an answer, such as those around its text.
    structure: tuple[str, ...] = ()
    # If each message of an answer has a header: the markers that lead from one state to another,
    # in mlx-lm's words for states. An answer begins in the state "header".
    transitions: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    # Tokens that end an answer, also if the model's config does not name them.
    stops: tuple[str, ...] = ()


# A model that forgets the end of a message begins the next one with one of the other two.
_HARMONY_END: Final = (("<|end|>", "header"), ("<|start|>", "header"), ("<|channel|>", "header"))

MARKUPS: Final = (
    # gpt-oss. Without a recipient, the commentary channel contains words for the user.
    Markup(
        "harmony",
        ("<|channel|>analysis<|message|>", "<|start|>assistant", "<|call|>"),
        "<|channel|>commentary to=",
        "<|call|>",
        thinking=("<|channel|>analysis<|message|>", "<|end|>"),
        transitions={
            "header": [
                ("to=", "tool"),
                ("analysis<|message|>", "reasoning"),
                ("<|message|>", "normal"),
            ],
            "reasoning": _HARMONY_END,
            "normal": _HARMONY_END,
        },
        stops=("<|return|>", "<|call|>"),
    ),
    Markup(
        "solar",
        ("<|tool_calls|>", "<|tool_call:begin|>", "<|think|>"),
        "<|tool_calls|>",
        "<|calls|>",
        thinking=("<|think|>", "<|end|>"),
        transitions={
            "header": [
                ("<|tool_calls|>", "tool"),
                ("<|think|>", "reasoning"),
                ("<|content|>", "normal"),
            ],
            "reasoning": [("<|end|>", "header"), ("<|begin|>", "header")],
            "normal": [("<|end|>", "header"), ("<|begin|>", "header")],
        },
        stops=("<|calls|>",),
    ),
    Markup(
        "deepseek_dsml",
        ("｜DSML｜", "function_calls>"),
        "<｜DSML｜function_calls>",
        "</｜DSML｜function_calls>",
    ),
    Markup(
        "deepseek_dsml",
        ("｜DSML｜", "tool_calls>"),
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
    ),
    Markup(
        "deepseek_v3",
        ("<｜tool▁calls▁begin｜>",),
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
    ),
    Markup(
        "minimax_m3",
        ("]<]minimax[>[", "invoke"),
        "]<]minimax[>[<tool_call>",
        "]<]minimax[>[</tool_call>",
        thinking=("<mm:think>", "</mm:think>"),
    ),
    Markup(
        "seed_oss",
        ("<seed:tool_call>",),
        "<seed:tool_call>",
        "</seed:tool_call>",
        thinking=("<seed:think>", "</seed:think>"),
    ),
    Markup(
        "hunyuan",
        ("<tool_calls{}>", "':opensource'"),
        "<tool_calls:opensource>",
        "</tool_calls:opensource>",
        thinking=("<think:opensource>", "</think:opensource>"),
    ),
    Markup(
        "cohere",
        ("<|START_ACTION|>", "tool_name"),
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        thinking=("<|START_THINKING|>", "<|END_THINKING|>"),
        structure=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Markup(
        "apertus",
        ("<|tools_prefix|>", "<|tools_suffix|>"),
        "<|tools_prefix|>",
        "<|tools_suffix|>",
        thinking=("<|inner_prefix|>", "<|inner_suffix|>"),
    ),
    # Ministral and Magistral. Without these tokens, mlx-lm's choice for Mistral is right.
    Markup(
        "mistral",
        ("[THINK]", "[TOOL_CALLS]", "[ARGS]"),
        "[TOOL_CALLS]",
        thinking=("[THINK]", "[/THINK]"),
    ),
    # Nemotron Nano v2 begins a new message for the calls behind its words.
    Markup(
        "json_list",
        ("<TOOLCALL>", "</TOOLCALL>"),
        "<TOOLCALL>",
        "</TOOLCALL>",
        structure=("<SPECIAL_11>Assistant",),
    ),
    # Apriel. The prompt, or the model, writes the text before its thinking.
    Markup(
        "json_list",
        ("[BEGIN FINAL RESPONSE]", "<tool_calls>", "</tool_calls>"),
        "<tool_calls>",
        "</tool_calls>",
        thinking=("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),
        structure=("[END FINAL RESPONSE]",),
    ),
    # Command R and Command R+ write their calls in a code block.
    Markup("json_list", ("Action:\\n```json\\n[", "tool_name"), "Action:\n```json\n", "```"),
    Markup("json_list", ("<tool_calls>", "</tool_calls>", "name"), "<tool_calls>", "</tool_calls>"),
    Markup("json_list", ("<|tool_call|>", "JSON list of tools"), "<|tool_call|>"),
    Markup("json_list", ("<|function_call|>",), "<|function_call|>"),
    Markup("json_list", ("'function call'", "<|role_sep|>"), "function call<|role_sep|>\n"),
    Markup("functionary", ("<function=", "</function>", "ipython"), "<function=", "</function>"),
    # The marker goes before calls of built-in tools; other calls are JSON without a marker.
    Markup("llama3", ("<|start_header_id|>", '"parameters": ', "ipython"), "<|python_tag|>"),
    Markup("json_tools", ("<tools>", "<tool_call>", "</tool_call>"), "<tool_call>", "</tool_call>"),
)

# A model that writes nothing but calls, as JSON or as a Python list. It has no marker, so this one
# of Llama's stands in, which other models never write.
UNMARKED: Final = Markup("unmarked", (), "<|python_tag|>")


def markup_of(template: str, known_family: str) -> Markup | None:
    """The markup of a model with this chat template; None if mlx-lm's own choice is right.

    Args:
        known_family: the family that mlx-lm chose; empty if it chose none.
    """
    found = (one for one in MARKUPS if all(sign in template for sign in one.signs))
    markup = next(found, None)
    # mlx-lm chooses by fewer signs, so a family of our own goes first where its signs are there.
    if markup is None or (known_family and markup.family in ("json_tools", "json_list", "llama3")):
        return None
    return markup
