"""Requests: everything that Claude Code sends is accepted and has its effect."""

import json
import re
import secrets
from typing import Any

import pytest

from tests.conformance import bodies as b
from tests.conformance.endpoint import Endpoint, accepted, check_refusal, prompt_tokens, text_of
from tests.conformance.rows import Row, row

INVALID = (400, "invalid_request_error")


@row(Row.MAX_TOKENS)
def test_max_tokens_is_required(endpoint: Endpoint) -> None:
    """A request without max_tokens is refused by name."""
    assert "max_tokens" in check_refusal(endpoint.post(max_tokens=None), *INVALID)


@row(Row.MAX_TOKENS)
@pytest.mark.parametrize("value", [-1, "ten", 1.5, [8]])
def test_wrong_max_tokens(endpoint: Endpoint, value: Any) -> None:
    """An invalid max_tokens is refused by name."""
    assert "max_tokens" in check_refusal(endpoint.post(max_tokens=value), *INVALID)


@row(Row.MAX_TOKENS)
@pytest.mark.parametrize("stream", [False, True])
def test_warm_up(endpoint: Endpoint, stream: bool) -> None:
    """max_tokens 0 fills the cache: no content, stop reason max_tokens, usage filled."""
    if stream:
        message = endpoint.stream(max_tokens=0).message
        content, reason, usage = message.content, message.stop_reason, message.usage
    else:
        whole = endpoint.create(max_tokens=0)
        content, reason, usage = whole["content"], whole["stop_reason"], whole["usage"]
    assert (content, reason, usage["output_tokens"]) == ([], "max_tokens", 0)
    assert prompt_tokens(usage) > 0


@row(Row.MAX_TOKENS)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_limit(endpoint: Endpoint, limit: int) -> None:
    """An answer that is cut has the stop reason and the number of tokens requested."""
    message = endpoint.create(max_tokens=limit)
    if message["stop_reason"] == "end_turn":
        pytest.skip("the model ended by itself")
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == limit


@row(Row.MAX_TOKENS)
def test_more_than_the_window(endpoint: Endpoint) -> None:
    """A max_tokens larger than the window is reduced to the rest of it."""
    with endpoint.open_stream(max_tokens=10_000_000) as response:
        assert response.status_code == 200, response.read()


@row(Row.SYSTEM)
def test_system_forms_are_one(endpoint: Endpoint) -> None:
    """A system prompt as a string, a block and a marked block is the same prompt."""
    words = "You are a careful engineer.\n\n  Mind the  blanks.\t\n- and the ends "
    marked = [b.text(words, cache_control={"type": "ephemeral"})]
    counted = {endpoint.count(system=form) for form in (words, [b.text(words)], marked)}
    assert len(counted) == 1
    assert counted.pop() > endpoint.count()


@row(Row.SYSTEM)
@pytest.mark.parametrize("nothing", ["", [], [b.text("")]], ids=["string", "list", "block"])
def test_empty_system(endpoint: Endpoint, nothing: Any) -> None:
    """An empty system prompt is the same as none."""
    endpoint.create(system=nothing)
    assert endpoint.count(system=nothing) == endpoint.count()


@row(Row.SYSTEM)
def test_attribution(endpoint: Endpoint) -> None:
    """The attribution block, which differs between conversations, is not part of the prompt."""
    rest = [b.text("You are Claude Code."), b.text("Answer briefly.")]
    blocks = [[b.text(b.ATTRIBUTION.format(mark)), *rest] for mark in ("a3f", "0c11e")]
    assert {endpoint.count(system=system) for system in (rest, *blocks)} == {
        endpoint.count(system=rest)
    }


@row(Row.SYSTEM)
def test_all_blocks_count(endpoint: Endpoint) -> None:
    """No system block is dropped."""
    one = endpoint.count(system=[b.text("First rule.")])
    assert endpoint.count(system=[b.text("First rule."), b.text("Second rule.")]) > one


