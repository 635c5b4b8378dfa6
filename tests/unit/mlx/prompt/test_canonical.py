"""Messages requests as template messages: what reaches the model, in which order and form."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.prompt.canonical import Conversation, canonicalise
from tests.models.odd_blocks import BLOCKS
from tests.models.requests import (
    BASH,
    Block,
    assistant,
    call,
    request,
    result,
    system,
    text,
    thinking,
    user,
)

_BILLING = "x-anthropic-billing-header: cc_version=2.1.197.123; cch=4f2;"


def _canonical(*messages: Block, **fields: Any) -> Conversation:
    return canonicalise(request(*messages, **fields))


def _roles(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in conversation.messages]


def _refusal(*messages: Block, **fields: Any) -> str:
    with pytest.raises(ApiError) as caught:
        _canonical(*messages, **fields)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "system_field",
    [
        [text(_BILLING), text("You are Claude.")],
        [text(_BILLING + " other"), text("You are Claude.")],
        _BILLING + "\nYou are Claude.",
        _BILLING + "\n\nYou are Claude.",
        "You are Claude.",
        [text("You are Claude.")],
    ],
)
def test_attribution_leaves_no_trace(system_field: str | list[Block]) -> None:
    """The attribution block changes nothing, whatever its value and form."""
    assert _canonical(user("hi"), system=system_field).leading == ("You are Claude.",)


def test_attribution_alone_is_no_system_prompt() -> None:
    """A system prompt of nothing but attribution is none."""
    assert _canonical(user("hi"), system=_BILLING).leading == ()
    assert _canonical(user("hi"), system=[text(_BILLING)]).leading == ()


def test_attribution_is_only_known_at_the_start() -> None:
    """The same header elsewhere in a text stays."""
    words = f"Explain {_BILLING}"
    assert _canonical(user(_BILLING), system=words).leading == (words,)
    assert _roles(_canonical(user(_BILLING))) == [("user", _BILLING)]


def test_cache_control_leaves_no_trace() -> None:
    """`cache_control` on a block, tool or message changes nothing."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    plain = _canonical(
        user("hi"), assistant(call("t1")), user(result("t1")), system=[text("S")], tools=[BASH]
    )
    marked = _canonical(
        user(text("hi", **mark)),
        assistant(call("t1") | mark),
        user(result("t1", [text("done", **mark)], **mark)),
        system=[text("S", **mark)],
        tools=[BASH | mark],
    )
    assert marked == plain


@pytest.mark.parametrize("make", [user, assistant, system])
def test_a_string_is_a_list_of_one_text(make: Any) -> None:
    """A content gives the same result as a string and as a list of one text block."""
    first = _canonical(user("hi"), assistant("yes"), make("words"), system="S")
    second = _canonical(
        user(text("hi")), assistant(text("yes")), make(text("words")), system=[text("S")]
    )
    assert first == second


def test_texts_are_joined_by_a_blank_line() -> None:
    """Several texts are joined by a blank line everywhere, and empty ones are left out."""
    conversation = _canonical(
        user("one", "", "two"),
        assistant(call("t1")),
        user(result("t1", [text("a"), text("b")])),
        system=[text("x"), text(""), text("y")],
    )
    assert conversation.leading == ("x\n\ny",)
    assert [content for _, content in _roles(conversation)] == ["one\n\ntwo", "", "a\n\nb"]


def test_position_rule_moves_the_first_system_message() -> None:
    """A system message directly after the first user turn is put before that turn."""
    conversation = _canonical(user("hi"), system("agents"), assistant("hello"), system="S")
    assert conversation.leading == ("S", "agents")
    assert _roles(conversation) == [("user", "hi"), ("assistant", "hello")]


