"""How each family of models writes tool calls. Every family is declared here, as data.

Every part that handles calls uses a declaration: the grammar that constrains a call to its tool's
schema (`constraint/rules.py`), the reader that streams a constrained call (`constraint/reader.py`),
the reader that repairs a call which no grammar constrained (`calls.py`), and the search for the
markers at which a call begins and ends (`markers.py`).

CONTRIBUTING.md, "Add a model family", lists the steps.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode.marked import NAME, MarkedDialect
from anyclaude.mlx.decode.notation import (
    BareKeyNotation,
    JsonNotation,
    Notation,
    Pattern,
    Perhaps,
    Section,
    TaggedNotation,
)
from anyclaude.mlx.decode.tagged import QUOTED_NAME, TagDialect
from anyclaude.mlx.decode.values import nested_value, without_cdata


@dataclass(frozen=True)
class Family:
    """What is known of one family's calls."""

    # None if no grammar here describes the calls: they are read and repaired, but not constrained.
    notation: Notation | None = None
    # The notations of those models of the family whose tokenizer the first function accepts.
    variants: Sequence[tuple[Callable[[TokenizerWrapper], bool], Notation]] = ()
    # Reads calls of this family that no grammar constrained, malformed ones too.
    dialect: TagDialect | MarkedDialect | None = None
    # Whether a call in this dialect is recognised in other families' answers too.
    shared: bool = False
    # mlx-lm's parser loses or changes values in texts that contain this ("" means in any text), so
    # only our readers read those.
    parser_fails_on: str | None = None
    # Each begins a call if the model omits the start marker; `{name}` stands for the tool's name.
    unmarked_openings: tuple[str, ...] = ()
    # Whether such a call is the whole answer, so that the same text behind words is only quoted.
    unmarked_first: bool = False


def _has_args_marker(tokenizer: TokenizerWrapper) -> bool:
    return "[ARGS]" in tokenizer.get_vocab()