@row(Row.MID_SYSTEM)
@pytest.mark.parametrize(
    "messages",
    [
        [b.user("Hi."), b.system("Be brief.")],
        [b.user("Hi."), b.system("Be brief."), b.assistant("Yes."), b.user("Go on.")],
        [b.user("Hi."), b.assistant("Yes?"), b.user("Go."), b.system([b.text("Plan mode.")])],
        [b.system("First of all."), b.user("Hi.")],
        [b.user("Hi."), b.system("One."), b.system("Two.")],
        [b.user("Hi."), b.assistant("Yes?"), b.system("Date changed."), b.user("Go.")],
        [*b.TOOL_LOOP, b.system("<total_tokens>100 tokens left</total_tokens>")],
    ],
    ids=["last", "between", "blocks", "first", "twice", "before user", "after a result"],
)
def test_system_message(endpoint: Endpoint, messages: Any) -> None:
    """A system message is accepted and read at any position."""
    endpoint.create(messages=messages)
    spoken = [message for message in messages if message["role"] != "system"]
    assert endpoint.count(messages=messages) > endpoint.count(messages=spoken)


@row(Row.MID_SYSTEM)
def test_system_message_forms_are_one(endpoint: Endpoint) -> None:
    """The same system message as a string and as a list of one block is the same prompt."""
    first, second = (
        [b.user("Hi."), b.assistant("Yes?"), b.user("Go."), b.system(form)]
        for form in ("Be brief.", [b.text("Be brief.")])
    )
    assert endpoint.count(messages=first) == endpoint.count(messages=second)
    endpoint.create(messages=first, max_tokens=1)
    usage = endpoint.create(messages=second, max_tokens=1)["usage"]
    if "cache_read_input_tokens" not in usage:
        pytest.skip("the server reports no cache")
    assert usage["cache_read_input_tokens"] >= prompt_tokens(usage) - 1


@row(Row.MID_SYSTEM)
def test_later_system_message_keeps_the_prefix(endpoint: Endpoint) -> None:
    """A later system message does not change the prompt before it."""
    history = [b.user("Word after word. " * 60), b.assistant("I see. " * 20), b.user("Go on.")]
    endpoint.create(messages=history, max_tokens=1)
    before = endpoint.count(messages=history[:2])
    later = [*history, b.assistant("So."), b.user("And?"), b.system("The date is another now.")]
    usage = endpoint.create(messages=later, max_tokens=1)["usage"]
    assert usage.get("cache_read_input_tokens", 0) >= before // 2


@row(Row.MID_SYSTEM)
def test_tool_defined_in_the_conversation(endpoint: Endpoint) -> None:
    """A tool that a system message defines can be called, and is held to its schema."""
    schema = {"type": "object", "properties": {"to": {"enum": ["prod"]}}, "required": ["to"]}
    definition = {"name": "Deploy", "description": "Deploys.", "input_schema": schema}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}
    choice = {"type": "tool", "name": "Deploy"}
    turns = [b.user("Hi."), b.assistant("Hello."), b.user("Deploy it."), b.system([added])]
    response = endpoint.post(messages=turns, tools=[b.BASH], tool_choice=choice, max_tokens=100)
    if response.status_code != 200:
        check_refusal(response, *INVALID)
        return
    calls = [block for block in accepted(response)["content"] if block["type"] == "tool_use"]
    assert [(call["name"], call["input"]) for call in calls] == [("Deploy", {"to": "prod"})]


@row(Row.MID_SYSTEM)
def test_tool_changes(endpoint: Endpoint) -> None:
    """Announcements of added and removed tools are accepted."""
    reference = {"type": "tool_reference", "tool_name": "Bash"}
    for kind in ("tool_addition", "tool_removal"):
        block = {"type": kind, "tool": reference, "tools": [reference]}
        messages = [b.user("Hi."), b.system([b.text("Tools changed."), block])]
        endpoint.create(messages=messages, tools=[b.BASH], max_tokens=1)


