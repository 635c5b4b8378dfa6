"""How each family of models writes its tool calls, as data.

Every whitespace here is the one that the family's template writes when it renders a call as
history: a model is at its best where it was trained, and a call that is rendered again is then
found in the cache.
"""

from dataclasses import dataclass
from typing import Final

from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode.bare_keys import QUOTES


@dataclass(frozen=True)
class Pattern:
    """A place where a call varies without meaning anything."""

    regex: str


Parts = tuple[str | Pattern, ...]


@dataclass(frozen=True)
class JsonShape:
    """A call whose arguments are one JSON object."""

    before_name: str
    before_arguments: Parts
    after_arguments: str
    # Several calls may stand between one start and one end marker.
    section: bool = False


@dataclass(frozen=True)
class TaggedShape:
    """A call with each argument between marks of its own."""

    before_name: str
    after_name: Parts
    before_key: str
    # `{type}` becomes the argument's type.
    after_key: str
    after_value: str
    after_arguments: str
    separator: str = ""
    # Strings are written as they are, without quotes and escapes.
    plain_strings: bool = True
    section: bool = False


@dataclass(frozen=True)
class NotationShape:
    """A call whose arguments are one object of a notation like JSON.

    Keys stand bare, strings between marks and without escapes, and keys come in the order of
    their letters, as templates sort them.
    """

    before_name: str
    quote: str
    section: bool = False


Shape = JsonShape | TaggedShape | NotationShape

_HERMES: Final = JsonShape('\n{"name": "', ('", "arguments": ',), "}\n")
_MISTRAL: Final = JsonShape("", ("[ARGS]",), "")
_MISTRAL_LIST: Final = JsonShape('[{"name": "', ('", "arguments": ',), "}]")
_GLM: Final = TaggedShape("", (), "<arg_key>", "</arg_key><arg_value>", "</arg_value>", "")
_GLM_LINES: Final = TaggedShape(
    "", ("\n",), "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", ""
)
_SHAPES: Final[dict[str, Shape]] = {
    "json_tools": _HERMES,
    "kimi_k2": JsonShape(
        "<|tool_call_begin|>functions.",
        (":", Pattern("[0-9]{1,2}"), "<|tool_call_argument_begin|>"),
        "<|tool_call_end|>",
        section=True,
    ),
    "qwen3_coder": TaggedShape(
        before_name="\n<function=",
        after_name=(">\n",),
        before_key="<parameter=",
        after_key=">\n",
        after_value="\n</parameter>\n",
        after_arguments="</function>\n",
    ),
    "minimax_m2": TaggedShape(
        before_name='\n<invoke name="',
        after_name=('">\n',),
        before_key='<parameter name="',
        after_key='">',
        after_value="</parameter>\n",
        after_arguments="</invoke>\n",
        section=True,
    ),
    "longcat": TaggedShape(
        before_name="",
        after_name=("\n",),
        before_key="<longcat_arg_key>",
        after_key="</longcat_arg_key>\n<longcat_arg_value>",
        after_value="</longcat_arg_value>\n",
        after_arguments="",
    ),
    "kimi_k3": TaggedShape(
        before_name='<|open|>call tool="',
        after_name=('" index="', Pattern("[0-9]{1,2}"), '"<|sep|>'),
        before_key='<|open|>argument key="',
        after_key='" type="{type}"<|sep|>',
        after_value="<|close|>argument<|sep|>",
        after_arguments="<|close|>call<|sep|>",
        section=True,
    ),
    **{family: NotationShape("call:", quote) for family, quote in QUOTES.items()},
    "pythonic": TaggedShape(
        before_name="[",
        after_name=("(",),
        before_key="",
        after_key="=",
        after_value="",
        after_arguments=")]",
        separator=", ",
        plain_strings=False,
    ),
}


def shape_of(tokenizer: TokenizerWrapper) -> Shape | None:
    """How the model writes calls; None for a family whose form no grammar here describes.

    Those are: minicpm5 (two ways to write a string) and muse_spark (calls are routed by message
    headers).
    """
    if not tokenizer.has_tool_calling:
        return None
    family = parser_family(tokenizer)
    if family == "mistral":
        return _MISTRAL if "[ARGS]" in tokenizer.get_vocab() else _MISTRAL_LIST
    if family in ("glm47", "laguna"):
        source = str(tokenizer.chat_template)
        lines = "\\n<arg_value>" in source or "\n<arg_value>" in source
        return _GLM_LINES if lines else _GLM
    return _SHAPES.get(family)
