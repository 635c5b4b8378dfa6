"""Tool calls of every family: reading, types, calls that are cut off, and reports of failures."""

import json
from typing import Any

import pytest
import structlog

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode import BlockStream, notations
from anyclaude.mlx.markup import MARKUPS
from tests.models.answers import BASH, TOOLS, Answer, Block, answer, read_blocks
from tests.models.families import (
    CALLS,
    FAMILIES,
    encode,
    encode_bytes,
    json_call,
    tagged,
    tokenizer,
)
from tests.models.tokenizers import BOS, EOS, byte_level, wrap

# Families whose values are text between tags.
TAGGED = ("qwen3_coder", "glm47", "minimax_m2")
NO_END = ("mistral", "llama3")
# What comes before a call in families whose messages have headers.
WORDS = {
    "muse_spark": "to=user<|message|>Well<|eom|>",
    "harmony": "<|channel|>commentary<|message|>Well<|end|><|start|>assistant",
    "llama3": "Well<|python_tag|>",
    "solar": "<|content|>Well<|end|><|begin|>assistant",
}


def hermes(text: str, *, cut: bool = False) -> Answer:
    return answer(tokenizer("json_tools"), text, cut=cut)


def failed_call(result: Answer) -> Block:
    """The only block of an answer: a call that failed, as a call of a tool that does not exist."""
    [block] = result.blocks
    assert block.name.startswith("unreadable_call")
    assert "could not be read" in block.input["error"]
    return block


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("bytewise", [False, True])
def test_every_family_calls(family: str, bytewise: bool) -> None:
    """Two calls as the family writes them become two tool_use blocks, in any tokenisation."""
    wrapper = tokenizer(family)
    assert parser_family(wrapper) == family
    tokens = (encode_bytes if bytewise else encode)(wrapper, CALLS[family])
    result = answer(wrapper, tokens)
    assert result.brief() == [
        ("tool_use", "Bash", '{"command":"ls","timeout":5}'),
        ("tool_use", "Status", "{}"),
    ]
    assert result.stream.has_tool_use


def test_every_family_is_tested() -> None:
    """Each declared family has a tokenizer and example calls, so all tests include it."""
    assert {markup.family for markup in MARKUPS} <= set(CALLS)
    assert set(CALLS) == set(FAMILIES) - {"none"}
    # They share the notations of glm47 and llama3.
    assert set(notations.FAMILIES) - set(CALLS) == {"laguna", "unmarked"}


@pytest.mark.parametrize("family", CALLS)
def test_call_cut_by_max_tokens_is_not_made(family: str) -> None:
    """Half a call is dropped, and the text before it stays."""
    wrapper = tokenizer(family)
    header = WORDS.get(family, "Well")
    tokens = encode(wrapper, header + CALLS[family])
    at = len(encode(wrapper, header + CALLS[family][: CALLS[family].index("5")]))
    result = answer(wrapper, tokens[:at], cut=True)
    assert result.brief() == [("text", "", "Well")]
    assert not result.stream.has_tool_use


@pytest.mark.parametrize("family", sorted(set(CALLS) - set(NO_END)))
def test_end_of_answer_ends_a_call(family: str) -> None:
    """An answer that ends without the end marker, or inside it, still makes its call."""
    wrapper = tokenizer(family)
    for missing in (len(wrapper.tool_call_end), 3):
        text = CALLS[family].rstrip()[:-missing]
        result = answer(wrapper, encode_bytes(wrapper, text))
        assert [block.name for block in result.of("tool_use")] == ["Bash", "Status"]


def test_ids_are_unique_and_of_the_public_form() -> None:
    """Each call has a different id of the API's form, since clients match results by id."""
    blocks = hermes(CALLS["json_tools"] * 20).blocks
    ids = {block.id for block in blocks if block.kind == "tool_use"}
    assert len(ids) == 40
    assert all(len(one) == 30 and one.startswith("toolu_") and one[6:].isalnum() for one in ids)