@row(Row.ODD_TURNS)
@pytest.mark.parametrize(
    "messages",
    [
        [b.user("One."), b.user("Two."), b.user([b.text("Three.")])],
        [b.user("One."), b.assistant("Two."), b.assistant("Three."), b.user("Four.")],
        [b.assistant("I begin."), b.user("Do.")],
        [b.user([b.text(""), b.text("Words."), b.text("")])],
        [b.user("Hi."), b.assistant([]), b.user("Go on.")],
        [b.user("Hi."), b.assistant(""), b.user("Go on.")],
        [b.user("Hi."), b.assistant([b.text("")]), b.user([b.text("  \n ")])],
    ],
    ids=["users", "assistants", "assistant first", "empty", "nothing", "empty string", "blank"],
)
def test_odd_turns(endpoint: Endpoint, messages: Any) -> None:
    """Turns that do not alternate, or are empty, are accepted."""
    endpoint.create(messages=messages)
    endpoint.count(messages=messages)


@row(Row.ODD_TURNS)
@pytest.mark.parametrize("form", ["text", "blocks"])
def test_prefill(endpoint: Endpoint, form: str) -> None:
    """An answer that the client began is continued and not repeated."""
    began = "The capital of France is"
    turn = b.assistant(began if form == "text" else [b.text(began)])
    message = endpoint.create(messages=[b.user("What is the capital of France?"), turn])
    assert not text_of(message).startswith(began)


@row(Row.ODD_TURNS)
def test_forms_of_content_are_one(endpoint: Endpoint) -> None:
    """Content as a string and as a list of one block is the same prompt."""
    forms = ("Say hi.", [b.text("Say hi.")], [b.text("Say hi.", cache_control={"type": "x"})])
    assert len({endpoint.count(messages=[b.user(form)]) for form in forms}) == 1


@row(Row.TOOL_HISTORY)
@pytest.mark.parametrize(
    "results",
    [
        [b.result("toolu_1", "out")],
        [b.result("toolu_1", [b.text("out")])],
        [b.result("toolu_1", [b.text("a"), b.text("b")])],
        [b.result("toolu_1", "")],
        [b.result("toolu_1", [])],
        [{"type": "tool_result", "tool_use_id": "toolu_1"}],
        [b.result("toolu_1", "No such file", is_error=True)],
        [b.result("toolu_1", "out"), b.text("<system-reminder>x</system-reminder>")],
        [b.text("By the way:"), b.result("toolu_1", "out")],
        [b.result("toolu_1", [{"type": "tool_reference", "tool_name": "Bash"}])],
        [
            b.result(
                "toolu_1",
                [
                    {
                        "type": "search_result",
                        "title": "T",
                        "source": "https://x",
                        "content": [b.text("found")],
                    }
                ],
            )
        ],
    ],
    ids=[
        *("string", "block", "blocks", "empty", "empty list", "absent", "error", "then text"),
        *("after text", "reference", "search result"),
    ],
)
def test_tool_result(endpoint: Endpoint, results: Any) -> None:
    """A tool result is accepted in every form, alone and between texts."""
    history = [*b.TOOL_LOOP[:2], b.user(results)]
    endpoint.create(messages=history, tools=[b.BASH])
    endpoint.create(messages=[*history, b.assistant("I see."), b.user("Thanks.")])


@row(Row.TOOL_HISTORY)
def test_is_error_reaches_the_model(endpoint: Endpoint) -> None:
    """Whether a result is an error reaches the model."""
    good, bad = (
        endpoint.count(messages=[*b.TOOL_LOOP[:2], b.user([b.result("toolu_1", "x", **fields)])])
        for fields in ({}, {"is_error": True})
    )
    assert bad > good


@row(Row.TOOL_HISTORY)
def test_parallel_results(endpoint: Endpoint) -> None:
    """Several calls in one turn and their results in one, in another order, are accepted."""
    calls = [b.call(f"toolu_{n}", command=f"ls {n}") for n in range(3)]
    results = [b.result(f"toolu_{n}", f"out {n}") for n in (2, 0, 1)]
    messages = [b.user("Look."), b.assistant(calls), b.user(results)]
    endpoint.create(messages=messages, tools=[b.BASH])