def test_position_rule_moves_nothing_else() -> None:
    """Later system messages stay in place, also the second one in a row."""
    conversation = _canonical(
        user("hi"), system("agents"), system("also"), assistant("yes"), user("on"), system("late")
    )
    assert conversation.leading == ("agents",)
    assert [content for _, content in _roles(conversation)] == ["hi", "also", "yes", "on", "late"]


def test_position_rule_looks_at_nothing_later() -> None:
    """A message that is moved in a short conversation is moved in every longer one."""
    turns = [user("hi"), system("agents"), assistant("yes"), user("on"), system("late")]
    assert {_canonical(*turns[:end]).leading for end in range(2, 6)} == {("agents",)}
    assert _canonical(user("hi"), user("again"), system("late")).leading == ()


def test_leading_system_messages_join_the_system_prompt() -> None:
    """System messages before the first turn join the system prompt, and the position rule holds."""
    conversation = _canonical(system("first"), user("hi"), system("agents"), system="S")
    assert conversation.leading == ("S", "first", "agents")


def test_calls_and_results() -> None:
    """A call keeps its id, name and arguments, and its result names the tool."""
    conversation = _canonical(
        user("list"), assistant("sure", call("t1", "ls -la")), user(result("t1", "a\nb"))
    )
    function = {"name": "Bash", "arguments": {"command": "ls -la"}}
    assert conversation.messages[1:] == (
        {
            "role": "assistant",
            "content": "sure",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "a\nb", "name": "Bash"},
    )


def test_results_and_words_keep_their_order() -> None:
    """A user turn that mixes words and results becomes turns in the same order."""
    conversation = _canonical(
        user("go"),
        assistant(call("t1"), call("t2")),
        user("before", result("t1", "one"), result("t2", "two"), "after", "too"),
    )
    assert _roles(conversation)[2:] == [
        ("user", "before"),
        ("tool", "one"),
        ("tool", "two"),
        ("user", "after\n\ntoo"),
    ]


def test_failed_results_say_so() -> None:
    """The text of a result shows `is_error` only if it is true."""
    conversation = _canonical(
        user("go"),
        assistant(call("t1"), call("t2")),
        user(result("t1", "no such file", is_error=True), result("t2", "fine", is_error=False)),
    )
    assert [content for role, content in _roles(conversation) if role == "tool"] == [
        "Error: no such file",
        "fine",
    ]


def test_orphan_results_are_kept() -> None:
    """A result whose call is unknown keeps its text, without a tool's name."""
    (message,) = _canonical(user(result("gone", "text"))).messages
    assert message == {"role": "tool", "tool_call_id": "gone", "content": "text"}


def test_empty_results() -> None:
    """A result without content is an empty text."""
    block = {"type": "tool_result", "tool_use_id": "t1"}
    assert _roles(_canonical(user("go"), assistant(call("t1")), user(block)))[2] == ("tool", "")


def test_thinking_becomes_reasoning() -> None:
    """Thinking with any signature is kept; redacted thinking is left out."""
    redacted = {"type": "redacted_thinking", "data": "abc"}
    message = _canonical(user("q"), assistant(thinking("hm"), redacted, "a")).messages[1]
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_empty_turns() -> None:
    """An empty answer is left out, while an empty user turn stays a turn."""
    conversation = _canonical(user("hi"), assistant(""), user(text("")), system(""))
    assert _roles(conversation) == [("user", "hi"), ("user", "")]


def test_tools_in_received_order_with_their_schema() -> None:
    """Client tools keep order and schema; flags of the API and server tools are left out."""
    read = {"name": "Read", "input_schema": {"type": "object", "$schema": "s"}, "type": "custom"}
    flagged = BASH | {"strict": True, "eager_input_streaming": True}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    conversation = _canonical(
        user("hi"), tools=[read, search, flagged], tool_choice={"type": "none"}
    )
    assert [tool["function"] for tool in conversation.tools] == [
        {"name": "Read", "description": "", "parameters": read["input_schema"]},
        {"name": "Bash", "description": "Runs a command.", "parameters": BASH["input_schema"]},
    ]
    assert {tool["type"] for tool in conversation.tools} == {"function"}