def test_ids_come_from_the_callers_source() -> None:
    """A source of ids that is passed in is used."""
    wrapper = tokenizer("json_tools")
    stream = BlockStream(wrapper, TOOLS, [], new_id=lambda: "toolu_1")
    events = [e for t in encode(wrapper, json_call({"command": "x"})) for e in stream.push(t)]
    assert events[0].block_start.tool_use.id == "toolu_1"


@pytest.mark.parametrize("family", TAGGED)
@pytest.mark.parametrize(
    "value",
    [
        *["null", "None", "true", "5", "1.50", '{"a": 1}', "[1, 2]", "", "  indented\n", "a < b"],
        *["</parameter> inside", "x </arg_value> y", "say </function> now", "</invoke>", "é🙂"],
    ],
)
def test_a_string_stays_a_string(family: str, value: str) -> None:
    """A value that the schema declares a string arrives unchanged, whatever it looks like."""
    result = answer(tokenizer(family), tagged(family, command=value))
    assert result.inputs == [{"command": value}]


@pytest.mark.parametrize("family", TAGGED)
@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("timeout", "5", 5),
        ("timeout", " 5.0 ", 5),
        ("timeout", "five", "five"),
        ("timeout", "1e999", "1e999"),
        ("quiet", "True", True),
        ("quiet", "false", False),
        ("quiet", "maybe", "maybe"),
        ("ratio", "0.25", 0.25),
        ("ratio", "3", 3),
        ("ratio", "nan", "nan"),
        ("paths", '["a", "b"]', ["a", "b"]),
        ("paths", "['a', 'b']", ["a", "b"]),
        ("paths", "[1, 2]", ["1", "2"]),
        ("env", "{'A': True, 'B': None}", {"A": True, "B": None}),
        ("env", '{"A": "line\nbreak",}', {"A": "line\nbreak"}),
        ("env", "not an object", "not an object"),
        ("note", "null", None),
        ("note", "text", "text"),
        ("target", "7", 7),
        ("target", "[7]", [7]),
        ("free", '{"a": 1}', {"a": 1}),
        ("free", "12", "12"),
        ("unheard_of", "12", "12"),
    ],
)
def test_text_takes_the_type_of_the_schema(family: str, key: str, text: str, value: Any) -> None:
    """A value written as text gets the type that the schema declares, or else stays text."""
    result = answer(tokenizer(family), tagged(family, command="ls", **{key: text}))
    assert result.inputs == [{"command": "ls", key: value}]


@pytest.mark.parametrize(
    ("arguments", "mended"),
    [
        ({"command": 5}, {"command": "5"}),
        ({"command": {"a": "é"}}, {"command": '{"a": "é"}'}),
        ({"command": "x", "timeout": "5"}, {"command": "x", "timeout": 5}),
        ({"command": "x", "timeout": 5.0}, {"command": "x", "timeout": 5}),
        ({"command": "x", "timeout": True}, {"command": "x", "timeout": True}),
        ({"command": "x", "quiet": "true"}, {"command": "x", "quiet": True}),
        ({"command": "x", "paths": '["a"]'}, {"command": "x", "paths": ["a"]}),
        ({"command": "x", "paths": [1]}, {"command": "x", "paths": ["1"]}),
        ({"command": "x", "note": None}, {"command": "x", "note": None}),
        ({"command": "x", "free": "[1]"}, {"command": "x", "free": "[1]"}),
        ('{"command": "x"}', {"command": "x"}),
    ],
)
def test_json_arguments_are_mended_by_the_schema(arguments: Any, mended: Any) -> None:
    """The types that the model chose stay, unless the schema forbids them."""
    assert hermes(json_call(arguments)).inputs == [mended]


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "Bash", "arguments": {"command": "ls",},}',
        '{"name": "Bash", "arguments": {"command": "ls"}',
        '{"name": "Bash", "arguments": {"command": "ls"}}}',
        "{'name': 'Bash', 'arguments': {'command': 'ls'}}",
        '```json\n{"name": "Bash", "arguments": {"command": "ls"}}\n```',
        '[{"name": "Bash", "arguments": {"command": "ls"}}]',
        '{"name": "Bash", "parameters": {"command": "ls"}}',
        '{"function": {"name": "Bash", "arguments": "{\\"command\\": \\"ls\\"}"}}',
        'Bash\n{"command": "ls"}',
        '{"name": " Bash ", "arguments": {"command": "ls"}}',
        "<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>",
        "<function=Bash><parameter=command>ls</function>",
        '<function=Bash>{"command": "ls"}</function>',
        "Bash<arg_key>command</arg_key><arg_value>ls</arg_value>",
    ],
)
@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "glm47"])
def test_near_misses_are_read(family: str, body: str) -> None:
    """Common mistakes of models, and another family's notation, still give the intended call."""
    result = answer(tokenizer(family), f"<tool_call>{body}</tool_call>")
    assert result.brief() == [("tool_use", "Bash", '{"command":"ls"}')]