@row(Row.TOOL_HISTORY)
@pytest.mark.parametrize(
    "messages",
    [
        [b.user("Hi."), b.assistant("Yes?"), b.user([b.result("toolu_unknown", "out")])],
        [b.user([b.result("toolu_unknown", "out")])],
        [*b.TOOL_LOOP[:2], b.user("Never mind.")],
        [*b.TOOL_LOOP[:2]],
        [*b.TOOL_LOOP[:2], b.user([b.result("toolu_1"), b.result("toolu_1", "again")])],
        [b.user("Hi."), b.assistant([b.call("toolu_1"), b.call("toolu_1")]), b.user("Go.")],
    ],
    ids=["orphan", "orphan first", "unanswered", "call last", "twice answered", "one id twice"],
)
def test_orphans(endpoint: Endpoint, messages: Any) -> None:
    """Calls without results and results without calls are accepted."""
    endpoint.create(messages=messages, tools=[b.BASH])


@row(Row.TOOL_HISTORY)
def test_order_of_result_and_words(endpoint: Endpoint) -> None:
    """A result and the text after it stay in that order: what precedes them is reused."""
    history = [*b.TOOL_LOOP[:2], b.user([b.result("toolu_1", "file.txt " * 80)])]
    endpoint.create(messages=history, tools=[b.BASH], max_tokens=1)
    shared = endpoint.count(messages=history, tools=[b.BASH])
    words = b.text("<system-reminder>Mind the time.</system-reminder>")
    longer = [*b.TOOL_LOOP[:2], b.user([b.result("toolu_1", "file.txt " * 80), words])]
    usage = endpoint.create(messages=longer, tools=[b.BASH], max_tokens=1)["usage"]
    assert usage.get("cache_read_input_tokens", 0) >= shared * 0.8


@row(Row.TOOL_SCHEMA)
def test_any_schema(endpoint: Endpoint) -> None:
    """Tools with every schema feature and every extra field are accepted and read."""
    plain = endpoint.count()
    for tool in (b.BASH, b.NESTED, {**b.BASH, "type": "custom"}, {"name": "Bare"}):
        endpoint.create(tools=[tool], max_tokens=1)
        assert endpoint.count(tools=[tool]) > plain


@row(Row.TOOL_SCHEMA)
def test_whole_schema_is_read(endpoint: Endpoint) -> None:
    """Details deep inside a schema reach the model."""

    def tool(words: str) -> b.Json:
        item = {"type": "object", "properties": {"n": {"type": "integer", "description": words}}}
        properties = {"list": {"type": "array", "items": item}}
        return {"name": "T", "input_schema": {"type": "object", "properties": properties}}

    brief, long = (endpoint.count(tools=[tool(words)]) for words in ("x", "x " * 40))
    assert long - brief > 30


@row(Row.TOOL_SCHEMA)
def test_flags_are_not_prompt(endpoint: Endpoint) -> None:
    """cache_control and other flags of a tool, which may move, are not part of the prompt."""
    marked = {**b.BASH, "cache_control": {"type": "ephemeral"}, "defer_loading": False}
    assert endpoint.count(tools=[marked]) == endpoint.count(tools=[b.BASH])


@row(Row.TOOL_SCHEMA)
def test_many_tools(endpoint: Endpoint) -> None:
    """A set of thirty tools is accepted."""
    tools = [{**b.NESTED, "name": f"mcp__server__tool_{n}"} for n in range(30)]
    endpoint.create(tools=tools, max_tokens=1)


@row(Row.SERVER_TOOLS)
@pytest.mark.parametrize(
    "kind",
    [
        *("web_search_20250305", "web_fetch_20250910", "code_execution_20250825"),
        *("advisor_20260301", "invented_20310101"),
    ],
)
def test_server_tool(endpoint: Endpoint, kind: str) -> None:
    """A tool that only another server could run is not refused."""
    tool = {"type": kind, "name": kind.rpartition("_")[0], "max_uses": 5}
    endpoint.create(tools=[tool, b.BASH], max_tokens=1)
    endpoint.create(tools=[tool], max_tokens=1)