@pytest.mark.parametrize("kind", ["image", "document", "hologram", "container_upload"])
@pytest.mark.parametrize("place", ["turn", "result", "system"])
def test_no_block_refuses_the_conversation(kind: str, place: str) -> None:
    """What a text model cannot read becomes a sentence, wherever it is, and never a refusal."""
    block = {"type": kind, "source": {"type": "base64", "data": "AAAA"}}
    turns = {
        "turn": [user("look", block)],
        "result": [assistant(call("t1")), user(result("t1", [text("look"), block]))],
        "system": [user("on"), system("look", block)],
    }[place]
    said = [content for _, content in _roles(_canonical(user("a"), assistant("b"), *turns))]
    assert any(content.startswith("look\n\n[") for content in said)


def test_place_counts_messages_as_sent() -> None:
    """A message moved by the position rule is still named by its place in the request."""
    message = _refusal(user("a"), system("b"), user({"type": "text", "text": 7}))
    assert message.startswith("messages.2.content.0.text: ")
    message = _refusal(user("a"), system({"type": "text", "text": 7}))
    assert message.startswith("messages.1.content.0.text: ")


def test_blocks_without_words_are_ignored() -> None:
    """Blocks that hold settings of the API are left out."""
    late = system("note", {"type": "tool_addition", "tool": {}}, {"type": "tool_removal"})
    answer = assistant({"type": "fallback"}, {"type": "server_tool_use", "name": "s"}, "found")
    conversation = _canonical(user("q"), answer, user("on"), late)
    assert [content for _, content in _roles(conversation)] == ["q", "found", "on", "note"]


DEFERRED = {**BASH, "name": "Grep", "defer_loading": True}
INLINE = {"type": "tool_definition", "definition": {**BASH, "name": "Deploy"}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"type": "tool_addition", "tool": INLINE}, '"name": "Deploy"'),
        ({"type": "tool_addition", "tool": {"type": "tool_reference", "name": "Grep"}}, "Runs a"),
        ({"type": "tool_addition", "tool": {"tool_name": "Grep"}}, '"name": "Grep"'),
        ({"type": "tool_addition", "tool": {"name": "Bash"}}, "Bash is available from now on."),
        ({"type": "tool_removal", "tool": {"name": "Bash"}}, "Bash is not available any more."),
    ],
    ids=["inline", "deferred", "old key", "listed", "removal"],
)
def test_tool_changes_reach_the_model_in_place(change: Block, told: str) -> None:
    """A tool that is announced in the conversation is described there; nothing before changes."""
    fields = {"tools": [BASH, DEFERRED]}
    turns = [user("a"), assistant("b"), user("c")]
    before = _canonical(*turns, **fields)
    after = _canonical(*turns, system(change), **fields)
    assert (after.leading, after.tools) == (before.leading, before.tools)
    assert after.messages[: len(before.messages)] == before.messages
    assert told in after.messages[-1]["content"]


def test_a_described_tool_keeps_its_description() -> None:
    """A later definition of the same name changes no message before it."""
    turns = [
        user("a"),
        assistant("b"),
        user("c"),
        system({"type": "tool_addition", "tool": INLINE}),
    ]
    named = {"type": "tool_addition", "tool": {"name": "Deploy"}}
    turns += [user("d"), system(named)]
    other = {
        "type": "tool_definition",
        "definition": {**BASH, "name": "Deploy", "description": "N"},
    }
    before = _canonical(*turns)
    after = _canonical(*turns, user("e"), system({"type": "tool_addition", "tool": other}))
    assert after.messages[: len(before.messages)] == before.messages


def test_the_placeholder_of_deferred_tools_is_no_tool() -> None:
    """The tool that Claude Code declares only to have a deferred one is not shown."""
    placeholder = {"name": "DeferredToolPlaceholder", "input_schema": {"type": "object"}}
    assert not _canonical(user("a"), tools=[placeholder]).tools