def test_several_calls_under_one_marker() -> None:
    """Several values in a row, also with a start marker between them, are all calls."""
    one = '{"name": "Bash", "arguments": {"command": "a"}}'
    two = one.replace('"a"', '"b"')
    for text in (f"{one}\n{two}", f"{one}<tool_call>{two}", f"{one[:-1]}<tool_call>{two}"):
        result = hermes(f"<tool_call>{text}</tool_call>")
        assert result.inputs == [{"command": "a"}, {"command": "b"}]


def test_bare_function_of_an_offered_tool_is_a_call() -> None:
    """Qwen3-Coder may omit the start marker; the name of a tool that was not offered is text."""
    wrapper = tokenizer("qwen3_coder")
    call = tagged("qwen3_coder", command="ls").removeprefix("<tool_call>")
    assert answer(wrapper, "Well\n" + call).brief() == [
        ("text", "", "Well"),
        ("tool_use", "Bash", '{"command":"ls"}'),
    ]
    prose = "Write <function=Other> to call."
    assert answer(wrapper, prose).brief() == [("text", "", prose)]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "  \n",
        "not a call",
        "{",
        "[]",
        "null",
        '{"name": "Bash", "arguments": {"command": "half',
        '{"name": "Bash", "arguments": [1]}',
        '{"name": "Bash", "arguments": "text"}',
        '{"name": 5, "arguments": {}}',
        '{"arguments": {"command": "ls"}}',
        '{"name": "Bash"}',
        '{"name": "Bash", "arguments": null}',
        '{"name": "Bash", "arguments": {"command": "a", "ratio": 1e999}}',
        '{"name": "Bash", "arguments": {"command": "a"]}',
        "<function=Bash><param=command>ls</param></function>",
        "<function=Bash>ls</function>",
        "<function=>",
        "[" * 5000,
        '{"name": "Bash", "arguments": {"env": ' + '{"a":' * 3000 + "1" + "}" * 3002,
    ],
)
@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "glm47"])
def test_unreadable_calls_are_reported_and_never_guessed(family: str, body: str) -> None:
    """A call that cannot be read completely fails as a whole, and nothing of it is lost."""
    call = failed_call(answer(tokenizer(family), f"<tool_call>{body}</tool_call>"))
    assert (call.name == "unreadable_call_of_Bash") == ("Bash" in body)
    assert call.input["written"] == body


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("minimax_m2", "<minimax:tool_call><invoke name=></invoke></minimax:tool_call>"),
        ("mistral", '[TOOL_CALLS]Bash[ARGS]{"command": "half'),
        ("mistral", "[TOOL_CALLS]"),
        ("kimi_k2", "<|tool_calls_section_begin|>functions.Bash:0<|tool_calls_section_end|>"),
        ("pythonic", '<|tool_call_start|>[Bash("ls")]<|tool_call_end|>'),
        ("glm47", "<tool_call>Bash ls -la</tool_call>"),
        ("longcat", "<longcat_tool_call>?</longcat_tool_call>"),
        ("gemma4", "<|tool_call>call:Bash{command:ls<tool_call|>"),
        ("minicpm5", '<function name="Bash"><param>ls</param></function>'),
    ],
)
def test_what_a_parser_would_drop_fails(family: str, text: str) -> None:
    """A parser's result without arguments, or with invented ones, does not become a call."""
    failed_call(answer(tokenizer(family), text))