@row(Row.SERVER_TOOLS)
def test_mcp_toolset(endpoint: Endpoint) -> None:
    """The tools of an MCP server, which are declared without a name, are not refused."""
    server = {"type": "url", "url": "https://mcp.example/", "name": "docs"}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    endpoint.create(tools=[toolset, b.BASH], mcp_servers=[server], max_tokens=1)
    endpoint.count(tools=[toolset, b.BASH])


@row(Row.SERVER_TOOLS)
@pytest.mark.parametrize(
    ("kind", "name", "argument"),
    [
        ("bash_20250124", "bash", None),
        ("text_editor_20250124", "str_replace_editor", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "command"),
        ("memory_20250818", "memory", "command"),
        ("computer_20250124", "computer", "action"),
    ],
)
def test_client_tool_of_anthropic(
    endpoint: Endpoint, kind: str, name: str, argument: str | None
) -> None:
    """A client tool that is named by its type alone can be called, or is refused by name."""
    tool = {"type": kind, "name": name, "display_width_px": 800, "display_height_px": 600}
    response = endpoint.post(
        tools=[tool], tool_choice={"type": "tool", "name": name}, max_tokens=300
    )
    if response.status_code != 200:
        assert kind in check_refusal(response, *INVALID)
        return
    message = accepted(response)
    call = next(block for block in message["content"] if block["type"] == "tool_use")
    assert call["name"] == name
    was_cut = message["stop_reason"] == "max_tokens"
    assert was_cut or argument is None or argument in call["input"]


@row(Row.SERVER_TOOLS)
def test_server_tool_history(endpoint: Endpoint) -> None:
    """A search by another server is accepted as history."""
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {
        "type": "web_search_result",
        "title": "Page",
        "url": "https://x",
        "encrypted_content": "e30=",
        "page_age": None,
    }
    got = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}
    failed = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    lost = {**got, "content": failed}
    turn = b.assistant([use, got, b.text("It says so.")])
    other = b.assistant([use, lost, b.text("No luck.")])
    endpoint.create(messages=[b.user("Search."), turn, b.user("More."), other, b.user("Ok.")])


