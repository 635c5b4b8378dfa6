"""A corpus of tool schemas from the field: a request never fails, and no argument is lost."""

import functools
import json
from typing import Any

import pytest
import structlog.testing
from tokenizers import normalizers

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler
from anyclaude.mlx.decode.constraint.values import is_bare
from anyclaude.mlx.decode.notation import BareKeyNotation, TaggedNotation
from anyclaude.mlx.decode.notations import notation_of
from tests.models.constrained_answers import tokens_in
from tests.models.families import encode, encode_bytes, tokenizer
from tests.models.odd_schemas import DECOMPOSED, INTEGER, OddSchema, corpus, obj
from tests.models.written_calls import reading, written_call

# One family for each kind of notation.
FAMILIES = ["json_tools", "qwen3_coder", "pythonic", "gemma4"]
CORPUS = corpus()
KINDS = list(dict.fromkeys(case.kind for case in CORPUS))
SOUND = Tool(name="Sound", input_schema=obj("a", "b", a=INTEGER, b={"enum": ["B"]}))


@functools.cache
def compiler(family: str) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer(family))


def grammar(family: str, *tools: Tool) -> AnswerGrammar:
    made = compiler(family).compile(tools, ToolChoice(), None, in_thinking=False, may_think=False)
    assert made is not None
    return made


def call(family: str, case: OddSchema, arguments: dict[str, Any], tool: Tool | None = None) -> Any:
    """What a model can call if it is offered a case and a sound tool: the call that is read.

    It is the refused text if the grammar forbids the call.
    """
    wrapper, odd = tokenizer(family), Tool(name="Odd", input_schema=case.schema)
    made = grammar(family, odd, SOUND)
    found = reading(made, wrapper, written_call(wrapper, (tool or odd).name, arguments))
    return found.refused or found.calls


def can_write(family: str, value: Any) -> bool:
    """Whether the notation has a way to write the names in a value."""
    if not isinstance(notation_of(tokenizer(family)), BareKeyNotation):
        return True
    if isinstance(value, dict):
        return all(is_bare(key) and can_write(family, inner) for key, inner in value.items())
    return not isinstance(value, list) or all(can_write(family, item) for item in value)


def expected(family: str, arguments: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    """The arguments; where a notation without quotes leaves the type open, a text is right too."""
    notation = notation_of(tokenizer(family))
    if not isinstance(notation, TaggedNotation) or not notation.plain_strings:
        return arguments
    words = {True: "true", False: "false", None: "null"}

    def text(value: Any) -> str:
        return words[value] if value is None or isinstance(value, bool) else str(value)

    return {
        key: read[key] if read.get(key) == text(value) else value
        for key, value in arguments.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_argument_is_lost_and_no_constraint(family: str, kind: str) -> None:
    """What a schema allows arrives as written; its other arguments and tools stay constrained."""
    # Every second case is enough for the notations that share most rules with the others.
    step = 1 if family in ("json_tools", "qwen3_coder") else 2
    for case in [case for case in CORPUS if case.kind == kind][::step]:
        if can_write(family, case.arguments):
            found = call(family, case, case.arguments)
            assert isinstance(found, list), (case.schema, found)
            assert found[0][1] == expected(family, case.arguments, found[0][1]), case.schema
        # A required argument beside an odd one stays required, and keeps its own schema.
        for wrong in ({}, {"name": "B"}):
            assert isinstance(call(family, case, wrong), str), case.schema
        # A sound tool beside it is constrained as if it were the only one.
        assert call(family, case, {"b": "B", "a": 1}, SOUND) == [("Sound", {"b": "B", "a": 1})]
        assert isinstance(call(family, case, {"b": "C", "a": 1}, SOUND), str), case.schema


def test_the_corpus_is_large() -> None:
    """The corpus has at least three hundred different schemas."""
    assert len({str(case.schema) for case in CORPUS}) >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_in_an_odd_format(kind: str) -> None:
    """A structured answer in any of these formats begins constrained, and fits if it is valid."""
    wrapper = tokenizer("json_tools")
    for case in [case for case in CORPUS if case.kind == kind][::2]:
        made = compiler("json_tools").compile(
            [], ToolChoice(), case.schema, in_thinking=False, may_think=False
        )
        assert made is not None, case.schema
        for token in encode(wrapper, json.dumps(case.arguments, ensure_ascii=False)):
            assert token in tokens_in(made.constraint.mask()), (case.schema, case.arguments)
            made.constraint.observe(token)
        assert wrapper.eos_token_id in tokens_in(made.constraint.mask()), case.schema


@pytest.mark.parametrize(
    "word", [DECOMPOSED, "n\u0303", "\u212b", "\u2126", "\u1112\u1161\u11ab", "\u0958"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_normalizing_tokenizer_keeps_the_form_of_letters(family: str, word: str) -> None:
    """A value comes as the schema writes it, although the tokenizer composes letters."""
    wrapper = tokenizer.__wrapped__(family)
    wrapper.backend_tokenizer.normalizer = normalizers.NFC()
    tool = Tool(name="T", input_schema=obj("f", f={"enum": [word]}))
    made = ConstraintCompiler(wrapper).compile(
        [tool], ToolChoice(type="any"), None, in_thinking=False, may_think=False
    )
    assert made is not None
    text = written_call(wrapper, "T", {"f": word})
    with structlog.testing.capture_logs() as logs:
        for token in encode_exactly(wrapper, text, word):
            assert token in tokens_in(made.constraint.mask())
            made.constraint.observe(token)
    # A grammar that fails is logged.
    assert logs == []


def encode_exactly(wrapper: TokenizerWrapper, text: str, word: str) -> list[int]:
    """The tokens of a text, in which `word` is not normalized."""
    before, after = text.split(word)
    return encode(wrapper, before) + encode_bytes(wrapper, word) + encode(wrapper, after)
