"""Requests in the shapes in which clients send them, and what is refused by name."""

import json
from typing import Any

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.messages.offered import not_served, offered_tools
from anyclaude.messages.requests import MessagesRequest, parse_messages_request, read_json

Json = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
TOOL = {"name": "Bash", "input_schema": SCHEMA}


def body(**fields: Any) -> Json:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "m", "max_tokens": 10, "messages": messages, **fields}


def parsed(**fields: Any) -> MessagesRequest:
    return parse_messages_request(json.dumps(body(**fields)).encode())


def refusal(**fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        offered_tools(parsed(**fields))
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+400", '[0.5, {"x": 2e308}]']
)
@pytest.mark.parametrize("place", ["max_tokens", "temperature", "extra", "input"])
def test_numbers_that_are_not_finite_are_refused(value: str, place: str) -> None:
    """A number that is none, or is too large, is a 400 wherever it stands."""
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"x": "HERE"}}
    turn = {"role": "assistant", "content": [call]}
    fields = {"messages": [turn]} if place == "input" else {place: "HERE"}
    raw = json.dumps(body(**fields)).replace('"HERE"', value)
    with pytest.raises(ApiError) as caught:
        parse_messages_request(raw.encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\ud83d", "\ufffd"),
        (r"a\uD83D b", "a\ufffd b"),
        (r"\ude00x", "\ufffdx"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83d\ude00\ud83d\n", "😀\ufffd\n"),
        (r"\\ud83d \ud83d", r"\ud83d" + " \ufffd"),
        (r"\\\ud83d\"", '\\\ufffd"'),
        (r"\ud83d\u0041", "\ufffdA"),
    ],
)
def test_half_of_a_character_refuses_no_turn(written: str, text: str) -> None:
    """Text that a client cut within a character becomes U+FFFD there, and nothing else changes."""
    assert read_json(f'{{"a": "{written}"}}'.encode()) == {"a": text}


def test_a_byte_order_mark_is_no_fault() -> None:
    """A byte order mark before the body, which some clients write, is passed over."""
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_large_numbers_that_are_finite_stay() -> None:
    """Numbers near the largest float, long integers and digits in a text are kept."""
    extra = [1e308, 10**400, "1e999", -1.5e-320, {"1e999": 0}]
    assert (parsed(extra=extra).model_extra or {})["extra"] == extra


FORMAT = {"type": "json_schema", "schema": SCHEMA}


@pytest.mark.parametrize(
    "fields",
    [
        {"output_format": FORMAT},
        {"output_format": FORMAT, "output_config": None},
        {"output_format": FORMAT, "output_config": {"effort": "low"}},
        {"output_format": FORMAT, "output_config": {"format": None}},
        {"output_config": {"format": FORMAT}},
        {"output_config": {"format": FORMAT}, "output_format": {"type": "other"}},
    ],
    ids=["old", "null", "effort", "null format", "new", "both"],
)
def test_both_names_of_the_format(fields: Json) -> None:
    """The beta's `output_format` asks for the same as `output_config.format`."""
    assert parsed(**fields).answer_schema == SCHEMA


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("json", "output_config.format: "),
        ({"type": "json_object"}, "output_config.format: "),
        ({"type": "json_schema"}, "output_config.format.schema: "),
        ({"type": "json_schema", "schema": "x"}, "output_config.format.schema: "),
        (
            {"type": "json_schema", "schema": {"properties": [1]}},
            "output_config.format.schema.properties: Input should be an object",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("old", [True, False], ids=["old name", "new name"])
def test_a_format_that_cannot_be_held_is_refused(wanted: Any, named: str, old: bool) -> None:
    """A format that nobody could hold to is a 400 with its path, and not ignored."""
    fields = {"output_format": wanted} if old else {"output_config": {"format": wanted}}
    assert refusal(**fields).startswith(named)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": [1]}, "properties: Input should be an object"),
        ({"properties": "x"}, "properties: Input should be an object"),
        ({"patternProperties": [{}]}, "patternProperties: Input should be an object"),
        ({"$defs": [{}]}, "$defs: Input should be an object"),
        ({"definitions": "x"}, "definitions: "),
    ],
    ids=str,
)
def test_malformed_schemas_are_refused_with_their_path(schema: Json, path: str) -> None:
    """A schema whose keyword has a value of the wrong kind is a 400 that says where."""
    message = refusal(tools=[TOOL, {"name": "t", "input_schema": schema}])
    assert message.startswith(f"tools.1.input_schema.{path}")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "nonsense"},
        {"type": ["string", "null"]},
        {"properties": {"a": True, "b": {"required": True}}},
        {"items": [{}, {}]},
        {"$ref": "#/nowhere"},
        {"properties": {"properties": {"type": "string"}, "enum": {"enum": [None]}}},
        {"x-extension": 5, "description": 7},
        {"required": None, "enum": None, "properties": None, "items": None},
        {"required": "a", "enum": 5, "properties": {"a": 5}, "minLength": "2"},
        {"properties": {"a": {"properties": []}}},
    ],
    ids=str,
)
def test_odd_schemas_are_taken(schema: Json) -> None:
    """A schema of sound form is taken, whether or not it makes sense."""
    assert parsed(tools=[{"name": "t", "input_schema": schema}]).tools[0].input_schema == schema


