"""The arguments of a constrained call may come in any order, each once and all required ones."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.constraint import AnswerGrammar, CallBegin, CallEnd, ConstraintCompiler
from anyclaude.mlx.decode.constraint.reader import ArgumentsPiece
from anyclaude.mlx.decode.notation import (
    BareKeyNotation,
    JsonNotation,
    Parts,
    Pattern,
    Section,
    TaggedNotation,
)
from anyclaude.mlx.decode.notations import notation_of
from tests.models.constrained_answers import tokens_in
from tests.models.families import CONSTRAINED, encode, tokenizer
from tests.models.written_calls import reading, written_calls

TYPES: dict[str, Any] = {
    "command": "string",
    "timeout": "number",
    "description": "string",
    "quiet": "boolean",
    "paths": "array",
    "a-b": "string",
}
BASH = Tool(
    name="Bash",
    input_schema={
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in TYPES.items()},
        "required": ["description", "command"],
    },
)
ARGUMENTS = {
    "command": 'echo "é"\nls',
    "timeout": 600000,
    "description": "Lists",
    "quiet": True,
    "paths": ["a", "b"],
    "a-b": "c",
}
# Gemma's keys are in alphabetical order.
FREE = [
    name for name in CONSTRAINED if not isinstance(notation_of(tokenizer(name)), BareKeyNotation)
]


def written(wrapper: TokenizerWrapper, arguments: Mapping[str, Any]) -> str:
    """A call of Bash between its markers, in the notation of a family."""
    notation = notation_of(wrapper)
    before: Parts = ()
    if isinstance(notation, JsonNotation):
        parts, body = notation.before_arguments, json.dumps(arguments, ensure_ascii=False)
        before = notation.before_all
    else:
        assert isinstance(notation, TaggedNotation)
        parts = notation.after_name
        plain = notation.plain_strings
        body = notation.separator.join(
            notation.before_key
            + name
            + notation.after_key.replace("{type}", TYPES.get(name, "string")).replace(
                "{string}", "true" if isinstance(value, str) else "false"
            )
            + (value if plain and isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            + notation.after_value
            for name, value in arguments.items()
        )
    between = _example(parts)
    after = notation.after_arguments
    after = after if isinstance(after, str) else "".join(map(str, after))
    call = f"{_example(before)}{notation.before_name}Bash{between}{body}{after}"
    section = notation.section or Section()
    call = section.before_first + call + section.after_last
    return f"{wrapper.tool_call_start}{call}{wrapper.tool_call_end or ''}"


def _example(parts: Parts) -> str:
    texts = ("0" if isinstance(part, Pattern) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def grammar(wrapper: TokenizerWrapper, tool: Tool = BASH) -> AnswerGrammar:
    compiler = ConstraintCompiler(wrapper)
    found = compiler.compile([tool], ToolChoice(), None, in_thinking=False, may_think=False)
    assert found is not None
    return found


def allowed(made: AnswerGrammar, wrapper: TokenizerWrapper, text: str) -> bool:
    """Whether the grammar allows `text` token by token."""
    for token in encode(wrapper, text):
        if made.constraint.is_active and token not in tokens_in(made.constraint.mask()):
            return False
        made.constraint.observe(token)
    return True


@pytest.mark.parametrize("family", FREE)
def test_arguments_come_in_any_order(family: str) -> None:
    """Any selection in any order is allowed, and is read in that order from any pieces."""
    wrapper, rng = tokenizer(family), random.Random(family)
    for _ in range(12):
        optional = [name for name in ARGUMENTS if name not in ("command", "description")]
        chosen = ["command", "description", *rng.sample(optional, rng.randint(0, 4))]
        rng.shuffle(chosen)
        arguments = {name: ARGUMENTS[name] for name in chosen}
        made, text = grammar(wrapper), written(wrapper, arguments)
        assert allowed(made, wrapper, text), chosen
        assert made.new_reader is not None
        reader, events = made.new_reader(), []
        body = text.removeprefix(wrapper.tool_call_start).removesuffix(wrapper.tool_call_end or "")
        while body:
            cut = rng.randint(1, 9)
            events += reader.feed(body[:cut])
            body = body[cut:]
        events += reader.finish()
        assert [type(event) for event in (events[0], events[-1])] == [CallBegin, CallEnd]
        pieces = [event.json for event in events if isinstance(event, ArgumentsPiece)]
        assert list(json.loads("".join(pieces)).items()) == list(arguments.items())


@pytest.mark.parametrize("family", FREE)
def test_each_argument_comes_once_and_required_ones_always(family: str) -> None:
    """The end is withheld while a required argument is missing, and no argument comes twice."""
    wrapper = tokenizer(family)
    for chosen in (["command"], ["timeout", "description"], []):
        arguments = {name: ARGUMENTS[name] for name in chosen}
        assert not allowed(grammar(wrapper), wrapper, written(wrapper, arguments))
    twice = written(wrapper, {"command": "a", "description": "b", "c-twice": "c"})
    assert not allowed(grammar(wrapper), wrapper, twice.replace("c-twice", "command"))


@pytest.mark.parametrize("family", FREE)
def test_the_end_of_an_incomplete_call_is_no_text(family: str) -> None:
    """A model that forgets an argument cannot write the end of the call into the one before."""
    wrapper = tokenizer(family)
    notation, text = notation_of(wrapper), written(wrapper, {"command": "ls"})
    refused = reading(grammar(wrapper), wrapper, text, read=False).refused
    assert refused is not None
    if isinstance(notation, TaggedNotation) and notation.after_arguments:
        end = notation.after_value + notation.after_arguments
        assert len(refused) <= text.index(end) + len(end)


@pytest.mark.parametrize("behind", ["", "\n", "\n\nDone.", " Done."])
@pytest.mark.parametrize("family", ["functionary", "json_list", "muse_spark"])
def test_the_end_marker_may_share_a_token_with_what_follows(family: str, behind: str) -> None:
    """Where the end marker is text, its last token may reach into line ends or the next call."""
    wrapper = tokenizer(family)
    calls = [("Bash", {"command": "ls", "description": "d"})] * 2
    for text in (written_calls(wrapper, calls), "".join(written(wrapper, c) for _, c in calls)):
        made = grammar(wrapper)
        assert reading(made, wrapper, text + behind, read=False).refused is None
        assert not made.constraint.is_active


@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "glm47"])
@pytest.mark.parametrize("required", [0, 70])
def test_more_arguments_than_bits(family: str, required: int) -> None:
    """A tool of a hundred arguments keeps them all, and none of those required is left out."""
    wrapper, names = tokenizer(family), [f"p{at}x" for at in range(100)]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    tool = Tool(name="Bash", input_schema={**schema, "required": names[:required]})
    arguments = dict.fromkeys(names, "v")
    assert allowed(grammar(wrapper, tool), wrapper, written(wrapper, arguments))
    del arguments[names[69]]
    whole = allowed(grammar(wrapper, tool), wrapper, written(wrapper, arguments))
    assert whole == (required == 0)