@row(Row.SERVER_TOOLS)
@pytest.mark.parametrize("choice", [None, {"type": "tool", "name": "web_search"}], ids=str)
def test_web_search(endpoint: Endpoint, choice: Any) -> None:
    """Claude Code's search request is run or reported as unavailable, not made up."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    message = endpoint.stream(
        messages=[b.user("Perform a web search for the query: tides today")],
        system="You are an assistant for performing a web search tool use",
        tools=[search],
        tool_choice=choice,
        max_tokens=300,
    ).message
    if not message.of_type("web_search_tool_result"):
        assert re.search("not available|unavailable", message.text), message.text


@row(Row.TOOL_CHOICE)
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "auto"},
        {"type": "any"},
        {"type": "tool", "name": "Bash"},
        {"type": "none"},
        {"type": "auto", "disable_parallel_tool_use": True},
        None,
    ],
    ids=["auto", "any", "tool", "none", "one", "absent"],
)
def test_every_tool_choice_is_accepted(endpoint: Endpoint, choice: Any) -> None:
    """Every tool_choice is accepted, and none changes the tokens of the history."""
    fields: dict[str, Any] = {} if choice is None else {"tool_choice": choice}
    endpoint.create(tools=[b.BASH], max_tokens=1, **fields)


@row(Row.TOOL_CHOICE)
@pytest.mark.parametrize("choice", [{"type": "maybe"}, "auto", {"type": "tool"}, 7])
def test_wrong_tool_choice(endpoint: Endpoint, choice: Any) -> None:
    """An invalid tool_choice is refused by name."""
    response = endpoint.post(tools=[b.BASH], tool_choice=choice)
    assert "tool_choice" in check_refusal(response, *INVALID)


@row(Row.TOOL_CHOICE)
def test_choice_of_an_unknown_tool(endpoint: Endpoint) -> None:
    """A forced tool that was not offered is refused."""
    response = endpoint.post(tools=[b.BASH], tool_choice={"type": "tool", "name": "Nope"})
    check_refusal(response, *INVALID)


@row(Row.THINKING)
@pytest.mark.parametrize(
    "thinking",
    [
        {"type": "adaptive"},
        {"type": "adaptive", "display": "omitted"},
        {"type": "adaptive", "display": "summarized"},
        {"type": "enabled", "budget_tokens": 1024},
        {"type": "enabled", "budget_tokens": 1_000_000},
        {"type": "disabled"},
        None,
    ],
    ids=["adaptive", "omitted", "summarized", "budget", "large budget", "disabled", "absent"],
)
def test_thinking_settings(endpoint: Endpoint, thinking: Any) -> None:
    """Every thinking setting is accepted, streaming or not."""
    fields = {} if thinking is None else {"thinking": thinking}
    endpoint.create(**fields)
    assert endpoint.stream(**fields).message.stop_reason


@row(Row.THINKING)
def test_thinking_history(endpoint: Endpoint) -> None:
    """Thinking that another server signed or encrypted is accepted."""
    thoughts = [
        {"type": "thinking", "thinking": "Hm, hm.", "signature": "Zm9yZWlnbg=="},
        {"type": "thinking", "thinking": "", "signature": "EqQBCgIYAhIM"},
        {"type": "thinking", "thinking": "Unsigned.", "signature": ""},
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"},
    ]
    messages = [b.user("Hi."), b.assistant([*thoughts, b.text("Yes?")]), b.user("Go.")]
    for thinking in ({"type": "adaptive"}, {"type": "disabled"}):
        endpoint.create(messages=messages, thinking=thinking)


@row(Row.THINKING)
def test_thinking_blocks(endpoint: Endpoint) -> None:
    """Thinking comes first, in blocks that end with one signature."""
    streamed = endpoint.stream(
        messages=[b.user("Think hard: what is 17 times 23?")],
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=1200,
    )
    kinds = [block["type"] for block in streamed.message.content]
    if "thinking" not in kinds:
        pytest.skip("the model did not think")
    assert kinds[0] == "thinking"
    deltas = [e["delta"]["type"] for e in streamed.events if e["type"] == "content_block_delta"]
    assert deltas.count("signature_delta") == kinds.count("thinking")


@row(Row.OUTPUT_CONFIG)
@pytest.mark.parametrize("effort", ["low", "medium", "high", "max", "invented"])
def test_effort(endpoint: Endpoint, effort: str) -> None:
    """Every effort is accepted."""
    endpoint.create(output_config={"effort": effort})


@row(Row.OUTPUT_CONFIG)
@pytest.mark.parametrize("stream", [False, True])
def test_json_schema(endpoint: Endpoint, stream: bool) -> None:
    """An answer requested with a JSON schema fits it: Claude Code's title call needs that."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 40}},
        "required": ["title"],
        "additionalProperties": False,
    }
    config = {"format": {"type": "json_schema", "schema": schema}}
    fields: dict[str, Any] = {
        "messages": [b.user("Title for a conversation about sorting a list.")],
        "output_config": config,
        "max_tokens": 300,
    }
    if stream:
        message = endpoint.stream(**fields).message
        said, reason = message.text, message.stop_reason
    else:
        whole = endpoint.create(**fields)
        said, reason = text_of(whole), whole["stop_reason"]
    assert reason == "end_turn"
    answer = json.loads(said)
    assert answer.keys() == {"title"}
    assert isinstance(answer["title"], str)
    assert len(answer["title"]) <= 40