@pytest.mark.parametrize(
    "name",
    ["", " ", "a" * 257, 'q"t', "a\\b", "a\nb", "a<b", "a>b", "{a}", "a ", "\u212b", "e\u0301"],
)
def test_tool_names_that_calls_could_not_carry_are_refused(name: str) -> None:
    """A name that some notation of calls would change is refused in the API's words."""
    message = refusal(tools=[{"name": name, "input_schema": SCHEMA}])
    assert message == "tools.0.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'"


@pytest.mark.parametrize(
    "name", ["a", "mcp__x__y", "my.tool", "a/b", "a b", "gr\u00f6\u00dfe", "a:b@c", "a" * 256]
)
def test_other_tool_names_are_taken(name: str) -> None:
    """Names with dots, slashes, blanks or letters of other alphabets are taken as they are."""
    assert parsed(tools=[{"name": name, "input_schema": SCHEMA}]).tools[0].name == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique, and 'Bash' is not"),
        ({"tools": [TOOL, {"type": "bash_20250124", "name": "Bash"}]}, "tools: Tool names must"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: it may only be specified while"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice: it may only be specified"),
        ({"stop_sequences": ["", "x"]}, "stop_sequences.0: each stop sequence must contain"),
        ({"stop_sequences": ["x", " \n"]}, "stop_sequences.1: each stop sequence must contain"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0: user messages must have"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: user messages must have"),
    ],
    ids=str,
)
def test_what_the_api_refuses(fields: Json, message: str) -> None:
    """What the API refuses, and would otherwise go wrong in silence, is refused as it does."""
    assert refusal(**fields).startswith(message)


@pytest.mark.parametrize(
    "thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}]
)
def test_threads_are_refused_so_that_sdks_send_the_whole_conversation(thread: Json) -> None:
    """A stored conversation is a 400 with the code on which SDKs go on without one."""
    with pytest.raises(ApiError, match="400 invalid_request_error: thread: ") as caught:
        parsed(thread=thread)
    details = caught.value.envelope("req_1")["error"]["details"]
    assert details["error_code"] == "thread_unsupported_request"


def test_an_empty_turn_in_the_history_is_taken() -> None:
    """An empty turn refuses no later turn."""
    turns = [("user", []), ("assistant", []), ("user", "hi")]
    assert parsed(messages=[{"role": role, "content": content} for role, content in turns])


PUBLISHED = {
    "bash_20250124": ("bash", {"command", "restart"}),
    "bash_20241022": ("bash", {"command", "restart"}),
    "text_editor_20241022": ("str_replace_editor", {"command", "path", "new_str", "view_range"}),
    "text_editor_20250124": ("str_replace_editor", {"command", "path", "new_str", "view_range"}),
    "text_editor_20250429": ("str_replace_based_edit_tool", {"command", "path", "insert_text"}),
    "text_editor_20250728": ("str_replace_based_edit_tool", {"command", "path", "insert_text"}),
    "memory_20250818": ("memory", {"command", "path", "old_path", "new_path", "insert_text"}),
    "computer_20241022": ("computer", {"action", "coordinate", "text"}),
    "computer_20250124": ("computer", {"action", "scroll_direction", "duration"}),
    "computer_20251124": ("computer", {"action", "region"}),
}


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("named", [True, False], ids=["named", "without a name"])
def test_tools_that_anthropic_defines(kind: str, named: bool) -> None:
    """A client tool that is named by its type alone is offered with its published schema."""
    name, arguments = PUBLISHED[kind]
    given = {"type": kind, "display_width_px": 1024, "display_height_px": 768}
    tool, *_ = offered_tools(parsed(tools=[given | ({"name": "mine"} if named else {})]))
    assert tool.name == ("mine" if named else name)
    assert tool.description
    assert tool.input_schema is not None
    assert arguments <= set(tool.input_schema["properties"])
    assert not kind.startswith("computer") or "1024 pixels wide" in tool.description