def test_tools_for_the_apis_own_search_are_listed() -> None:
    """Deferred tools are listed if only the API could search them: nothing else would find them."""
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    assert len(_canonical(user("a"), tools=[DEFERRED, search]).tools) == 1
    assert not _canonical(user("a"), tools=[DEFERRED]).tools


def test_words_of_other_servers_are_kept() -> None:
    """Search results, web results and compaction summaries in history are text for the model."""
    pages = [{"type": "web_search_result", "title": "T", "url": "http://x"}]
    found = {"type": "search_result", "title": "A", "source": "B", "content": [text("C")]}
    conversation = _canonical(
        user(found),
        assistant({"type": "web_search_tool_result", "content": pages}, "so"),
        user({"type": "compaction", "content": "earlier"}),
    )
    assert [content for _, content in _roles(conversation)] == [
        "A\nB\n\nC",
        "T http://x\n\nso",
        "earlier",
    ]


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (user({"type": "text", "text": 3}), "messages.0.content.0.text"),
        (user({"type": "tool_result"}), "messages.0.content.0.tool_use_id"),
        (user(result("t", 5)), "messages.0.content.0.content"),  # type: ignore[arg-type]
        (assistant({"type": "tool_use", "id": "t"}), "messages.0.content.0"),
        (assistant({**call("t"), "input": "ls"}), "messages.0.content.0.input"),
        (system("only"), "messages"),
    ],
)
def test_malformed_blocks_are_named(message: Block, place: str) -> None:
    """A block of a wrong shape is a 400 that names its place, never a crash."""
    assert _refusal(message).startswith(f"{place}: ")


def test_a_deferred_tool_stands_where_it_was_found() -> None:
    """A tool that a search finds is described at the result, so the list of tools is unchanged."""
    found = {"type": "tool_reference", "tool_name": "WebFetch"}
    later = {"name": "WebFetch", "input_schema": {"type": "object"}, "defer_loading": True}
    turns = (user("look"), assistant(call("t", "ToolSearch")), user(result("t", [found])))
    before = _canonical(user("look"), tools=[BASH])
    after = _canonical(*turns, tools=[later, BASH])
    assert after.tools == before.tools
    assert '"name": "WebFetch"' in _roles(after)[-1][1]


@pytest.mark.parametrize(
    ("block", "where"),
    [
        ({"type": "search_result", "content": [None]}, "messages.0.content.0.content.0"),
        (result("t1", content=[{"type": ["text"]}]), "messages.0.content.0.content.0"),
        ({**result("t1"), "content": 7}, "messages.0.content.0.content"),
    ],
)
def test_what_is_no_block_inside_a_block_is_named(block: Block, where: str) -> None:
    """A block inside a block that is malformed is refused with its place."""
    assert _refusal(user(block)).startswith(f"{where}: ")


def test_a_reference_to_no_name_is_refused() -> None:
    """A reference whose name is not a string is refused, also if tools are deferred."""
    later = {**BASH, "defer_loading": True}
    odd = result("t1", content=[{"type": "tool_reference", "tool_name": ["Bash"]}])
    assert "tool_name" in _refusal(user(odd), tools=[later])


@settings(max_examples=1000, deadline=None)
@given(st.lists(BLOCKS, min_size=1, max_size=3), st.sampled_from(["user", "assistant", "system"]))
def test_odd_blocks_are_translated_or_refused(blocks: list[Block], role: str) -> None:
    """Whatever a block contains, it is translated, or the request is refused with a message."""
    with suppress(ApiError):
        conversation = _canonical(user("hi"), {"role": role, "content": blocks})
        assert all(isinstance(text, str) for text in conversation.leading)
        assert all(isinstance(text, str) for _, text in _roles(conversation))