@row(Row.OUTPUT_CONFIG)
def test_title(endpoint: Endpoint) -> None:
    """Claude Code's title call, whose max_tokens is far larger, ends with the title."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 40}},
        "required": ["title"],
        "additionalProperties": False,
    }
    message = endpoint.stream(
        system=[b.text(b.ATTRIBUTION.format("571")), b.text("Write a title for the session.")],
        messages=[b.user([b.text("<session>\nSort a list, please.\n</session>")])],
        tools=[],
        output_config={"format": {"type": "json_schema", "schema": schema}},
        max_tokens=32_000,
    ).message
    assert message.stop_reason == "end_turn"
    assert json.loads(message.text).keys() == {"title"}


@row(Row.CONTEXT_MANAGEMENT)
@pytest.mark.parametrize(
    "edit",
    [
        {"type": "clear_thinking_20251015", "keep": "all"},
        {"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 1}},
        {"type": "compact_20260112"},
        {"type": "invented_20310101"},
    ],
    ids=lambda edit: edit["type"],
)
def test_context_management(endpoint: Endpoint, edit: Any) -> None:
    """Context edits are accepted, whether or not they are made."""
    endpoint.create(context_management={"edits": [edit]}, max_tokens=1)


@row(Row.STOP_SEQUENCES)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequence(endpoint: Endpoint, stream: bool) -> None:
    """The text ends before the sequence, which is named as the reason."""
    free = text_of(endpoint.create(max_tokens=40, temperature=0))
    # Taken from the middle of the model's own text, across token borders.
    sequence = free[len(free) // 2 :][:4]
    if not sequence.strip() or "\ufffd" in sequence:
        pytest.skip("the model said too little")
    fields: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "stop_sequences": [sequence]}
    if stream:
        message = endpoint.stream(**fields).message
        said, told = message.text, (message.stop_reason, message.stop_sequence)
    else:
        whole = endpoint.create(**fields)
        said, told = text_of(whole), (whole["stop_reason"], whole.get("stop_sequence"))
    assert told == ("stop_sequence", sequence)
    assert said == free[: free.index(sequence)]


@row(Row.STOP_SEQUENCES)
def test_first_of_several(endpoint: Endpoint) -> None:
    """Of several sequences the first that appears is named."""
    free = text_of(endpoint.create(max_tokens=40, temperature=0))
    first, second = free[6:8], free[20:23]
    if not (first.strip() and second.strip()) or "\ufffd" in free:
        pytest.skip("the model said too little")
    stops = [second, "never said", first]
    told = endpoint.create(max_tokens=40, temperature=0, stop_sequences=stops)
    earliest = min((s for s in stops if s in free), key=free.index)
    assert told["stop_sequence"] == earliest


@row(Row.STOP_SEQUENCES)
def test_classifier(endpoint: Endpoint) -> None:
    """Claude Code's classifier call ends before its stop sequence."""
    message = endpoint.stream(
        system=[b.text("You judge actions. Answer <block>yes</block> or <block>no</block>.")],
        messages=[
            b.user([b.text("<transcript>"), b.text('{"Bash":"ls"}'), b.text("</transcript>")])
        ],
        max_tokens=64,
        temperature=0,
        thinking={"type": "disabled"},
        stop_sequences=["</block>"],
    ).message
    assert "</block>" not in message.text
    assert message.stop_sequence in (None, "</block>")


@row(Row.STOP_SEQUENCES)
def test_no_stop_sequence(endpoint: Endpoint) -> None:
    """Without a match the field is null, and no character of a partial match is lost."""
    free = endpoint.create(max_tokens=12, temperature=0)
    said = text_of(free)
    stops = [said[-3:] + "\u0000not said"]
    again = endpoint.create(max_tokens=12, temperature=0, stop_sequences=stops)
    assert (text_of(again), again.get("stop_sequence")) == (said, None)


@row(Row.SAMPLING)
@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
        {"top_p": 1},
        {"top_k": 1},
        {"top_k": 0},
    ],
    ids=str,
)
def test_sampling(endpoint: Endpoint, fields: Any) -> None:
    """Sampling settings are accepted."""
    endpoint.create(**fields)