def test_a_call_of_an_unknown_tool_reaches_the_client() -> None:
    """The client answers that there is no such tool; a name that the API forbids is not sent."""
    assert hermes(json_call({"a": 1}, name="Nope")).brief() == [("tool_use", "Nope", '{"a":1}')]
    assert failed_call(hermes(json_call({}, name="<b>x</b>"))).name == "unreadable_call"


def test_server_tools_are_not_callable() -> None:
    """A tool that only Anthropic's servers run is not offered, so its call is one of no tool."""
    search = Tool(name="web_search", type="web_search_20250305")
    with structlog.testing.capture_logs() as logs:
        answer(tokenizer("json_tools"), json_call({}, "web_search"), tools=[search, BASH])
    assert [log["reason"] for log in logs] == ["no tool of that name was offered"]


def test_the_model_may_not_fail_for_ever() -> None:
    """Where the model may not try again, a sentence with its call ends the turn."""
    wrapper = tokenizer("json_tools")
    for text in ('<tool_call>{"name": "Bash", "arg</tool_call>', json_call({"a": 1}, name="Nope")):
        stream = BlockStream(wrapper, TOOLS, [], retries=False)
        events = [event for token in encode(wrapper, text) for event in stream.push(token)]
        [block] = read_blocks([*events, *stream.finish(cut=False)])
        assert block.text.startswith("[A call failed several times in a row")
        assert not stream.has_tool_use


def test_a_failed_call_does_not_touch_its_neighbours() -> None:
    """Text and calls before and after a failed call are not affected by it."""
    good = json_call({"command": "ls"})
    result = hermes(f"one{good}<tool_call>?</tool_call>{good}two")
    assert result.kinds() == ["text", "tool_use", "tool_use", "tool_use", "text"]
    assert [block.name for block in result.of("tool_use")] == ["Bash", "unreadable_call", "Bash"]


def test_failed_calls_are_logged_without_content() -> None:
    """The log contains the tool's name and the reason, and no text of the model."""
    with structlog.testing.capture_logs() as logs:
        hermes('<tool_call>{"name": "Bash", "arguments": {"command": "secret</tool_call>')
        hermes(json_call({"command": "secret"}, name="secret"))
    assert [log["log_level"] for log in logs] == ["warning", "warning"]
    assert [log["tool"] for log in logs] == ["Bash", None]
    assert "secret" not in json.dumps(logs)


def test_one_call_at_a_time() -> None:
    """If parallel calls are disabled, the first call is made and the others are reported."""
    choice = ToolChoice(type="auto", disable_parallel_tool_use=True)
    result = answer(tokenizer("json_tools"), CALLS["json_tools"], tool_choice=choice)
    assert result.kinds() == ["tool_use", "text"]
    assert "`Status` was not made" in result.text


def test_end_marker_inside_a_value() -> None:
    """A value that contains the end marker is complete."""
    for family in ("json_tools", "qwen3_coder"):
        command = "echo </tool_call> and </tool_call>\nmore"
        text = json_call({"command": command})
        if family == "qwen3_coder":
            text = tagged(family, command=command)
        wrapper = tokenizer(family)
        for tokens in (encode(wrapper, text + "Done"), encode_bytes(wrapper, text + "Done")):
            result = answer(wrapper, tokens)
            assert result.inputs == [{"command": command}]
            assert result.text == "Done"


@pytest.mark.parametrize(
    "ending", ["", " <tool_call>?", "</tool_call>", "</tool_", CALLS["json_tools"]]
)
def test_a_value_left_open_does_not_swallow_the_answer(ending: str) -> None:
    """Text after an end marker is scanned again if the marker did end the call."""
    result = hermes(
        '<tool_call>{"name": "Bash", "arguments": {"command": "a</tool_call>\nMore' + ending
    )
    assert "could not be read" in result.blocks[0].input["error"]
    assert result.blocks[1].text.startswith("More")
    if ending == CALLS["json_tools"]:
        assert len(result.inputs) == 3