def _writes_call_ids(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template writes the id of a call between its name and its arguments."""
    source = str(tokenizer.chat_template)
    return "[CALL_ID]" in source and _has_args_marker(tokenizer)


def _writes_ids_in_list(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template writes a list of calls, each with its id behind the arguments."""
    source = str(tokenizer.chat_template)
    return re.search(r"""[\\]?["']id[\\]?["']: [\\]?["']""", source) is not None


def _writes_fences(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template writes arguments in a code fence."""
    return "```json" in str(tokenizer.chat_template)


def _writes_calls_on_lines(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template starts a new line for each call between the markers (MiniMax-M1)."""
    return "<tool_calls>\\n" in str(tokenizer.chat_template)


def _starts_each_call(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template writes the start marker before each call (GigaChat)."""
    return tokenizer.tool_call_start in ("<|function_call|>", "function call<|role_sep|>\n")


def _writes_lines(tokenizer: TokenizerWrapper) -> bool:
    """Whether the template starts a new line for each tag."""
    source = str(tokenizer.chat_template)
    return "\\n<arg_value>" in source or "\n<arg_value>" in source


_GLM: Final = TaggedNotation("", (), "<arg_key>", "</arg_key><arg_value>", "</arg_value>", "")
_GLM_LINES: Final = TaggedNotation(
    "", ("\n",), "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", ""
)
_GLM_VARIANTS: Final = ((_writes_lines, _GLM_LINES),)

# Mistral's templates write ids of nine letters and digits.
_ID: Final = Pattern("[a-zA-Z0-9]{9}")
# The type of a message's content, in gpt-oss's headers.
CONTENT_TYPE: Final = (Perhaps(" "), Perhaps("<|constrain|>"), Perhaps("json"))
_LIST: Final = Section("[", ", ", "]")
_JSON_CALL: Final = ('{"name": "', ('", "arguments": ',), ("}",))

_GLM_TAGS: Final = TagDialect.of(
    opener="<arg_key>",
    call=r"\s*(?P<name>[\w.:/-]+)\s*(?P<body><arg_key>.*)\Z",
    key=r"<arg_key>(?P<key>.*?)</arg_key>(?:\\n|\s)*<arg_value>",
    closer="</arg_value>",
)

# The line ends around a value belong to the tags.
_FUNCTION_TAGS: Final = TagDialect.of(
    opener="<parameter=",
    call=r"\s*<function=(?P<name>[^\s<>]+)>?(?P<body>.*?)"
    r"(?:</function>\s*(?=<function=|\Z)|\Z)",
    key=r"<parameter=(?P<key>[^\s<>]+)>?\n?",
    closer="\n?</parameter>",
    begin="<function=",
    end="</function>",
)

# Calls are the whole answer, as JSON or as a Python list.
_UNMARKED: Final = Family(
    unmarked_openings=(
        '{"name": "{name}"',
        '{"name":"{name}"',
        '{"type": "function", "name": "{name}"',
        '{"type": "function", "function": {"name": "{name}"',
        '[{"name": "{name}"',
        '[{"name":"{name}"',
        "[{name}(",
    ),
    unmarked_first=True,
)

FAMILIES: Final[dict[str, Family]] = {
    # Hermes, Qwen and many others.
    "json_tools": Family(JsonNotation('\n{"name": "', ('", "arguments": ',), ("}\n",))),
    "mistral": Family(
        JsonNotation(*_JSON_CALL, _LIST),
        variants=[
            (_writes_call_ids, JsonNotation("", ("[CALL_ID]", _ID, "[ARGS]"), ())),
            (_has_args_marker, JsonNotation("", ("[ARGS]",), ())),
            (
                _writes_ids_in_list,
                JsonNotation('{"name": "', ('", "arguments": ',), (', "id": "', _ID, '"}'), _LIST),
            ),
        ],
        dialect=MarkedDialect.of(
            rf"(?:\[TOOL_CALLS\]\s*)?{NAME}\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]",
            start="[TOOL_CALLS]",
        ),
        # It searches for the next call, past one that it cannot read.
        parser_fails_on="[ARGS]",
    ),
    "kimi_k2": Family(
        JsonNotation(
            "<|tool_call_begin|>functions.",
            (":", Pattern("[0-9]{1,2}"), "<|tool_call_argument_begin|>"),
            ("<|tool_call_end|>",),
            section=Section(),
        ),
        dialect=MarkedDialect.of(
            rf"(?:<\|tool_call_begin\|>)?\s*(?:functions\.)?{NAME}(?::\d+)?\s*"
            r"<\|tool_call_argument_begin\|>",
            r"(?:<\|tool_call_end\|>)?",
        ),
    ),
    "qwen3_coder": Family(
        TaggedNotation(
            before_name="\n<function=",
            after_name=(">\n",),
            before_key="<parameter=",
            after_key=">\n",
            after_value="\n</parameter>\n",
            after_arguments="</function>\n",
        ),
        dialect=_FUNCTION_TAGS,
        shared=True,
        parser_fails_on="",
        unmarked_openings=("<function={name}>",),
    ),
    # GLM 4.5 and later.
    "glm47": Family(_GLM, _GLM_VARIANTS, dialect=_GLM_TAGS, shared=True, parser_fails_on="<arg_"),
    "laguna": Family(_GLM, _GLM_VARIANTS, dialect=_GLM_TAGS, shared=True),
    "longcat": Family(
        TaggedNotation(
            before_name="",
            after_name=("\n",),
            before_key="<longcat_arg_key>",
            after_key="</longcat_arg_key>\n<longcat_arg_value>",
            after_value="</longcat_arg_value>\n",
            after_arguments="",
        ),
        shared=True,
        dialect=TagDialect.of(
            opener="<longcat_arg_key>",
            call=r"\s*(?P<name>[\w.:/-]+)\s*(?P<body><longcat_arg_key>.*)\Z",
            key=r"<longcat_arg_key>(?P<key>.*?)</longcat_arg_key>(?:\\n|\s)*<longcat_arg_value>",
            closer="</longcat_arg_value>",
        ),
        parser_fails_on="",
    ),
    "minimax_m2": Family(
        TaggedNotation(
            before_name='<invoke name="',
            after_name=('">\n',),
            before_key='<parameter name="',
            after_key='">',
            after_value="</parameter>\n",
            after_arguments="</invoke>\n",
            section=Section(before_first="\n"),
        ),
        shared=True,
        dialect=TagDialect.of(
            opener="<parameter name=",
            call=rf"\s*<invoke name={QUOTED_NAME}>(?P<body>.*?)"
            r"(?:</invoke>\s*(?=<invoke name=|\Z)|\Z)",
            key=r"""<parameter name=["']?(?P<key>[^"'<>]+?)["']?>""",
            closer="</parameter>",
            begin="<invoke name=",
            end="</invoke>",
        ),
        parser_fails_on="",
    ),
    "kimi_k3": Family(
        TaggedNotation(
            before_name='<|open|>call tool="',
            after_name=('" index="', Pattern("[0-9]{1,2}"), '"<|sep|>'),
            before_key='<|open|>argument key="',
            after_key='" type="{type}"<|sep|>',
            after_value="<|close|>argument<|sep|>",
            after_arguments="<|close|>call<|sep|>",
            section=Section(),
        ),
        dialect=TagDialect.of(
            opener="<|open|>argument",
            call=r"\s*<\|open\|>call tool=" + QUOTED_NAME + r"(?:\s+\w+=\S*?)*<\|sep\|>"
            r"(?P<body>.*?)(?:<\|close\|>call<\|sep\|>\s*(?=<\|open\|>call|\Z)|\Z)",
            key=r"""<\|open\|>argument key="(?P<key>[^"]+)"(?:\s+type="(?P<type>\w+)")?<\|sep\|>""",
            closer=r"<\|close\|>argument<\|sep\|>",
            begin="<|open|>call",
            end="<|close|>call<|sep|>",
        ),
    ),
    # mlx-lm's parsers end a call at a brace inside a string, or do not read keys with a hyphen.
    "gemma4": Family(BareKeyNotation("call:", '<|"|>'), parser_fails_on=""),
    "function_gemma": Family(BareKeyNotation("call:", "<escape>"), parser_fails_on=""),
    "pythonic": Family(
        TaggedNotation(
            before_name="",
            after_name=("(",),
            before_key="",
            after_key="=",
            after_value="",
            after_arguments=")",
            separator=", ",
            plain_strings=False,
            section=Section("[", ", ", "]"),
        ),
        parser_fails_on="",
    ),
    # There are two ways to write a string, and no grammar for both.
    "minicpm5": Family(
        dialect=TagDialect.of(
            opener="<param name=",
            call=rf"\s*(?:<function\s+name\s*=\s*)?{QUOTED_NAME}>(?P<body>.*?)"
            r"(?:</function>\s*(?=<function\s|\Z)|\Z)",
            key=r"""<param\s+name\s*=\s*["']?(?P<key>[^"'<>]+?)["']?\s*>""",
            closer="</param>",
            begin="<function name=",
            end="</function>",
            value=without_cdata,
        ),
        parser_fails_on="",
    ),
    # Message headers say which tool a call is for.
    "muse_spark": Family(
        TaggedNotation(
            before_name='<atem:invoke name="',
            after_name=('">\n',),
            before_key='<atem:parameter name="',
            after_key='">',
            after_value="</atem:parameter>\n",
            after_arguments="</atem:invoke>\n",
            section=Section(before_first="\n"),
        ),
        dialect=TagDialect.of(
            opener="<atem:parameter",
            call=r"""\s*<atem:invoke\b[^>]*?\bname="(?P<name>[^"]+)"[^>]*>(?P<body>.*?)"""
            r"(?:</atem:invoke>\s*(?=<atem:invoke|\Z)|\Z)",
            key=r"""<atem:parameter\b[^>]*?\bname="(?P<key>[^"]+)"[^>]*>""",
            closer="</atem:parameter>",
            begin="<atem:invoke",
            end="</atem:invoke>",
        ),
        parser_fails_on="",
    ),
    # The families below are recognised by `mlx/markup.py`.
    #
    # gpt-oss writes the recipient before or behind the channel, and the type of the content in
    # several ways.
    "harmony": Family(
        JsonNotation(
            "functions.",
            (Perhaps("<|channel|>commentary"), *CONTENT_TYPE, "<|message|>"),
            (),
            compact=True,
            is_message=True,
        ),
        dialect=MarkedDialect.of(
            r"(?:functions\.)?(?P<name>[\w-]+)[^{}\n]{0,100}?<\|message\|>", r"(?:<\|call\|>)?"
        ),
    ),
    "solar": Family(
        JsonNotation(
            "<|tool_call:name|>",
            ("<|tool_call:args|>",),
            ("<|tool_call:end|>",),
            Section(),
            before_all=("<|tool_call:begin|>", Pattern("[a-zA-Z0-9_-]{1,40}")),
        ),
        dialect=MarkedDialect.of(
            rf"<\|tool_call:begin\|>\s*[\w-]*\s*<\|tool_call:name\|>\s*{NAME}\s*"
            r"<\|tool_call:args\|>",
            r"(?:<\|tool_call:end\|>)?",
        ),
    ),
    # R1 wrote a type before the name, and the arguments in a code fence.
    "deepseek_v3": Family(
        JsonNotation(
            "<｜tool▁call▁begin｜>",
            ("<｜tool▁sep｜>",),
            ("<｜tool▁call▁end｜>",),
            section=Section(),
        ),
        variants=[
            (
                _writes_fences,
                JsonNotation(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                    ("\n```json\n",),
                    ("\n```<｜tool▁call▁end｜>",),
                    section=Section("", "\n", ""),
                ),
            )
        ],
        dialect=MarkedDialect.of(
            rf"(?:<｜tool▁call▁begin｜>)?\s*(?:function<｜tool▁sep｜>)?{NAME}\s*"
            r"(?:<｜tool▁sep｜>|```json)(?:\s*```json)?",
            r"(?:```)?\s*(?:<｜tool▁call▁end｜>)?",
        ),
    ),
    "deepseek_dsml": Family(
        TaggedNotation(
            before_name='<｜DSML｜invoke name="',
            after_name=('">\n',),
            before_key='<｜DSML｜parameter name="',
            after_key='" string="{string}">',
            after_value="</｜DSML｜parameter>\n",
            after_arguments="</｜DSML｜invoke>\n",
            ends_at_first_tag=True,
            section=Section(before_first="\n"),
        ),
        dialect=TagDialect.of(
            opener="<｜DSML｜parameter",
            call=rf"\s*<｜DSML｜invoke name={QUOTED_NAME}>(?P<body>.*?)"
            r"(?:</｜DSML｜invoke>\s*(?=<｜DSML｜invoke|\Z)|\Z)",
            key=r"""<｜DSML｜parameter name=["']?(?P<key>[^"'<>]+?)["']?"""
            r"""(?:\s+string=["'](?P<type>true|false)["'])?>""",
            closer="</｜DSML｜parameter>",
            begin="<｜DSML｜invoke",
            end="</｜DSML｜invoke>",
        ),
    ),
    "minimax_m3": Family(
        dialect=TagDialect.of(
            opener="]<]minimax[>[<",
            call=rf"\s*\]<\]minimax\[>\[<invoke name={QUOTED_NAME}>(?P<body>.*?)"
            r"(?:\]<\]minimax\[>\[</invoke>\s*(?=\]<\]minimax\[>\[<invoke|\Z)|\Z)",
            key=r"\]<\]minimax\[>\[<(?P<key>[^<>/]+)>",
            closer=r"\]<\]minimax\[>\[</(?P=key)>",
            begin="]<]minimax[>[<invoke",
            end="]<]minimax[>[</invoke>",
            value=nested_value,
        )
    ),
    "seed_oss": Family(
        TaggedNotation(
            before_name="\n<function=",
            after_name=(">\n",),
            before_key="<parameter=",
            after_key=">",
            after_value="</parameter>\n",
            after_arguments="</function>\n",
        ),
        dialect=_FUNCTION_TAGS,
    ),
    "hunyuan": Family(
        TaggedNotation(
            before_name="<tool_call:opensource>",
            after_name=("<tool_sep:opensource>\n",),
            before_key="<arg_key:opensource>",
            after_key="</arg_key:opensource>\n<arg_value:opensource>",
            after_value="</arg_value:opensource>\n",
            after_arguments="</tool_call:opensource>\n",
            section=Section(before_first="\n"),
        ),
        dialect=TagDialect.of(
            opener="<arg_key:opensource>",
            call=r"\s*<tool_call:opensource>\s*(?P<name>[\w.:/-]+)\s*<tool_sep:opensource>"
            r"(?P<body>.*?)"
            r"(?:</tool_call:opensource>\s*(?=<tool_call:opensource>|\Z)|\Z)",
            key=r"<arg_key:opensource>(?P<key>.*?)</arg_key:opensource>\s*<arg_value:opensource>",
            closer="</arg_value:opensource>",
            begin="<tool_call:opensource>",
            end="</tool_call:opensource>",
        ),
    ),
    "cohere": Family(
        JsonNotation(
            '", "tool_name": "',
            ('", "parameters": ',),
            ("}",),
            Section("[\n    ", ",\n    ", "\n]"),
            before_all=('{"tool_call_id": "', Pattern("[0-9]{1,3}")),
        )
    ),
    "apertus": Family(
        JsonNotation('{"', ('": ',), ("}",), _LIST),
        dialect=MarkedDialect.of(rf'[\[,]?\s*\{{\s*"{NAME}"\s*:', r"\}?\s*\]?"),
    ),
    # One JSON object for each call, in a list or one behind another.
    "json_list": Family(
        JsonNotation(*_JSON_CALL, _LIST),
        variants=[
            (_writes_calls_on_lines, JsonNotation(*_JSON_CALL, Section("\n", "\n", "\n"))),
            (_starts_each_call, JsonNotation(*_JSON_CALL)),
        ],
    ),
    "functionary": Family(
        JsonNotation("", (">",), ()), dialect=MarkedDialect.of(rf"(?:<function=)?{NAME}>")
    ),
    "llama3": _UNMARKED,
    "unmarked": _UNMARKED,
}


def family_of(tokenizer: TokenizerWrapper) -> Family:
    """The family of a model; one without a notation if it is not declared here."""
    return FAMILIES.get(parser_family(tokenizer), Family())


def notation_of(tokenizer: TokenizerWrapper) -> Notation | None:
    """How the model writes calls; None if no grammar here describes them, or it makes no calls."""
    if not tokenizer.has_tool_calling:
        return None
    family = family_of(tokenizer)
    found = (notation for uses, notation in family.variants if uses(tokenizer))
    return next(found, family.notation)


def dialect_of(text: str, own: Family) -> TagDialect | MarkedDialect | None:
    """The dialect in which `text` begins a call: the family's own, or one of another family."""
    families = [own, *(family for family in FAMILIES.values() if family.shared)]
    dialects = (family.dialect for family in families if family.dialect)
    return next((dialect for dialect in dialects if dialect.matches(text)), None)
