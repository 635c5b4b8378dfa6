"""Arguments with bare keys (Gemma): what the grammar allows, and how calls are read."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.constraint import ConstraintCompiler
from anyclaude.mlx.decode.notation import BareKeyNotation
from anyclaude.mlx.decode.notations import FAMILIES
from tests.models.answers import Block, answer, read_blocks
from tests.models.claude_tools import thing, tools
from tests.models.constrained_answers import tokens_in
from tests.models.families import encode, encode_bytes, tokenizer

QUOTES = {
    name: family.notation.quote
    for name, family in FAMILIES.items()
    if isinstance(family.notation, BareKeyNotation)
}
BARE_KEYS = sorted(QUOTES)
CHOICE = ToolChoice(type="any")
LEAF = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"]}


def call(family: str, arguments: str) -> str:
    """A call of the tool `T`; in `arguments`, `'` stands for the family's quote mark."""
    wrapper = tokenizer(family)
    body = f"call:T{{{arguments}}}".replace("'", QUOTES[family])
    return f"{wrapper.tool_call_start}{body}{wrapper.tool_call_end}"


def constrained(family: str, schema: Any, tokens: Sequence[int]) -> list[Block] | None:
    """The blocks of an answer constrained to the tool `T`; None if the grammar forbids a token."""
    wrapper, offered = tokenizer(family), [Tool(name="T", input_schema=schema)]
    compiled = ConstraintCompiler(wrapper).compile(
        offered, CHOICE, None, in_thinking=False, may_think=False
    )
    assert compiled is not None
    stream = BlockStream(wrapper, offered, [], tool_choice=CHOICE, grammar=compiled)
    events = []
    for token in tokens:
        if token not in tokens_in(compiled.constraint.mask()):
            return None
        events += stream.push(token)
    if wrapper.eos_token_id not in tokens_in(compiled.constraint.mask()):
        return None
    return list(read_blocks([*events, *stream.finish(cut=False)]))


def tokens_of(family: str, text: str, *, bytewise: bool) -> list[int]:
    """The tokens of a text; with `bytewise`, each byte inside a string is one token."""
    wrapper, quote = tokenizer(family), QUOTES[family]
    if not bytewise:
        return encode(wrapper, text)
    tokens: list[int] = []
    for at, piece in enumerate(text.split(quote)):
        tokens += encode(wrapper, quote) if at else []
        tokens += encode_bytes(wrapper, piece) if at % 2 else encode(wrapper, piece)
    return tokens


def accepts(family: str, schema: Any, arguments: str, *, bytewise: bool = False) -> Any:
    """The input that the arguments become; None if the grammar forbids them."""
    tokens = tokens_of(family, call(family, arguments), bytewise=bytewise)
    blocks = constrained(family, schema, tokens)
    return None if blocks is None else blocks[0].input


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("family", BARE_KEYS)
def test_every_kind_of_value_is_read(family: str, bytewise: bool) -> None:
    """Nested objects, arrays and scalars become JSON; strings keep braces, quotes and line ends."""
    schema = thing(
        flag={"type": "boolean"},
        list={"type": "array", "items": {"type": ["string", "null"]}},
        nested=thing(deep=LEAF, text={"type": "string"}),
        ratio={"type": "number"},
    )
    text = '} "a": <b>\n\\n, grüße 🙂 {'
    arguments = f"flag:true,list:['x',null,''],nested:{{deep:{{v:-3}},text:'{text}'}},ratio:0.5"
    assert accepts(family, schema, arguments, bytewise=bytewise) == {
        "flag": True,
        "list": ["x", None, ""],
        "nested": {"deep": {"v": -3}, "text": text},
        "ratio": 0.5,
    }


@pytest.mark.parametrize("family", BARE_KEYS)
@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        (thing(b={}, a=LEAF, needs=1), ["b:1", "a:{v:1},b:'x'", "b:{x:[1,'y']}"], ["", "b:1,a:1"]),
        (thing(n={"type": "integer", "maximum": 9}), ["n:9"], ["n:10", "n:1.5", "n:'9'"]),
        (thing(s={"enum": ["a b", 5, None]}), ["s:'a b'", "s:5", "s:null"], ["s:'a'", "s:a b"]),
        (
            thing(s={"type": "string", "pattern": "^[ab]+$", "maxLength": 3}),
            ["s:'aba'"],
            ["s:''", "s:'c'", "s:'abab'"],
        ),
        (
            thing(l={"type": "array", "items": LEAF, "minItems": 1, "maxItems": 2}),
            ["l:[{v:1}]", "l:[{v:1},{v:2}]"],
            ["l:[]", "l:[{v:1},{v:2},{v:3}]", "l:[1]"],
        ),
        (
            thing(l={"type": "array", "prefixItems": [LEAF, {"type": "null"}], "minItems": 1}),
            ["l:[{v:1}]", "l:[{v:1},null]", "l:[{v:1},null,'more',2]"],
            ["l:[]", "l:[null]"],
        ),
        (
            {"type": "object", "properties": {"a": LEAF}, "additionalProperties": LEAF},
            ["", "a:{v:1}", "x-y:{v:1}", "a:{v:1},b:{v:2},c:{v:3}"],
            ["a:{v:1},a:{v:2}", "b:1"],
        ),
        (
            thing(x={"oneOf": [thing(k={"const": 1}), thing(k={"const": 2}, z=LEAF)]}),
            ["x:{k:1}", "x:{k:2,z:{v:0}}"],
            ["x:{k:2}", "x:{k:1,z:{v:0}}"],
        ),
        (
            thing(x={"allOf": [thing(a=LEAF), {"required": ["a"]}]}),
            ["x:{a:{v:1}}"],
            ["x:{}", "x:{a:{v:1},b:1}"],
        ),
        (
            {**thing(tree={"$ref": "#/$defs/n"}), "$defs": {"n": thing(kids={
                "type": "array", "items": {"$ref": "#/$defs/n"}})}},
            ["tree:{kids:[]}", "tree:{kids:[{kids:[]},{kids:[{kids:[]}]}]}"],
            ["tree:{kids:[1]}"],
        ),
    ],
)  # fmt: skip
def test_the_grammar_follows_the_schema(
    family: str, schema: Any, allowed: list[str], refused: list[str]
) -> None:
    """The grammar allows exactly the arguments that the schema allows."""
    for arguments in allowed:
        assert accepts(family, schema, arguments) is not None, arguments
    for arguments in refused:
        assert accepts(family, schema, arguments) is None, arguments