@pytest.mark.parametrize(
    "kind",
    ["computer_toolset_20260801", "browser_toolset_20260801", "bash_20310101", "memory_20310101"],
)
def test_client_tools_that_are_not_known_are_refused(kind: str) -> None:
    """A tool that the caller would run, and no model here knows, does not vanish in silence."""
    assert refusal(tools=[TOOL, {"type": kind}]).startswith(f"tools.1: {kind} is not supported")


SERVER_TOOLS = [
    {"type": "mcp_toolset", "mcp_server_name": "docs"},
    {"type": "mcp_toolset", "mcp_server_name": "docs of mine!", "default_config": {}},
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "code_execution_20250825"},
    {"type": "bash_code_execution_20250825", "name": "bash_code_execution"},
    {"type": "invented_20310101"},
    {"type": "mcp_toolset"},
]


@pytest.mark.parametrize("tool", SERVER_TOOLS, ids=str)
def test_server_tools_are_left_out_and_told(tool: Json) -> None:
    """A tool of Anthropic's service needs no name, is not offered, and is named as not served."""
    request = parsed(tools=[tool, TOOL])
    assert [offered.name for offered in offered_tools(request)] == ["Bash"]
    assert [name.split()[0] for name in not_served(request)] == [tool["type"]]


def test_tools_of_a_model_without_calls_are_told() -> None:
    """The tools of a request to a model that makes no calls are named as not served."""
    assert len(not_served(parsed(tools=[TOOL]), calls_tools=False)) == 1
    assert not_served(parsed(tools=[TOOL])) == not_served(parsed(), calls_tools=False) == []


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ([{"type": "url", "url": "https://x", "name": "docs"}], ["mcp_servers docs"]),
        ([{"name": "a"}, {"name": "b"}], ["mcp_servers a", "mcp_servers b"]),
        ([{}], ["mcp_servers"]),
        ([], []),
        ("x", []),
        (None, []),
    ],
    ids=str,
)
def test_mcp_servers_are_told(servers: Any, told: list[str]) -> None:
    """MCP servers that nobody connects to are named as not served."""
    assert not_served(parsed(mcp_servers=servers)) == told


def change(kind: str, **tool: Any) -> Json:
    return {"role": "system", "content": [{"type": kind, "tool": tool}]}


def inline(name: str, **fields: Any) -> Json:
    return change(
        "tool_addition", type="tool_definition", definition={**TOOL, "name": name, **fields}
    )


LATER = {**TOOL, "name": "Grep", "defer_loading": True}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([], ["Bash", "Grep"]),
        ([inline("Deploy")], ["Bash", "Grep", "Deploy"]),
        ([inline("b", type="bash_20250124", input_schema=None)], ["Bash", "Grep", "b"]),
        ([change("tool_removal", type="tool_reference", name="Bash")], ["Grep"]),
        (
            [change("tool_removal", name="Bash"), change("tool_addition", name="Bash")],
            ["Grep", "Bash"],
        ),
        ([inline("Deploy"), change("tool_removal", name="Deploy")], ["Bash", "Grep"]),
        ([change("tool_addition", name="unknown")], ["Bash", "Grep"]),
        (
            [change("tool_addition", type="mcp_toolset_reference", server_name="x")],
            ["Bash", "Grep"],
        ),
        ([inline("x", type="mcp_toolset", mcp_server_name="docs")], ["Bash", "Grep"]),
    ],
    ids=[
        *("none", "inline", "published", "removed", "back again", "inline removed", "unknown"),
        *("toolset", "inline toolset"),
    ],
)
def test_tool_changes_in_the_conversation(changes: list[Json], names: list[str]) -> None:
    """System messages inside the conversation add and withdraw tools."""
    turns = [{"role": "user", "content": "hi"}, *changes]
    assert [t.name for t in offered_tools(parsed(tools=[TOOL, LATER], messages=turns))] == names


def test_a_tool_of_the_conversation_can_be_chosen() -> None:
    """`tool_choice` may name a tool that a system message defines."""
    turns = [{"role": "user", "content": "hi"}, inline("Deploy")]
    assert parsed(messages=turns, tool_choice={"type": "tool", "name": "Deploy"})


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"input_schema": SCHEMA}, "name: Field required"),
        ({"name": 'a"b'}, "name: String should match pattern"),
        ({"name": "a", "input_schema": {"properties": 5}}, "input_schema: properties: "),
        ("x", " Input should be"),
    ],
    ids=str,
)
def test_malformed_definitions_are_refused_with_their_place(definition: Any, message: str) -> None:
    """A definition in the conversation that is no tool is a 400 that says where it is."""
    turns = [{"role": "user", "content": "hi"}]
    turns.append(change("tool_addition", type="tool_definition", definition=definition))
    said = refusal(messages=turns)
    assert said.startswith("messages.1.content.0.tool.definition")
    assert message in said