def test_stop_sequence_after_a_value_left_open() -> None:
    """A stop sequence is found in text that is scanned again."""
    text = '<tool_call>{"name": "Bash", "arguments": {"command": "a</tool_call>\nMore STOP it'
    result = answer(tokenizer("json_tools"), text, stop_sequences=["STOP"])
    assert result.blocks[-1].text == "More "
    assert result.stream.stop_sequence == "STOP"


def test_surrogates_never_reach_the_wire() -> None:
    """Escaped surrogate pairs become one character; a lone surrogate is replaced."""
    text = json_call({"command": "PLACE"}).replace("PLACE", r"\ud83d\ude42 \ud83d")
    assert hermes(text).inputs == [{"command": "🙂 \ufffd"}]


def test_long_inputs_travel_in_pieces() -> None:
    """A large input is sent as several deltas, which together are one JSON object."""
    wrapper, command = tokenizer("json_tools"), "é" * 5_000
    stream = BlockStream(wrapper, TOOLS, [])
    events = [
        event
        for token in encode(wrapper, json_call({"command": command}))
        for event in stream.push(token)
    ]
    events += stream.finish(cut=False)
    assert sum(bool(event.block_delta.partial_json) for event in events) > 1
    assert [block.input for block in read_blocks(events)] == [{"command": command}]


_JSON_CALL = '{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}'
_PYTHON_CALL = (
    "{{ call.name }}({% for k, v in call.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %})"
)


def _bare(before: str, call: str, after: str) -> TokenizerWrapper:
    """A tokenizer whose template prints one call in an answer, between these texts."""
    template = (
        "{{ tools | tojson if tools else '' }}{% for m in messages %}"
        f"<|im_start|>{{{{ m.role }}}}\n{{% for c in m.tool_calls or [] %}}"
        f"{{% set call = c.function %}}{before}{call}{after}{{% endfor %}}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return wrap(byte_level(), template, [BOS, EOS, "<|im_start|>", "<|im_end|>"])


@pytest.mark.parametrize(
    ("wrapper", "written"),
    [
        (
            _bare("[", _JSON_CALL, "]"),
            '[{"name": "Bash", "arguments": {"command": "ls", "timeout": 5}}, '
            '{"name": "Status", "arguments": {}}]',
        ),
        (
            _bare("", _JSON_CALL, ""),
            '{"name": "Bash", "arguments": {"command": "ls", "timeout": 5}}\n'
            '{"name": "Status", "arguments": {}}',
        ),
        (
            _bare("", _JSON_CALL, ""),
            '{"name": "Bash", "parameters": {"command": "ls", "timeout": 5}}; '
            '{"name": "Status", "parameters": {}}',
        ),
        (_bare("[", _PYTHON_CALL, "]"), '[Bash(command="ls", timeout=5), Status()]'),
    ],
    ids=["a list of JSON", "JSON", "JSON and semicolons", "a Python list"],
)
def test_calls_of_a_template_without_markers(wrapper: TokenizerWrapper, written: str) -> None:
    """Where a template prints calls as the whole answer, such answers are calls (xLAM, Llama 4)."""
    both = [
        ("tool_use", "Bash", '{"command":"ls","timeout":5}'),
        ("tool_use", "Status", "{}"),
    ]
    assert answer(wrapper, encode(wrapper, written)).brief() == both
    quoted = f"I could write {written}"
    assert answer(wrapper, encode(wrapper, quoted)).brief() == [("text", "", quoted)]


def test_a_template_with_unknown_markers_makes_no_calls() -> None:
    """What stands around its calls is not known, so the model is said to make none."""
    assert not _bare("<call>", _JSON_CALL, "</call>").has_tool_calling
    assert not _bare("<call>", _PYTHON_CALL, "</call>").has_tool_calling