@row(Row.SAMPLING)
def test_greedy(endpoint: Endpoint) -> None:
    """At temperature 0 an answer is the same each time."""
    said = {text_of(endpoint.create(temperature=0, max_tokens=24)) for _ in range(3)}
    assert len(said) == 1


@row(Row.SAMPLING)
@pytest.mark.parametrize("fields", [{"temperature": "hot"}, {"top_p": 2}, {"top_k": -1}], ids=str)
def test_wrong_sampling(endpoint: Endpoint, fields: Any) -> None:
    """An invalid sampling setting is refused by name."""
    assert next(iter(fields)) in check_refusal(endpoint.post(**fields), *INVALID)


@row(Row.IMAGES)
@pytest.mark.parametrize("place", ["user", "by address", "tool_result", "document"])
def test_image(endpoint: Endpoint, place: str) -> None:
    """An image or document is read, or refused with its place; never dropped."""
    address = {"type": "url", "url": "https://example.com/a.png"}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}
    content = {
        "user": [b.image(), b.text("What is it?")],
        "by address": [{"type": "image", "source": address}, b.text("What is it?")],
        "tool_result": [b.result("toolu_1", [b.image()])],
        "document": [{"type": "document", "source": pdf}, b.text("Read.")],
    }[place]
    history = b.TOOL_LOOP[:2] if place == "tool_result" else ()
    response = endpoint.post(messages=[*history, b.user(content)], max_tokens=1)
    if response.status_code == 200:
        accepted(response)
        alone = [block for block in content if block["type"] == "text"] or "x"
        counted = endpoint.count(messages=[*history, b.user(content)])
        assert counted > endpoint.count(messages=[*history, b.user(alone)])
    else:
        sentence = check_refusal(response, *INVALID)
        assert ("document" if place == "document" else "image") in sentence
        assert f"messages.{len(history)}" in sentence


@row(Row.UNKNOWN_FIELDS)
def test_unknown_fields(endpoint: Endpoint) -> None:
    """Unknown fields at every level are accepted."""
    new = {"invented_in_2031": {"deep": [1, None]}}
    message = {"role": "user", "content": [b.text("Say hi.", **new)], **new}
    endpoint.create(
        messages=[message],
        system=[b.text("Be brief.", **new)],
        tools=[{**b.BASH, **new}],
        tool_choice={"type": "auto", **new},
        thinking={"type": "adaptive", **new},
        output_config={"effort": "high", "task_budget": {"type": "tokens", "total": 9}, **new},
        metadata={"user_id": "x", **new},
        service_tier="auto",
        speed="fast",
        inference_geo="eu",
        container=None,
        mcp_servers=[],
        **new,
    )


@row(Row.UNKNOWN_FIELDS)
def test_unicode(endpoint: Endpoint) -> None:
    """Text in any script, with every control character, comes through."""
    words = "Zwölf 素早い狐 🦊👩‍👩‍👧 \u2028\u2029\u0000\u0007\u202e \ud7ff \uffff " + chr(0x10FFFF)
    endpoint.create(messages=[b.user(words)], system=words)


@row(Row.DIAGNOSTICS)
def test_diagnostics(endpoint: Endpoint) -> None:
    """A request for cache diagnostics gets what changed since the previous message."""
    words = secrets.token_hex(8) + " Words of the conversation. " * 40
    first = endpoint.create(messages=[b.user(words)], system="Be brief.")
    asked = {"diagnostics": {"previous_message_id": first["id"]}, "messages": [b.user(words)]}
    answer = endpoint.create(**asked, system="Be long, and never brief.")
    if "diagnostics" not in answer:
        pytest.skip("the server has no diagnostics")
    reason = answer["diagnostics"]["cache_miss_reason"]
    assert reason["type"] == "system_changed"
    assert isinstance(reason["cache_missed_input_tokens"], int)
    assert endpoint.create(**asked, system="Be brief.")["diagnostics"] is None