@pytest.mark.parametrize("family", BARE_KEYS)
def test_keys_come_in_any_order(family: str) -> None:
    """Templates sort keys alphabetically, but a model may write them in any order, nested too."""
    schema = thing(b=thing(d=LEAF, c=LEAF), A=LEAF, needs=0)
    nested = {"c": {"v": 3}, "d": {"v": 2}}
    for written in ("A:{v:1},b:{c:{v:3},d:{v:2}}", "b:{d:{v:2},c:{v:3}},A:{v:1}"):
        assert accepts(family, schema, written) == {"A": {"v": 1}, "b": nested}


@pytest.mark.parametrize(
    "schema",
    [
        thing(a={"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        thing(a={"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        thing(a={"allOf": [{"multipleOf": 1}, {"multipleOf": 2}], "type": "integer"}),
        thing(a={"not": {"type": "string"}, "type": ["string", "integer"]}),
    ],
)
def test_a_schema_that_cannot_be_expressed_is_loosened(schema: Any) -> None:
    """A schema that a grammar cannot express is applied in a looser form, with a log entry."""
    value = "[1,1]" if "items" in schema["properties"]["a"] else "2"
    with structlog.testing.capture_logs() as logs:
        assert accepts("gemma4", schema, f"a:{value}") == {"a": json.loads(value)}
    assert {log["event"] for log in logs} == {"schema_not_expressible"}


@pytest.mark.parametrize("odd", [{"$ref": "#/nowhere"}, False, {"type": "any"}])
def test_only_the_odd_property_is_loosened(odd: Any) -> None:
    """A property that no grammar can express allows any value, and the others stay constrained."""
    schema = thing(a=odd, b=LEAF)
    assert accepts("gemma4", schema, "b:{v:1},a:['z']") == {"b": {"v": 1}, "a": ["z"]}
    assert accepts("gemma4", schema, "b:1,a:['z']") is None
    assert accepts("gemma4", schema, "b:{v:1}") is None


def test_a_name_that_cannot_be_written_leaves_the_object_open() -> None:
    """A property whose name needs quotes is not required, and other names are allowed."""
    schema = thing(**{"a:b": LEAF, "c": LEAF})
    assert accepts("gemma4", schema, "c:{v:1},x:1") == {"c": {"v": 1}, "x": 1}
    assert accepts("gemma4", schema, "c:1") is None


@pytest.mark.parametrize("family", BARE_KEYS)
def test_all_tools_are_constrained_to_their_whole_schemas(family: str) -> None:
    """None of Claude Code's schemas needs a looser grammar."""
    with structlog.testing.capture_logs() as logs:
        ConstraintCompiler(tokenizer(family)).compile(
            tools(), CHOICE, None, in_thinking=False, may_think=False
        )
    assert logs == []


@pytest.mark.parametrize("family", BARE_KEYS)
def test_an_end_marker_in_a_string_is_text(family: str) -> None:
    """A value that contains the end marker in ordinary tokens is complete."""
    wrapper = tokenizer(family)
    before, after = call(family, "s:'x@y'").split("@")
    tokens = encode(wrapper, before) + encode_bytes(wrapper, wrapper.tool_call_end)
    blocks = constrained(family, thing(s={"type": "string"}), tokens + encode(wrapper, after))
    assert blocks is not None
    assert blocks[0].input == {"s": f"x{wrapper.tool_call_end}y"}


@pytest.mark.parametrize("family", BARE_KEYS)
@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("command:'a } , b: {'", {"command": "a } , b: {"}),
        ("command:'ls',env:{A:'x',deep:{b:[1,{c:null}]}}", None),
        ("command: 'ls', timeout: 5", {"command": "ls", "timeout": 5}),
        ("'command':'ls',quiet:True", {"command": "ls", "quiet": True}),
        ("command:ls -la", {"command": "ls -la"}),
        ('"command": "ls, -la"', {"command": "ls, -la"}),
    ],
)
def test_unconstrained_calls_are_read_whole(
    family: str, arguments: str, read: dict[str, Any] | None
) -> None:
    """Braces in strings, nesting, and common mistakes lose no argument."""
    text = call(family, arguments).replace("call:T", "call:Bash")
    nested = {"command": "ls", "env": {"A": "x", "deep": {"b": [1, {"c": None}]}}}
    assert answer(tokenizer(family), text).inputs == [read or nested]


@pytest.mark.parametrize("family", BARE_KEYS)
@pytest.mark.parametrize(
    "arguments",
    ["command:'a'", "command:'a',command:'b'", "command:'a' 'b'", "command:'a'],env:{", "command"],
)
def test_unreadable_calls_are_reported(family: str, arguments: str) -> None:
    """Half an object, a repeated key, or wrong brackets make the call fail."""
    text = call(family, arguments).replace("call:T", "call:Bash")
    if arguments == "command:'a'":
        text = text.replace("}", "")
    result = answer(tokenizer(family), text)
    assert [block.name for block in result.blocks] == ["unreadable_call_of_Bash"]
