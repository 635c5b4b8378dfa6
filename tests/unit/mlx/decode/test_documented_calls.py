"""What a family's template and documentation write is allowed by the grammar, and read."""

import json
from typing import Any

import pytest

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.constraint import (
    ArgumentsPiece,
    CallBegin,
    ConstraintCompiler,
)
from tests.models import families
from tests.models.answers import BASH, STATUS, answer
from tests.models.constrained_answers import tokens_in
from tests.models.families import Family, encode, encode_bytes, tokenizer

GREP = Tool(
    name="Grep",
    input_schema={
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "-n": {"type": ["boolean", "null"]}},
    },
)
EDIT = Tool(
    name="Edit",
    input_schema={
        "type": "object",
        "properties": {
            "edits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"old": {"type": "string"}, "all": {"type": "boolean"}},
                },
            }
        },
    },
)
TOOLS = (BASH, STATUS, GREP, EDIT)
LS, PWD = ("Bash", {"command": "ls"}), ("Bash", {"command": "pwd"})
MISTRAL_ID = Family("[TOOL_CALLS]{{ n }}[CALL_ID]", ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"))
MISTRAL_LIST = Family("""[TOOL_CALLS][{{ ', "id": "' + n }}""", ("[TOOL_CALLS]",))
MISTRAL_BARE_LIST = Family("[TOOL_CALLS][", ("[TOOL_CALLS]",))
# Like MiniMax-M1's and GigaChat's.
JSON_LINES = Family("<tool_calls>\\n{{ name }}</tool_calls>", ("<tool_calls>", "</tool_calls>"))
JSON_EACH = Family("<|function_call|>{{ call }}", ("<|function_call|>",))
JSON_LS = '{"name": "Bash", "arguments": {"command": "ls"}}'
JSON_STATUS = '{"name": "Status", "arguments": {}}'


def invoke(command: str) -> str:
    return f'<invoke name="Bash">\n<parameter name="command">{command}</parameter>\n</invoke>\n'


def spelled(word: str) -> str:
    return (
        "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</parameter>\n"
        f"<parameter=quiet>\n{word}\n</parameter>\n</function>\n</tool_call>"
    )


CASES: list[tuple[str | Family, str, list[tuple[str, dict[str, Any]]]]] = [
    (
        "minimax_m2",
        f"<minimax:tool_call>\n{invoke('ls')}{invoke('pwd')}</minimax:tool_call>",
        [LS, PWD],
    ),
    ("minimax_m2", f"<minimax:tool_call>\n{invoke('ls')}</minimax:tool_call>", [LS]),
    (MISTRAL_ID, '[TOOL_CALLS]Bash[CALL_ID]abcdefgh1[ARGS]{"command": "ls"}', [LS]),
    (
        MISTRAL_ID,
        '[TOOL_CALLS]Bash[CALL_ID]abcdefgh1[ARGS]{"command": "ls"}'
        "[TOOL_CALLS]Status[CALL_ID]000000000[ARGS]{}",
        [LS, ("Status", {})],
    ),
    (
        MISTRAL_LIST,
        '[TOOL_CALLS][{"name": "Bash", "arguments": {"command": "ls"}, "id": "abcdefgh1"}, '
        '{"name": "Bash", "arguments": {"command": "pwd"}, "id": "abcdefgh2"}]',
        [LS, PWD],
    ),
    (
        MISTRAL_BARE_LIST,
        '[TOOL_CALLS][{"name": "Bash", "arguments": {"command": "ls"}}, '
        '{"name": "Status", "arguments": {}}]',
        [LS, ("Status", {})],
    ),
    *[
        ("qwen3_coder", spelled(word), [("Bash", {"command": "ls", "quiet": value})])
        for word, value in {"True": True, "False": False, "true": True, "false": False}.items()
    ],
    (JSON_LINES, f"<tool_calls>\n{JSON_LS}\n{JSON_STATUS}\n</tool_calls>", [LS, ("Status", {})]),
    (JSON_EACH, f"<|function_call|>{JSON_LS}<|function_call|>{JSON_LS}", [LS, LS]),
    ("json_list", f"<TOOLCALL>[{JSON_LS}, {JSON_STATUS}]</TOOLCALL>", [LS, ("Status", {})]),
    (
        "pythonic",
        '<|tool_call_start|>[Bash(command="ls"), Bash(command="pwd")]<|tool_call_end|>',
        [LS, PWD],
    ),
    (
        "pythonic",
        '<|tool_call_start|>[Bash(command="ls", quiet=True), Grep(pattern="x", -n=None)]'
        "<|tool_call_end|>",
        [("Bash", {"command": "ls", "quiet": True}), ("Grep", {"pattern": "x", "-n": None})],
    ),
    (
        "pythonic",
        "<|tool_call_start|>[Bash(command='echo \"a, b)\"', quiet=false), Status()]"
        "<|tool_call_end|>",
        [("Bash", {"command": 'echo "a, b)"', "quiet": False}), ("Status", {})],
    ),
    (
        "pythonic",
        '<|tool_call_start|>[Edit(edits=[{"old": \'a\', "all": True}, {"all": false, "old": "b"}])]'
        "<|tool_call_end|>",
        [("Edit", {"edits": [{"old": "a", "all": True}, {"all": False, "old": "b"}]})],
    ),
]


def wrapper_of(family: str | Family, monkeypatch: pytest.MonkeyPatch) -> TokenizerWrapper:
    if isinstance(family, str):
        return tokenizer(family)
    monkeypatch.setitem(families.FAMILIES, "mine", family)
    return families.tokenizer.__wrapped__("mine")


@pytest.mark.parametrize(("family", "text", "calls"), CASES)
def test_documented_calls_are_allowed_and_read(
    family: str | Family,
    text: str,
    calls: list[tuple[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The grammar allows the text token by token, and reader and repair find the same calls."""
    wrapper = wrapper_of(family, monkeypatch)
    for encoding in (encode, encode_bytes):
        made = answer(wrapper, encoding(wrapper, text), tools=TOOLS)
        assert [(block.name, block.input) for block in made.blocks] == calls
    compiled = ConstraintCompiler(wrapper).compile(
        TOOLS, ToolChoice(), None, in_thinking=False, may_think=False
    )
    assert compiled is not None
    assert compiled.new_reader is not None
    for token in encode(wrapper, text):
        if compiled.constraint.is_active:
            assert token in tokens_in(compiled.constraint.mask()), wrapper.decode([token])
        compiled.constraint.observe(token)
    regions = text.removesuffix(wrapper.tool_call_end or "").split(wrapper.tool_call_start)[1:]
    read: list[list[str]] = []
    for region in regions:
        reader = compiled.new_reader()
        for event in [*(e for sign in region for e in reader.feed(sign)), *reader.finish()]:
            match event:
                case CallBegin(name):
                    read.append([name, ""])
                case ArgumentsPiece(piece):
                    read[-1][1] += piece
    assert [(name, json.loads(arguments)) for name, arguments in read] == calls


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('[Bash(command="a\\"b, -n=1)]")]', [("Bash", {"command": 'a"b, -n=1)]'})]),
        ('[Bash(command="one\ntwo")]', [("Bash", {"command": "one\ntwo"})]),
        ("[Bash(command='it', env={\"class\": [true, null]}, timeout=-5)]", None),
        ('[Grep(pattern="x=1", -n=False)]\nDone.', [("Grep", {"pattern": "x=1", "-n": False})]),
    ],
)
def test_python_lists_keep_their_values(
    body: str, calls: list[tuple[str, dict[str, Any]]] | None
) -> None:
    """Commas, brackets and line ends in strings change no value, and words behind stay words."""
    calls = calls or [("Bash", {"command": "it", "env": {"class": [True, None]}, "timeout": -5})]
    for text in (f"<|tool_call_start|>{body}<|tool_call_end|>", f"<|tool_call_start|>{body}"):
        made = answer(tokenizer("pythonic"), text, tools=TOOLS)
        assert [(block.name, block.input) for block in made.of("tool_use")] == calls
        assert made.text == ("Done." if "Done" in body else "")


@pytest.mark.parametrize("encoding", [encode, encode_bytes])
def test_calls_in_a_code_block_behind_their_heading(
    encoding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Command R+ writes its calls in a code block; strings in them may contain its end."""
    wrapper = wrapper_of(Family("Action:\\n```json\\n[ tool_name"), monkeypatch)
    calls = [{"tool_name": "Bash", "parameters": {"command": "echo '```'"}}]
    text = f"I look first.\nAction:\n```json\n{json.dumps(calls, indent=4)}\n```"
    made = answer(wrapper, encoding(wrapper, text), tools=TOOLS)
    assert made.text == "I look first."
    assert made.inputs == [{"command": "echo '```'"}]
